//! What a node of Proxmox VE sees of volumes that must be block devices of its kernel, TPM states and containers' disks: the
//! plugin itself, in perl, over `storaged`, `storaged-nbd` and `storaged-attach`, all of them in a guest. Of Proxmox VE there
//! are the doubles that the plugin's own tests have, and of systemd what starts a unit.

mod root;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setting;
use super::device::fio_verify;
use crate::guest::Guest;
use crate::patience::wait_for;

/// How long the guest may take. What was under way when a link died is sent again by the kernel's own clock, half a
/// minute later.
const PATIENCE: Duration = Duration::from_mins(3);
/// The plugin as it lies on the node.
const CALL: &str = "chroot /node /usr/bin/call";
/// What kernels print of requests that failed.
const I_O_ERROR: &str = "I/O error";
/// The last lines of what each program said, for whoever reads of a failure.
const TOLD: &str = "tail -n 15 /tmp/storaged.log /node/run/*.log; dmesg | grep nbd | tail -n 15";

const TPM: &str = "vm-100-disk-0";
const TPM_KIB: u64 = 4096;
const CONTAINER: &str = "vm-200-disk-0";
/// The disks are in the guest's memory, which holds each byte twice.
const CONTAINER_MIB: u64 = 64;
const GROWN_MIB: u64 = 96;
/// Written after the growth, beside the 32 MiB of fio: more than there was room for.
const LATE_MIB: u64 = 40;

/// Block devices of the node: made, found again, grown, kept over the end of a gateway, and ended.
pub(super) fn block_devices(setting: &Setting) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("node.img");
    root::make(&disk)?;
    let mut guest = setting.boot_host_with(disk)?;
    start(&mut guest)?;
    let outcome = tpm_state(&mut guest).and_then(|()| container(&mut guest));
    outcome.map_err(|cause| {
        let told = guest.try_run(TOLD);
        cause.context(told.map_or_else(|cause| format!("{cause:#}"), |output| output.text))
    })?;
    let kernel = guest.kernel_log();
    ensure!(!kernel.contains(I_O_ERROR), "the node has seen errors: {kernel}");
    guest.power_off()
}

/// Has the plugin do something. An error is what it says.
fn call(guest: &mut Guest, what: &str) -> Result<String> {
    let output = guest.try_run(&format!("{CALL} {what} 2>&1"))?;
    let said = output.text.trim();
    ensure!(output.status == 0, "the plugin, asked to {what}, says: {said}");
    Ok(said.to_owned())
}

/// What the plugin says when it does not do something.
fn refused(guest: &mut Guest, what: &str) -> Result<String> {
    let output = guest.try_run(&format!("{CALL} {what} 2>&1"))?;
    ensure!(output.status != 0, "the plugin does it: {what}");
    Ok(output.text)
}

/// The node's root, and its `storaged` with three disks in memory and a pool.
fn start(guest: &mut Guest) -> Result<()> {
    guest.run(
        "hostname pve1 && mkdir /node && mount -o ro /dev/vda /node && \
         for name in dev proc sys tmp bin; do mount -o bind /$name /node/$name || exit 1; done && \
         mount -t tmpfs run /node/run && mount -t tmpfs disks /node/var/lib/storaged",
    )?;
    guest.run(
        "chroot /node /usr/bin/storaged --disks 3 --memory 128M --disk-log 4M > /tmp/storaged.log 2>&1 & \
         echo $! > /tmp/storaged.pid",
    )?;
    wait_for("the node to have a pool", PATIENCE, || {
        let lives = guest.try_run("kill -0 $(cat /tmp/storaged.pid)")?.status == 0;
        ensure!(
            lives,
            "storaged has ended: {}",
            guest.run("tail /tmp/storaged.log")?
        );
        let made = guest.try_run(&format!("{CALL} pool 2>&1"))?;
        Ok((made.status == 0).then_some(()))
    })
}

/// Where a volume's block device is.
fn device(volume: &str) -> String {
    format!("/dev/storaged/ssd.{volume}")
}

fn has_bytes(guest: &mut Guest, device: &str, bytes: u64) -> Result<()> {
    let shown = guest.run(&format!("blockdev --getsize64 {device}"))?;
    ensure!(
        shown.trim() == bytes.to_string(),
        "{device} has {shown} bytes, not {bytes}"
    );
    Ok(())
}

