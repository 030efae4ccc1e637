//! What a guest sees of a volume of the cluster while the cluster's parts come and go.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use test_node::Node;

use super::Setting;
use super::device::fio_verify;
use crate::backend::Backend;
use crate::guest::{Disk, Guest};
use crate::patience::wait_for;

/// How often a process is restarted under the guest.
const RESTARTS: u32 = 3;
/// How long the guest may take to see what the host did.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long a `vhost-blk` may wait for the former one's lease to lapse, in seconds.
const WAIT: u64 = 60;

/// How many snapshots of two volumes are taken.
const ROUNDS: u32 = 5;

/// A node with three disks and a pool of three copies.
fn node() -> Result<Node> {
    let node = Node::start(3)?;
    node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
    Ok(node)
}

/// `storaged` is killed and started again while the guest writes and verifies.
pub(super) fn storaged_killed(setting: &Setting) -> Result<()> {
    let mut node = node()?;
    node.storagectl(&["volume", "create", "disk", "1G"])?;
    let backend = Backend::offer(&node, "disk", "disk", WAIT)?;
    let mut guest = setting.boot_with_fio(vec![Disk::at(backend.socket())])?;
    under_load(&mut guest, |guest| {
        for _ in 0..RESTARTS {
            progress(guest)?;
            node.kill()?;
            node.start_again()?;
        }
        progress(guest)
    })?;
    no_errors(&guest)?;
    guest.power_off()?;
    node.stop()
}

/// `vhost-blk` is ended and started again while the guest writes and verifies.
pub(super) fn backend_restarted(setting: &Setting) -> Result<()> {
    let node = node()?;
    node.storagectl(&["volume", "create", "disk", "1G"])?;
    let backend = Backend::offer(&node, "disk", "disk", WAIT)?;
    let mut guest = setting.boot_with_fio(vec![Disk::at(backend.socket())])?;
    let mut backend = Some(backend);
    under_load(&mut guest, |guest| {
        for _ in 0..RESTARTS {
            progress(guest)?;
            backend.take().context("a backend runs")?.stop()?;
            backend = Some(Backend::offer(&node, "disk", "disk", WAIT)?);
        }
        progress(guest)
    })?;
    no_errors(&guest)?;
    guest.power_off()
}

/// Runs fio in the guest's background while `meanwhile` does something to the host, then asks how it ended.
fn under_load(guest: &mut Guest, meanwhile: impl FnOnce(&mut Guest) -> Result<()>) -> Result<()> {
    // A process of its own does the fio; the console stays free. The counter shows that requests go on.
    let fio = fio_verify("/dev/vda", 64);
    guest.start("fio", &format!("for round in 1 2; do {fio} || exit; done"))?;
    meanwhile(guest)?;
    let ended = guest.ended("fio")?.is_some();
    ensure!(!ended, "the load ended before what was to happen under it");
    guest.wait_for_end("fio", PATIENCE * 3)
}

/// Waits until the guest has had another hundred requests answered, or fio has ended.
fn progress(guest: &mut Guest) -> Result<()> {
    let before = answered(guest)?;
    wait_for("requests of the guest to be answered", PATIENCE, || {
        let ended = guest.ended("fio")?.is_some();
        Ok((ended || answered(guest)? > before + 100).then_some(()))
    })
}

/// Reads and writes of the guest's disk that were answered.
fn answered(guest: &mut Guest) -> Result<u64> {
    let fields = guest.run("cat /sys/block/vda/stat")?;
    let numbers: Vec<u64> = fields
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    Ok(numbers.first().copied().unwrap_or(0) + numbers.get(4).copied().unwrap_or(0))
}

fn no_errors(guest: &Guest) -> Result<()> {
    let log = guest.kernel_log();
    ensure!(!log.contains("I/O error"), "the guest has seen errors: {log}");
    Ok(())
}

/// A volume grows while the guest has it mounted, and the file system grows with it.
pub(super) fn live_growth(setting: &Setting) -> Result<()> {
    let node = node()?;
    node.storagectl(&["volume", "create", "disk", "256M"])?;
    let backend = Backend::offer(&node, "disk", "disk", WAIT)?;
    let mut guest = setting.boot(vec![Disk::at(backend.socket())])?;
    guest.run("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && cp /bin/busybox /mnt/before")?;
    node.storagectl(&["volume", "grow", "disk", "512M"])?;
    wait_for("the guest to see the new size", PATIENCE, || {
        Ok((guest.run("cat /sys/block/vda/size")?.trim() == "1048576").then_some(()))
    })?;
    guest.run("resize2fs /dev/vda 2>&1")?;
    // More than fitted before.
    guest.run("dd if=/dev/zero of=/mnt/large bs=1M count=320 conv=fsync 2>/dev/null && cmp /bin/busybox /mnt/before")?;
    guest.run("umount /mnt && e2fsck -fn /dev/vda")?;
    guest.power_off()
}

