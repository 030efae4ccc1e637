//! What a guest sees of the device itself. The volumes are in memory: the cluster plays no part.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Setting;
use crate::backend::Backend;
use crate::guest::{Disk, Guest};

const SIZE: &str = "536870912";
/// How long what runs beside may take to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// How many commands are sent while processes that earlier ones left behind end.
const COMMANDS: u32 = 200;

/// The guest's shell gets each command as it was sent, though processes end all the time: a first one that read commands
/// itself lost the beginning of one when a process ended that it had inherited.
pub(super) fn whole_commands(setting: &Setting) -> Result<()> {
    let mut guest = setting.boot(Vec::new())?;
    // Each sleep loses its parent at once, and becomes the first process's.
    guest.start("orphans", "while test ! -f /tmp/stop; do (sleep 0.02 &); done")?;
    for number in 0..COMMANDS {
        let word = format!("{number:0>200}");
        let said = guest.run(&format!("echo {word}"))?;
        ensure!(said.trim() == word, "the guest said {said:?}");
    }
    guest.run("touch /tmp/stop")?;
    guest.wait_for_end("orphans", PATIENCE)?;
    guest.power_off()
}

/// Ext4 on 512-byte sectors and xfs on 4 KiB sectors, through mkfs, files, checksums and fsck.
pub(super) fn file_systems(setting: &Setting) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let small = folder.path().join("small.sock");
    let large = folder.path().join("large.sock");
    let _small = Backend::start(
        &small,
        &["--memory", SIZE, "--block-size", "512", "--queues", "2"],
    )?;
    let _large = Backend::start(
        &large,
        &["--memory", SIZE, "--block-size", "4096", "--queues", "2"],
    )?;
    let mut guest = setting.boot(vec![Disk::at(&small), Disk::at(&large)])?;
    facts(&mut guest)?;
    guest.run("mkfs.ext4 -q /dev/vda && mkdir /mnt/a && mount /dev/vda /mnt/a")?;
    guest.run("mkfs.xfs -q /dev/vdb && mkdir /mnt/b && mount /dev/vdb /mnt/b")?;
    for place in ["/mnt/a", "/mnt/b"] {
        guest.run(&format!(
            "cd {place} && for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=f$n bs=64k count=$((n * 8)) 2>/dev/null; done \
             && sha256sum f* > sums && rm f3 && sed -i /f3/d sums && fstrim {place}"
        ))?;
    }
    guest.run("umount /mnt/a && umount /mnt/b && e2fsck -fn /dev/vda && xfs_repair -n /dev/vdb")?;
    guest.run("mount /dev/vda /mnt/a && mount /dev/vdb /mnt/b")?;
    guest.run("cd /mnt/a && sha256sum -c sums && cd /mnt/b && sha256sum -c sums")?;
    ensure!(
        !guest.kernel_log().contains("I/O error"),
        "the guest has seen errors: {}",
        guest.kernel_log()
    );
    guest.power_off()
}

/// What the kernel has read from the configuration space.
fn facts(guest: &mut Guest) -> Result<()> {
    let read = |guest: &mut Guest, disk: &str, name: &str| -> Result<String> {
        Ok(guest
            .run(&format!("cat /sys/block/{disk}/{name}"))?
            .trim()
            .to_owned())
    };
    for (disk, logical) in [("vda", "512"), ("vdb", "4096")] {
        for (name, expected) in [
            ("queue/logical_block_size", logical),
            ("queue/physical_block_size", "4096"),
            ("queue/discard_max_bytes", "1073741824"),
            ("queue/write_zeroes_max_bytes", "1073741824"),
            ("queue/write_cache", "write through"),
            ("size", "1048576"),
            ("serial", "memory"),
        ] {
            let found = read(guest, disk, name)?;
            ensure!(
                found == expected,
                "{disk}: {name} is {found:?} and not {expected:?}"
            );
        }
        let queues = read(guest, disk, "mq/1/cpu_list")?;
        ensure!(!queues.is_empty(), "{disk} has one queue only");
    }
    Ok(())
}

/// fio writes and verifies on all queues at once, with several block sizes and trims.
pub(super) fn verified_writes(setting: &Setting) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("disk.sock");
    let _backend = Backend::start(&socket, &["--memory", SIZE, "--queues", "2"])?;
    let mut guest = setting.boot_with_fio(vec![Disk::at(&socket)])?;
    guest.run(&fio_verify("/dev/vda", 48))?;
    guest.power_off()
}

/// A command for the guest: two fio jobs that write `megabytes` each at random, in blocks of 512 bytes to
/// 256 KiB, several under way, trim some, and read all of it back.
pub fn fio_verify(device: &str, megabytes: u32) -> String {
    format!(
        "fio --name=v --filename={device} --numjobs=2 --size={megabytes}m --offset_increment={megabytes}m --rw=randwrite \
         --bsrange=512-256k --bs_unaligned=0 --ba=512 --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c \
         --verify_fatal=1 --do_verify=1 --verify_backlog=256 --group_reporting"
    )
}
