//! The guests' side: a file system, files with checksums, a writer that goes on during the snapshot.

use anyhow::{Context, Result, ensure};
use vm_tests::guest::{Disk, Guest};
use vm_tests::scenarios::Setting;

use crate::journal::Journal;
use crate::stage::{CLONE, Stage, VOLUME};

/// Records that the guest writes and syncs, one by one, while it is snapshotted and storaged crashes.
const RECORDS: u32 = 600;
/// After so many of them comes the snapshot.
const BEFORE_SNAPSHOT: u32 = 150;
/// After so many storaged is killed.
const BEFORE_CRASH: u32 = 300;

/// What the first guest knows.
pub(crate) struct Seen {
    guest: Guest,
    /// Records that were on stable storage when the snapshot was asked for.
    before: u32,
}

/// Boots a guest on the volume, writes, snapshots it meanwhile, kills `storaged` meanwhile.
pub(crate) fn write_and_snapshot(
    setting: &Setting,
    stage: &mut Stage,
    journal: &mut Journal,
) -> Result<Seen> {
    let mut guest = journal.step("boot a guest on the volume", || boot(setting, stage, VOLUME))?;
    journal.step("make a file system, write files, check them", || {
        guest.run("mkfs.ext4 -q /dev/vda && mkdir -p /mnt/a && mount /dev/vda /mnt/a && mkdir /mnt/a/records")?;
        guest.run("cd /mnt/a && for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=f$n bs=1M count=4 2>/dev/null; done")?;
        guest.run("cd /mnt/a && sha256sum f* > sums && sync && echo 3 > /proc/sys/vm/drop_caches && sha256sum -c sums")?;
        Ok(((), format!("8 files of 4 MiB; the disks hold {}", stage.used()?)))
    })?;
    guest.begin(&format!(
        "cd /mnt/a/records; for n in $(seq {RECORDS}); do echo $n | dd of=$n conv=fsync 2>/dev/null || break; echo wrote $n; done"
    ))?;
    guest.wait_for_line(&format!("wrote {BEFORE_SNAPSHOT}"))?;
    journal.step("snapshot the volume while the guest writes", || {
        Ok(((), stage.snapshot()?))
    })?;
    guest.wait_for_line(&format!("wrote {BEFORE_CRASH}"))?;
    journal.step("kill -9 storaged while the guest writes, start it again", || {
        stage.crash()?;
        let output = guest.finish()?;
        let last = format!("wrote {RECORDS}");
        ensure!(
            output.status == 0 && output.text.contains(&last),
            "the guest's writer failed: {}",
            output.text
        );
        ensure!(
            !guest.kernel_log().contains("I/O error"),
            "the guest saw errors: {}",
            guest.kernel_log()
        );
        Ok((
            (),
            "the guest waited, saw no error, and wrote all its records".into(),
        ))
    })?;
    Ok(Seen {
        guest,
        before: BEFORE_SNAPSHOT,
    })
}

/// Boots a second guest on a clone of the snapshot, and compares.
pub(crate) fn boot_the_clone(
    setting: &Setting,
    stage: &mut Stage,
    journal: &mut Journal,
    mut seen: Seen,
) -> Result<()> {
    journal.step("clone the snapshot", || Ok(((), stage.make_clone()?)))?;
    let mut second = journal.step("boot a guest on the clone", || boot(setting, stage, CLONE))?;
    journal.step("compare the clone with the volume", || {
        second.run("mkdir -p /mnt/a && mount /dev/vda /mnt/a && cd /mnt/a && sha256sum -c sums")?;
        let in_clone = count(&mut second)?;
        let in_volume = count(&mut seen.guest)?;
        ensure!(in_volume == RECORDS, "the volume has {in_volume} records of {RECORDS}");
        ensure!(
            (seen.before..BEFORE_CRASH).contains(&in_clone),
            "the clone has {in_clone} records; {} were synced before the snapshot, {BEFORE_CRASH} after it",
            seen.before
        );
        second.run("cd /mnt/a && dd if=/dev/urandom of=f1 bs=1M count=4 2>/dev/null && sync")?;
        seen.guest.run("cd /mnt/a && echo 3 > /proc/sys/vm/drop_caches && sha256sum -c sums")?;
        Ok(((), format!("{in_clone} records in the clone, {in_volume} in the volume; writes to one leave the other alone")))
    })?;
    print!("\n{}", stage.tree()?);
    journal.step("switch the guests off", || {
        second.power_off()?;
        seen.guest.power_off()?;
        Ok(((), "file systems are unmounted".into()))
    })
}

fn boot(setting: &Setting, stage: &mut Stage, volume: &str) -> Result<(Guest, String)> {
    let socket = stage.attach(volume)?;
    let mut guest = setting.boot(vec![Disk::at(socket)])?;
    let size = guest.run("cat /sys/block/vda/size")?;
    let sectors: u64 = size.trim().parse().context("read the size of the guest's disk")?;
    Ok((guest, format!("it sees /dev/vda with {} GiB", sectors >> 21)))
}

/// Records that a guest has: they are numbered from 1 without a gap, and each holds its number.
fn count(guest: &mut Guest) -> Result<u32> {
    let command = "cd /mnt/a/records && n=0; while [ \"$(cat $((n + 1)) 2>/dev/null)\" = $((n + 1)) ]; do n=$((n + 1)); done; echo $n";
    guest
        .run(command)?
        .trim()
        .parse()
        .context("read the guest's count of records")
}
