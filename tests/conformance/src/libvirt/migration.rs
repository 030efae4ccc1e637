//! A guest's disk leaves a file for a volume while the guest runs, as docs/operations/migration.md has it done with libvirt.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use test_node::Process;
use vm_tests::patience::wait_for;

use super::domain::{Running, Stage};

/// The disk's size, in bytes.
const SIZE: u64 = 64 << 20;
/// How long the guest may take to see a disk come or go.
const PATIENCE: Duration = Duration::from_mins(2);
/// Whether the guest's disk holds what was written to it.
const COMPARE: &str =
    "echo 3 > /proc/sys/vm/drop_caches && cmp -n $(stat -c %s /bin/busybox) /bin/busybox /dev/vdb";

/// Writes a MiB of one letter.
const WRITE: &str =
    "tr '\\0' x < /dev/zero | head -c 1048576 | dd of=/dev/vdb bs=64k seek=144 conv=fsync 2>/dev/null";
/// Whether it is there.
const READ: &str = "test \"$(dd if=/dev/vdb bs=64k skip=144 count=16 2>/dev/null | tr -d x | wc -c)\" = 0";

/// See the module.
pub(super) fn block_copy(stage: &mut Stage) -> Result<()> {
    let mut domain = stage.domain();
    let at = |name: &str| domain.folder().join(name);
    let (old, socket, description) = (at("old.raw"), at("nbd.sock"), at("moved.xml"));
    fs::File::create(&old)?.set_len(SIZE)?;
    let log = at("storaged-nbd.log");
    domain.storagectl(&["volume", "create", "moved", &SIZE.to_string()])?;
    let mut gateway = serve(&domain, &socket, &log)?;
    everybody_may_use(&old)?;
    fs::write(
        &description,
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
             <source file='{}'/><target dev='vdb' bus='virtio'/></disk>",
            old.display()
        ),
    )?;
    domain.virsh_with("attach-device", &description)?;
    wait_for("the guest to see the disk", PATIENCE, || {
        Ok(domain.console.run("test -b /dev/vdb").ok())
    })?;
    domain.console.run("cat /bin/busybox > /dev/vdb && sync")?;

    fs::write(
        &description,
        format!(
            "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>\
             <source protocol='nbd' name='moved'><host transport='unix' socket='{}'/><reconnect delay='86400'/></source>\
             </disk>",
            socket.display()
        ),
    )?;
    domain.virsh_on(
        "blockcopy",
        &[
            "vdb",
            "--xml",
            &description.display().to_string(),
            "--reuse-external",
            "--transient-job",
            "--wait",
            "--pivot",
        ],
    )?;
    let before = fs::read(&old)?;
    domain.console.run(COMPARE)?;
    domain.console.run(WRITE)?;
    ensure!(fs::read(&old)? == before, "the guest still writes to the file");
    let disks = domain.virsh("domblklist")?;
    ensure!(disks.contains("moved"), "{disks}");
    domain.console.run(READ)?;
    domain.virsh_on("detach-disk", &["vdb"])?;
    wait_for("libvirt to forget the disk", PATIENCE, || {
        Ok((!domain.virsh("domblklist")?.contains("vdb")).then_some(()))
    })?;
    gateway.stop().context("nobody needs it any more")
}

/// A gateway to which QEMU may connect.
fn serve(domain: &Running, socket: &Path, log: &Path) -> Result<Process> {
    let session = format!("unix:{}", domain.session_socket().display());
    let listen = format!("unix:{}", socket.display());
    let mut gateway = Process::start("storaged-nbd", ["--storaged", &session, "--listen", &listen], log)?;
    gateway.wait_for_socket(socket)?;
    everybody_may_use(socket)?;
    Ok(gateway)
}

/// QEMU runs as another user, who has to come by.
fn everybody_may_use(file: &Path) -> Result<()> {
    crate::tool::succeed("chmod", ["a+rw", &file.display().to_string()]).map(drop)
}
