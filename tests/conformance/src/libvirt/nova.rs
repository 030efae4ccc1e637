//! The disk as our driver for Nova describes it, attached to a guest that runs and taken away again. Nova itself is its
//! libvirt driver's classes here, and not its services.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use test_openstack::Environment;
use vm_tests::patience::wait_for;

use super::domain::Stage;

/// Asks the driver for a disk.
const PROGRAM: &str = include_str!("nova.py");
/// Where the driver is.
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../cinder-api/nova");
/// The volume that is attached.
const VOLUME: &str = "second";
/// How long the guest may take to see a disk come or go.
const PATIENCE: Duration = Duration::from_mins(2);

/// See the module.
pub(super) fn attach_and_detach(stage: &mut Stage) -> Result<()> {
    let mut domain = stage.domain();
    domain.storagectl(&["volume", "create", VOLUME, "64M"])?;
    let backend = domain.offer(VOLUME)?;
    let description = |seen: Option<&str>| {
        let socket = backend.socket().display().to_string();
        let mut arguments = vec!["-W", "ignore", "-c", PROGRAM, DRIVER, &socket];
        arguments.extend(seen);
        Environment::of("nova")?.run("python", arguments, Path::new("/"))
    };
    let file = domain.folder().join("second.xml");

    fs::write(&file, description(None)?)?;
    domain.virsh_with("attach-device", &file)?;
    wait_for("the guest to see the disk", PATIENCE, || {
        Ok(domain.console.run("test -b /dev/vdb").ok())
    })?;
    domain.console.run(
        "cat /bin/busybox > /dev/vdb && sync && echo 3 > /proc/sys/vm/drop_caches && \
         cmp -n $(stat -c %s /bin/busybox) /bin/busybox /dev/vdb",
    )?;

    domain.storagectl(&["volume", "grow", VOLUME, "128M"])?;
    wait_for("the guest to see the new size", PATIENCE, || {
        Ok((domain.console.run("cat /sys/block/vdb/size")?.trim() == "262144").then_some(()))
    })?;

    let seen = domain.virsh("dumpxml")?;
    fs::write(&file, description(Some(&seen))?)?;
    domain.virsh_with("detach-device", &file)?;
    wait_for("the guest to lose the disk", PATIENCE, || {
        Ok(domain.console.run("test ! -e /dev/vdb").ok())
    })?;
    wait_for("libvirt to forget the disk", PATIENCE, || {
        Ok((!domain.virsh("domblklist")?.contains("vdb")).then_some(()))
    })?;
    backend.stop().context("vhost-blk is not needed any more")?;
    let seen = domain.virsh("dumpxml")?;
    ensure!(!seen.contains("second.vhost"), "{seen}");
    Ok(())
}