/// A snapshot is taken while the guest writes; its clone, in another guest, holds the data of one instant
/// between the call and its answer, in a file system that needs no repair.
pub(super) fn snapshot_while_writing(setting: &Setting) -> Result<()> {
    let node = node()?;
    node.storagectl(&["volume", "create", "disk", "1G"])?;
    let backend = Backend::offer(&node, "disk", "disk", WAIT)?;
    let mut guest = setting.boot(vec![Disk::at(backend.socket())])?;
    guest.run("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && mkdir /mnt/d")?;
    // Each number is durable before it is said to be.
    guest.run(
        "(n=0; while test ! -f /tmp/stop; do n=$((n + 1)); echo $n | dd of=/mnt/d/$n conv=fsync && \
         echo $n > /tmp/n.new && mv /tmp/n.new /tmp/n; done) > /dev/null 2>&1 &",
    )?;
    let count = |guest: &mut Guest| number(guest, "cat /tmp/n");
    wait_for("the guest to write", PATIENCE, || {
        Ok((count(&mut guest)? > 20).then_some(()))
    })?;
    let before = count(&mut guest)?;
    node.storagectl(&["volume", "snapshot", "disk", "instant"])?;
    let after = count(&mut guest)? + 1;
    wait_for("the guest to go on", PATIENCE, || {
        Ok((count(&mut guest)? > after + 20).then_some(()))
    })?;
    node.storagectl(&["volume", "clone", "disk@instant", "copy"])?;
    let second = Backend::offer(&node, "copy", "copy", WAIT)?;
    let mut reader = setting.boot(vec![Disk::at(second.socket())])?;
    reader.run("mount /dev/vda /mnt")?;
    let found: u64 = reader.run("ls /mnt/d | sort -n | tail -n 1")?.trim().parse()?;
    // A file whose directory entry came with the journal may be one that was not yet said to be durable.
    ensure!(
        (before..=after + 1).contains(&found),
        "the snapshot holds number {found}; {before} were durable before it and {after} after it"
    );
    reader.run(&format!(
        "cd /mnt/d && for n in $(seq 1 {before}); do test \"$(cat $n)\" = $n || exit 1; done"
    ))?;
    reader.run("umount /mnt && e2fsck -fn /dev/vda")?;
    reader.power_off()?;
    guest.run("touch /tmp/stop")?;
    no_errors(&guest)
}

/// A second process is refused while the first has the volume. When the first is stopped for longer than
/// its lease, the second gets the volume, and the first can do no more harm.
pub(super) fn zombie_is_fenced(setting: &Setting) -> Result<()> {
    let node = node()?;
    node.storagectl(&["volume", "create", "disk", "1G"])?;
    let first = Backend::offer(&node, "disk", "first", WAIT)?;
    let mut old = setting.boot(vec![Disk::at(first.socket())])?;
    old.run("echo old > /tmp/old && dd if=/tmp/old of=/dev/vda bs=4k conv=sync oflag=direct 2>/dev/null")?;

    ensure!(
        Backend::offer(&node, "disk", "second", 0).is_err(),
        "two processes have one volume"
    );

    first.pause()?;
    // The zombie's guest does not know that anything has happened.
    old.begin("echo zombie > /tmp/z && dd if=/tmp/z of=/dev/vda bs=4k conv=sync oflag=direct 2>/dev/null")?;
    let second = Backend::offer(&node, "disk", "second", WAIT)?;
    let mut new = setting.boot(vec![Disk::at(second.socket())])?;
    new.run("test \"$(head -c 3 /dev/vda)\" = old")?;
    new.run("echo new > /tmp/new && dd if=/tmp/new of=/dev/vda bs=4k conv=sync oflag=direct 2>/dev/null")?;
    first.resume()?;
    let zombie = old.finish()?;
    ensure!(zombie.status != 0, "the zombie's write was acknowledged");
    new.run("echo 3 > /proc/sys/vm/drop_caches && test \"$(head -c 3 /dev/vda)\" = new")?;
    new.power_off()
}

