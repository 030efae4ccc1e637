//! What only a cluster behind the gateway can do: snapshots, growth, owners, and daemons that die.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::image;
use crate::nbd::MIB;
use crate::nbd::copies::{same, source};
use crate::nbd::interruption::Session;
use crate::nbd::patterns::io;
use crate::stage::{Server, Stage, before};
use crate::suite::{Check, Finding};
use crate::tool::{bounded, fail, succeed};

pub(super) const CHECKS: &[Check<Stage>] = &[
    Check {
        name: "a snapshot is served read only beside its volume, and does not change",
        tools: &["qemu-io", "nbdinfo"],
        run: snapshot,
    },
    Check {
        name: "a clone is served and changes apart from its origin",
        tools: &["qemu-io"],
        run: clone,
    },
    Check {
        name: "a volume that grew shows its size to the next client",
        tools: &["qemu-io", "qemu-img"],
        run: growth,
    },
    Check {
        name: "a volume that another gateway serves is described but not opened",
        tools: &["qemu-io", "nbdinfo"],
        run: in_use,
    },
    Check {
        name: "a gateway that stood still and was overtaken is fenced off",
        tools: &["qemu-io"],
        run: overtaken,
    },
    Check {
        name: "a gateway that crashed is followed by the next at once",
        tools: &["qemu-io"],
        run: crashed_gateway,
    },
    Check {
        name: "fio does not notice that storaged was killed and came back",
        tools: &["fio", "nbdinfo", "qemu-io"],
        run: killed_storaged,
    },
    Check {
        name: "storagectl brings images in and out",
        tools: &["qemu-img"],
        run: storagectl_images,
    },
];

fn snapshot(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let mut writer = Session::open(&uri)?;
    writer.command("write -P 1 0 4M")?;
    stage.storagectl(&["volume", "snapshot", "disk", "before"])?;
    writer.command("write -P 2 1M 1M")?;
    let frozen = stage.uri("disk@before");
    let said: Value = serde_json::from_str(&succeed("nbdinfo", ["--json", &frozen])?)?;
    ensure!(said["exports"][0]["is_read_only"] == true, "{said:#}");
    succeed(
        "qemu-io",
        [
            "-r",
            "-f",
            "raw",
            "-c",
            "read -P 1 0 4M",
            "-c",
            "read -P 0 4M 60M",
            &frozen,
        ],
    )?;
    let said = succeed("qemu-io", ["-r", "-f", "raw", "-c", "read -P 1 0 4M", &frozen])?;
    ensure!(!said.contains("verification failed"), "{said}");
    fail("qemu-io", ["-f", "raw", "-c", "write -P 3 0 4k", &frozen])?;
    let said = writer.command("read -P 2 1M 1M")?;
    ensure!(!said.contains("verification failed"), "{said}");
    let list = succeed("nbdinfo", ["--list", "--json", &stage.uri("")])?;
    ensure!(list.contains("\"disk@before\""), "the snapshot is listed: {list}");
    Ok(())
}

fn clone(stage: &mut Stage) -> Finding {
    io(&stage.uri("disk"), &["write -P 1 0 8M"])?;
    stage.storagectl(&["volume", "snapshot", "disk", "origin"])?;
    stage.storagectl(&["volume", "clone", "disk@origin", "twin"])?;
    io(
        &stage.uri("twin"),
        &["read -P 1 0 8M", "write -P 2 4M 1M", "discard 6M 1M"],
    )?;
    io(&stage.uri("disk"), &["read -P 1 0 8M", "write -P 3 0 1M"])?;
    io(
        &stage.uri("twin"),
        &[
            "read -P 1 0 4M",
            "read -P 2 4M 1M",
            "read -P 0 6M 1M",
            "read -P 1 7M 1M",
        ],
    )?;
    Ok(())
}

fn growth(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let mut early = Session::open(&uri)?;
    early.command("write -P 1 0 1M")?;
    stage.storagectl(&["volume", "grow", "disk", "96M"])?;
    let said: Value = serde_json::from_str(&succeed("qemu-img", ["info", "--output=json", &uri])?)?;
    ensure!(said["virtual-size"] == 96 * MIB, "{said:#}");
    io(
        &uri,
        &["write -P 2 90M 6M", "read -P 1 0 1M", "read -P 0 64M 26M"],
    )?;
    let said = early.command("read -P 1 0 1M")?;
    ensure!(!said.contains("failed"), "the early client reads on: {said}");
    Ok(())
}