/// So many block devices are there, as storaged's own program and the kernel count them.
fn devices(guest: &mut Guest, count: usize) -> Result<()> {
    let listed = guest
        .run("chroot /node /usr/bin/storaged-attach --gateway unix:/run/storaged-pve/nbd.sock list --json")?;
    ensure!(
        listed.matches(r#""volume":"#).count() == count,
        "there are {count}: {listed}"
    );
    let sizes = guest.run("cat /sys/block/nbd*/size")?;
    let kernel = sizes.lines().filter(|size| !matches!(*size, "0" | "")).count();
    ensure!(kernel == count, "the kernel has {count}: {sizes}");
    Ok(())
}

/// As `swtpm` has its state: a few megabytes, written and read as a file.
fn tpm_state(guest: &mut Guest) -> Result<()> {
    let there = device(TPM);
    ensure!(call(guest, &format!("alloc {TPM} {TPM_KIB}"))? == TPM, "its name");
    call(guest, &format!("activate {TPM}"))?;
    guest.run(&format!("test ! -e {there}"))?;
    for _ in ["made", "found"] {
        let path = call(guest, &format!("map {TPM}"))?;
        ensure!(path == there, "map prints {path:?}");
        devices(guest, 1)?;
    }
    has_bytes(guest, &there, TPM_KIB * 1024)?;
    guest.run(&format!(
        "dd if=/dev/urandom of=/tmp/state bs=4k count={} 2>/dev/null && dd if=/tmp/state of={there} bs=64k conv=fsync 2>/dev/null",
        TPM_KIB / 4
    ))?;
    // As others have it, by the export and not by this kernel. A stream begins with the size.
    guest.run(&format!(
        "{CALL} export {TPM} > /tmp/stream && tail -c +9 /tmp/stream | cmp - /tmp/state"
    ))?;
    call(guest, &format!("unmap {TPM}"))?;
    guest.run(&format!("test ! -e {there}"))?;
    devices(guest, 0)?;
    call(guest, &format!("unmap {TPM}"))?;
    call(guest, &format!("map {TPM}"))?;
    guest.run(&format!("cmp {there} /tmp/state"))?;
    // What ends a guest ends its device.
    call(guest, &format!("deactivate {TPM}"))?;
    devices(guest, 0)
}

/// As a container has its root: a file system, mounted, from which backups are made, and which grows.
fn container(guest: &mut Guest) -> Result<()> {
    let there = device(CONTAINER);
    call(guest, &format!("alloc {CONTAINER} {}", CONTAINER_MIB * 1024))?;
    call(guest, &format!("activate {CONTAINER}"))?;
    ensure!(call(guest, &format!("map {CONTAINER}"))? == there, "its path");
    guest.run(&format!(
        "mkfs.ext4 -q {there} && mkdir -p /root /old && mount {there} /root && cp /bin/busybox /root/before && sync"
    ))?;
    let cause = refused(guest, &format!("unmap {CONTAINER}"))?;
    ensure!(cause.contains("in use"), "what is mounted stays: {cause}");
    let warning = call(guest, &format!("deactivate {CONTAINER}"))?;
    ensure!(
        warning.contains("in use"),
        "what is mounted stays, and that is told: {warning}"
    );
    of_an_instant(guest)?;
    gateway_ends(guest)?;
    guest.run("cmp /bin/busybox /root/before")?;
    call(guest, &format!("resize {CONTAINER} {}", GROWN_MIB << 20))?;
    // The plugin returns when the device shows it: that is what Proxmox VE then makes the file system as large as.
    has_bytes(guest, &there, GROWN_MIB << 20)?;
    guest.run(&format!(
        "resize2fs {there} 2>&1 && dd if=/dev/urandom of=/root/late bs=1M count={LATE_MIB} conv=fsync 2>/dev/null && \
         sha256sum /root/late > /tmp/sum && umount /root && e2fsck -fn {there}"
    ))?;
    call(guest, &format!("deactivate {CONTAINER}"))?;
    call(guest, &format!("map {CONTAINER}"))?;
    guest.run(&format!(
        "mount {there} /root && sha256sum -c /tmp/sum && umount /root"
    ))?;
    // To be rid of a volume is to be rid of its device.
    call(guest, &format!("free {CONTAINER}"))?;
    devices(guest, 0)?;
    let left = call(guest, "list")?;
    ensure!(left == format!("fast:{TPM}"), "what is left is {left:?}");
    Ok(())
}

/// A snapshot is a device of its own beside the volume's, and cannot be written.
fn of_an_instant(guest: &mut Guest) -> Result<()> {
    call(guest, &format!("snapshot {CONTAINER} vzdump"))?;
    guest.run("echo later > /root/before2 && sync")?;
    let there = device(CONTAINER) + "@vzdump";
    ensure!(
        call(guest, &format!("map {CONTAINER} vzdump"))? == there,
        "its path"
    );
    devices(guest, 2)?;
    guest.run(&format!(
        "test $(blockdev --getro {there}) = 1 && mount -o ro,noload {there} /old && cmp /bin/busybox /old/before && \
         test ! -e /old/before2 && umount /old"
    ))?;
    call(guest, &format!("unmap {CONTAINER} vzdump"))?;
    devices(guest, 1)
}

/// The gateway ends as by a crash while fio writes and verifies. The next one that needs it starts it, and I/O goes on.
fn gateway_ends(guest: &mut Guest) -> Result<()> {
    let pid = "/node/run/storaged-pve-nbd.service.pid";
    guest.start("fio", &fio_verify("/root/file", 16))?;
    wait_for("fio to write", PATIENCE, || {
        let writes = guest.try_run("test $(stat -c %b /root/file) -gt 1000")?;
        Ok((writes.status == 0).then_some(()))
    })?;
    let before = guest.run(&format!("cat {pid} && kill -9 $(cat {pid})"))?;
    ensure!(guest.ended("fio")?.is_none(), "fio still has something to do");
    call(guest, &format!("activate {CONTAINER}"))?;
    let after = guest.run(&format!("cat {pid}"))?;
    ensure!(before != after, "another gateway is there");
    guest.wait_for_end("fio", PATIENCE * 2)
}