/// What was synced before a power cut is there after it, in a file system that needs no repair.
pub(super) fn power_cut(setting: &Setting) -> Result<()> {
    let node = node()?;
    node.storagectl(&["volume", "create", "ext4", "1G"])?;
    node.storagectl(&["volume", "create", "xfs", "1G"])?;
    let backends = [
        Backend::offer(&node, "ext4", "ext4", WAIT)?,
        Backend::offer(&node, "xfs", "xfs", WAIT)?,
    ];
    let disks = || {
        backends
            .iter()
            .map(|backend| Disk::at(backend.socket()))
            .collect::<Vec<_>>()
    };
    let mut guest = setting.boot(disks())?;
    guest.run("mkfs.ext4 -q /dev/vda && mkdir /mnt/a && mount /dev/vda /mnt/a")?;
    guest.run("mkfs.xfs -q /dev/vdb && mkdir /mnt/b && mount /dev/vdb /mnt/b")?;
    // Each file is synced before its name is said.
    guest.begin(
        "n=0; while true; do n=$((n + 1)); for d in /mnt/a /mnt/b; do \
         dd if=/dev/urandom of=$d/f$n bs=4k count=$((n % 40 + 1)) conv=fsync 2>/dev/null; \
         (cd $d && sha256sum f$n >> sums && sync sums); done; echo synced $n; done",
    )?;
    guest.wait_for_line("synced 40")?;
    guest.kill()?;

    let mut guest = setting.boot(disks())?;
    // Mounting replays the journals; after that nothing may be left to repair.
    guest.run("mkdir /mnt/a /mnt/b && mount /dev/vda /mnt/a && mount /dev/vdb /mnt/b")?;
    for place in ["/mnt/a", "/mnt/b"] {
        // The last line may be cut off, as its sync may not have been answered.
        guest.run(&format!(
            "cd {place} && head -n 40 sums | sha256sum -c && test $(head -n 40 sums | wc -l) = 40"
        ))?;
    }
    guest.run("umount /mnt/a && umount /mnt/b && e2fsck -fn /dev/vda && xfs_repair -n /dev/vdb")?;
    guest.power_off()
}

/// A snapshot of two volumes at once holds the data of one instant: the guest writes each number to the first
/// volume and then to the second, so the second is never ahead, and at most one number behind.
pub(super) fn group_snapshot(setting: &Setting) -> Result<()> {
    let node = node()?;
    node.storagectl(&["volume", "create", "first", "64M"])?;
    node.storagectl(&["volume", "create", "second", "64M"])?;
    let first = Backend::offer(&node, "first", "first", WAIT)?;
    let second = Backend::offer(&node, "second", "second", WAIT)?;
    let mut guest = setting.boot(vec![Disk::at(first.socket()), Disk::at(second.socket())])?;
    guest.run(
        "(n=0; while test ! -f /tmp/stop; do n=$((n + 1)); for d in vda vdb; do \
         echo $n | dd of=/dev/$d bs=4k conv=sync oflag=direct || exit; done; \
         echo $n > /tmp/n.new && mv /tmp/n.new /tmp/n; done) > /dev/null 2>&1 &",
    )?;
    for round in 1..=ROUNDS {
        let before = number(&mut guest, "cat /tmp/n")?;
        wait_for("the guest to write", PATIENCE, || {
            Ok((number(&mut guest, "cat /tmp/n")? > before + 5).then_some(()))
        })?;
        node.storagectl(&["snapshot", "create", &format!("at{round}"), "first", "second"])?;
    }
    guest.run("touch /tmp/stop")?;
    no_errors(&guest)?;
    guest.power_off()?;
    // The snapshots themselves are offered, for reading, all to one guest: vda and vdb are the first pair.
    let mut backends = Vec::new();
    for round in 1..=ROUNDS {
        for volume in ["first", "second"] {
            backends.push(Backend::offer(
                &node,
                &format!("{volume}@at{round}"),
                &format!("{volume}{round}"),
                WAIT,
            )?);
        }
    }
    let mut reader = setting.boot(
        backends
            .iter()
            .map(|backend| Disk::at(backend.socket()))
            .collect(),
    )?;
    let disks: Vec<char> = ('a'..).take(backends.len()).collect();
    for pair in disks.chunks_exact(2) {
        let ahead = number(&mut reader, &format!("head -n 1 /dev/vd{}", pair[0]))?;
        let behind = number(&mut reader, &format!("head -n 1 /dev/vd{}", pair[1]))?;
        let one_instant = behind > 0 && (behind == ahead || behind + 1 == ahead);
        ensure!(
            one_instant,
            "number {ahead} is in the first volume and {behind} in the second"
        );
    }
    let write = reader.try_run("dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct")?;
    ensure!(write.status != 0, "a snapshot was written to");
    reader.power_off()
}

/// The number that a command prints, or 0.
fn number(guest: &mut Guest, command: &str) -> Result<u64> {
    Ok(guest.try_run(command)?.text.trim().parse().unwrap_or(0))
}