fn in_use(stage: &mut Stage) -> Finding {
    let folder = stage.folder.path().join("second");
    std::fs::create_dir(&folder)?;
    let mut command = before(&*stage.node()?, &folder)?;
    let second = Server::start(command.args(["--wait", "0"]), 1)?;
    let uri = format!("nbd+unix:///disk?socket={}", folder.join("nbd.sock").display());
    let mut owner = Session::open(&stage.uri("disk"))?;
    owner.command("write -P 1 0 1M")?;
    let said = fail("qemu-img", ["info", &uri])?;
    ensure!(said.contains("export \"disk\" cannot be opened"), "{said}");
    let list = succeed("nbdinfo", ["--list", "--no-content", &uri])?;
    ensure!(
        list.contains("export=\"disk\""),
        "it is described all the same: {list}"
    );
    let said = owner.command("read -P 1 0 1M")?;
    ensure!(!said.contains("failed"), "the owner goes on: {said}");
    drop(owner);
    // The first gateway gives the volume back when its last client has left.
    let taken = (0..LOOKS_MAX).any(|_| succeed("qemu-img", ["info", &uri]).is_ok());
    ensure!(taken, "the second gateway never got the volume");
    io(&uri, &["read -P 1 0 1M"])?;
    second.stop()
}

fn overtaken(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let mut slow = Session::open(&uri)?;
    slow.command("write -P 1 0 4M")?;
    stage.gateway().freeze()?;
    let folder = stage.folder.path().join("second");
    std::fs::create_dir(&folder)?;
    // Longer than a lease, whatever the cluster's is.
    let mut command = before(&*stage.node()?, &folder)?;
    let second = Server::start(command.args(["--wait", "60"]), 1)?;
    let successor = format!("nbd+unix:///disk?socket={}", folder.join("nbd.sock").display());
    io(&successor, &["read -P 1 0 4M", "write -P 2 0 1M"])?;
    stage.gateway().thaw()?;
    let said = slow.command("write -P 3 0 1M")?;
    ensure!(said.contains("failed"), "the former owner still writes: {said}");
    io(
        &successor,
        &["read -P 2 0 1M", "read -P 1 1M 3M", "write -P 4 2M 4k"],
    )?;
    second.stop()
}

/// How often to look whether something has happened; each look starts a process.
const LOOKS_MAX: u32 = 500;

fn crashed_gateway(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    for round in 1..=3 {
        io(&uri, &[&format!("write -P {round} 0 8M")])?;
        let mut busy = Session::open(&uri)?;
        busy.command("write -P 99 32M 1M")?;
        stage.crash_gateway()?;
        io(&uri, &[&format!("read -P {round} 0 8M"), "read -P 99 32M 1M"])?;
    }
    Ok(())
}

fn killed_storaged(stage: &mut Stage) -> Finding {
    let mut fio = bounded("fio");
    fio.args([
        "--name=check",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=16",
        "--size=48M",
    ]);
    fio.args([
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--loops=2",
        "--minimal",
        &format!("--uri={}", stage.uri("disk")),
    ]);
    fio.stdout(std::process::Stdio::piped());
    let mut fio = fio.spawn()?;
    let uri = stage.uri("disk");
    let writes = (0..LOOKS_MAX)
        .any(|_| succeed("nbdinfo", ["--map", "--totals", &uri]).is_ok_and(|said| said.contains("data")));
    ensure!(writes, "fio wrote nothing");
    let mut kills = 0;
    while kills < 3 && fio.try_wait()?.is_none() {
        stage.node()?.kill()?;
        stage.node()?.start_again()?;
        kills += 1;
        // Through the same owner as fio's requests: so the volume works again before the next kill.
        succeed("qemu-io", ["-f", "raw", "-c", "write -P 1 60M 4k", &uri])?;
    }
    let output = fio.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !said.contains("verify:"),
        "fio: {}\n{said}",
        output.status
    );
    ensure!(kills > 0, "fio ended before storaged was killed once");
    Ok(())
}

fn storagectl_images(stage: &mut Stage) -> Finding {
    let (source, packed) = (source(stage)?, stage.path("source.qcow2"));
    let (raw, back) = (stage.path("back.raw"), stage.path("back.qcow2"));
    succeed(
        "qemu-img",
        ["convert", "-f", "raw", "-O", "qcow2", &source, &packed],
    )?;
    stage.storagectl(&["import", &packed, "imported"])?;
    stage.storagectl(&["export", "imported", &raw, "--format", "raw"])?;
    same(&source, &raw)?;
    let allocated = image::allocated(raw.as_ref())?;
    ensure!(allocated < 8 * MIB, "the export takes {allocated} bytes");
    stage.storagectl(&["export", "imported", &back, "--format", "qcow2"])?;
    succeed(
        "qemu-img",
        ["compare", "-f", "qcow2", "-F", "qcow2", &packed, &back],
    )
    .map(drop)
    .context("compare an import with its export")
}
