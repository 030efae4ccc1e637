//! A host with a kernel of its own, in QEMU: what a container cannot show, such as block devices that the host's kernel makes,
//! and a host that is started anew. It costs ten times a container's time where QEMU has to emulate the processor.
//!
//! It does not know what the host is for.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use vm_tests::accelerator::Accelerator;
use vm_tests::image::Image;

use crate::host::{CONSOLE, DISK_BYTES, Host, Kind, furnished, name_of};
use crate::inside::{self, SWITCH, finish};

/// How long its first disk is, which has the Debian. It is thin.
const SYSTEM_BYTES: u64 = 6 << 30;
/// The name of its network interface.
const INTERFACE: &str = "eth0";
/// What its kernel is told. Names of interfaces are the kernel's own, so that there is one thing less to find out.
const KERNEL_OPTIONS: &str = "console=ttyS0 panic=-1 no_timer_check net.ifnames=0 rdinit=/init";
/// What every machine has.
const FIXED: &[&str] = &[
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-machine",
    "q35",
    "-m",
    "1536",
    "-smp",
    "2",
    // A fresh machine needs random numbers before it has had a chance to gather any.
    "-device",
    "virtio-rng-pci",
];

/// Starts a machine with so many disks besides its first. It is there when `await_start` has come back.
pub(crate) fn start(
    kind: &Kind,
    image: &Image,
    accelerator: Accelerator,
    number: u8,
    disks: usize,
) -> Result<Host> {
    let name = name_of(number);
    let folder = kind.place.join(&name);
    let root = furnished(kind, number, INTERFACE)?;
    let initramfs = folder.join("initramfs");
    image.starting_debian(&initramfs)?;
    let system = folder.join("system");
    make_system(kind, image, &root, &system).context("make the machine's first disk")?;
    let plug = format!("plug-{number}");
    inside::run("ip", &["tuntap", "add", &plug, "mode", "tap"])?;
    inside::run("ip", &["link", "set", &plug, "master", SWITCH, "up"])?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(FIXED)
        .args(accelerator.arguments())
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&initramfs)
        .args(["-append", KERNEL_OPTIONS])
        .arg("-netdev")
        .arg(format!("tap,id=network,ifname={plug},script=no,downscript=no"))
        .arg("-device")
        .arg(format!(
            "virtio-net-pci,netdev=network,mac=52:54:00:00:00:{number:02x}"
        ))
        .arg("-serial")
        .arg(format!("file:{}", folder.join(CONSOLE).display()));
    add_disk(&mut qemu, &system, &format!("{name}-system"));
    for disk in 1..=disks {
        let path = folder.join(format!("disk-{disk}"));
        File::create(&path)?.set_len(DISK_BYTES)?;
        add_disk(&mut qemu, &path, &format!("{name}-disk-{disk}"));
    }
    let log = File::create(folder.join("qemu"))?;
    let process = qemu
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start QEMU")?;
    Ok(Host {
        name,
        address: inside::address(number),
        folder,
        key: kind.key.clone(),
        process,
        _disks: Vec::new(),
        _cgroup: None,
    })
}

/// The machine's `udev` makes it `/dev/disk/by-id/virtio-SERIAL`.
fn add_disk(qemu: &mut Command, path: &Path, serial: &str) {
    qemu.arg("-drive")
        .arg(format!(
            "file={},format=raw,if=none,discard=unmap,id={serial}",
            path.display()
        ))
        .arg("-device")
        .arg(format!("virtio-blk-pci,drive={serial},serial={serial}"));
}

/// A file system with all that the machine's root has, the folders that all hosts share, and the kernel's modules.
fn make_system(kind: &Kind, image: &Image, root: &Path, system: &Path) -> Result<()> {
    let modules = fs::canonicalize(&image.modules)?;
    let shared = kind
        .shared
        .iter()
        .map(|(from, to)| (from.as_path(), to.trim_start_matches('/')));
    for (from, to) in shared.chain([(modules.as_path(), "usr/lib/modules")]) {
        let to = root.join(to);
        fs::create_dir_all(&to)?;
        finish(Command::new("mount").arg("--bind").arg(from).arg(&to))?;
    }
    File::create(system)?.set_len(SYSTEM_BYTES)?;
    finish(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([root, system]),
    )?;
    finish(Command::new("umount").arg("--recursive").arg(root)).map(drop)
}
