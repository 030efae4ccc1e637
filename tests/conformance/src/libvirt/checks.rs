//! What a domain's user relies on.

use std::time::Duration;

use anyhow::{Result, ensure};
use vm_tests::patience::wait_for;

use super::domain::Stage;
use super::{migration, nova};
use crate::suite::Check;

const TOOLS: &[&str] = &["libvirtd", "virsh", "qemu-system-x86_64", "unshare"];
/// How long the guest may take to see what the host did.
const PATIENCE: Duration = Duration::from_mins(2);

/// All checks.
pub(super) const ALL: &[Check<Stage>] = &[
    Check {
        name: "a guest makes a file system on the disk and finds its file again after a remount",
        tools: TOOLS,
        run: file_system,
    },
    Check {
        name: "libvirt tells of the disk as it was described",
        tools: TOOLS,
        run: description,
    },
    Check {
        name: "the guest sees the volume grow",
        tools: TOOLS,
        run: growth,
    },
    Check {
        name: "vhost-blk is restarted and the guest goes on",
        tools: TOOLS,
        run: restart,
    },
    Check {
        name: "a suspended domain is resumed with its disk",
        tools: TOOLS,
        run: suspension,
    },
    Check {
        name: "what our driver for Nova writes is attached to a guest that runs, grows, and is taken away",
        tools: TOOLS,
        run: nova::attach_and_detach,
    },
    Check {
        name: "a guest's disk leaves a file for a volume while the guest runs",
        tools: TOOLS,
        run: migration::block_copy,
    },
];

fn file_system(stage: &mut Stage) -> Result<()> {
    let mut domain = stage.domain();
    domain
        .console
        .run("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && cp /bin/busybox /mnt/file")?;
    domain
        .console
        .run("umount /mnt && echo 3 > /proc/sys/vm/drop_caches && mount /dev/vda /mnt")?;
    domain
        .console
        .run("cmp /bin/busybox /mnt/file && umount /mnt && e2fsck -fn /dev/vda")?;
    Ok(())
}

fn description(stage: &mut Stage) -> Result<()> {
    let domain = stage.domain();
    let description = domain.virsh("dumpxml")?;
    for words in [
        "<disk type='vhostuser' device='disk'",
        "<reconnect enabled='yes' timeout='1'/>",
    ] {
        ensure!(description.contains(words), "{words:?} is not in {description}");
    }
    let disks = domain.virsh("domblklist")?;
    ensure!(disks.contains("vda") && disks.contains("disk.vhost"), "{disks}");
    Ok(())
}

fn growth(stage: &mut Stage) -> Result<()> {
    let mut domain = stage.domain();
    domain.storagectl(&["volume", "grow", "disk", "512M"])?;
    wait_for("the guest to see the new size", PATIENCE, || {
        Ok((domain.console.run("cat /sys/block/vda/size")?.trim() == "1048576").then_some(()))
    })
}

fn restart(stage: &mut Stage) -> Result<()> {
    let mut domain = stage.domain();
    domain
        .console
        .run("dd if=/bin/busybox of=/dev/vda bs=64k conv=fsync 2>/dev/null")?;
    domain.restart_backend()?;
    domain.console.run(
        "echo 3 > /proc/sys/vm/drop_caches && cmp -n $(stat -c %s /bin/busybox) /bin/busybox /dev/vda",
    )?;
    domain
        .console
        .run("dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null")?;
    Ok(())
}

fn suspension(stage: &mut Stage) -> Result<()> {
    let mut domain = stage.domain();
    domain
        .console
        .run("echo before > /tmp/b && dd if=/tmp/b of=/dev/vda bs=4k conv=sync,fsync 2>/dev/null")?;
    domain.virsh("suspend")?;
    domain.wait_for_state("paused")?;
    domain.virsh("resume")?;
    domain.wait_for_state("running")?;
    let read = "echo 3 > /proc/sys/vm/drop_caches && test \"$(head -c 6 /dev/vda)\" = before";
    domain.console.run(read).map(drop)
}
