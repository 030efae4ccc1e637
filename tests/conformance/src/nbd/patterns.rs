//! Reads, writes, zeros and trims of all shapes, verified.

use anyhow::ensure;
use serde_json::Value;

use crate::nbd::MIB;
use crate::stage::Stage;
use crate::suite::{Check, Finding};
use crate::tool::{fail, succeed};

pub(super) const CHECKS: &[Check<Stage>] = &[
    Check {
        name: "qemu-io reads what it wrote",
        tools: &["qemu-io"],
        run: read_back,
    },
    Check {
        name: "qemu-io writes at any byte",
        tools: &["qemu-io"],
        run: any_byte,
    },
    Check {
        name: "zeros and trims read as zeros",
        tools: &["qemu-io"],
        run: zeros,
    },
    Check {
        name: "trims and zeros give space back, zeros without holes keep it",
        tools: &["qemu-io", "nbdinfo"],
        run: allocation,
    },
    Check {
        name: "requests past the end fail and change nothing",
        tools: &["qemu-io"],
        run: past_the_end,
    },
    Check {
        name: "fio verifies random writes at depth 64",
        tools: &["fio"],
        run: fio_verify,
    },
    Check {
        name: "fio verifies with four connections at once",
        tools: &["fio"],
        run: fio_connections,
    },
    Check {
        name: "fio trims among writes",
        tools: &["fio"],
        run: fio_trim,
    },
    Check {
        name: "qemu-img bench reads and writes at depth 64",
        tools: &["qemu-img"],
        run: bench,
    },
    Check {
        name: "two clients of one export see each other's writes",
        tools: &["qemu-io"],
        run: two_clients,
    },
];

/// Runs commands of qemu-io; every pattern that it reads must match.
pub(super) fn io(uri: &str, commands: &[&str]) -> anyhow::Result<String> {
    let mut arguments = vec!["-f", "raw", "-d", "unmap"];
    for command in commands {
        arguments.extend(["-c", *command]);
    }
    arguments.push(uri);
    // It says so only, and ends well, when a pattern does not match.
    let said = succeed("qemu-io", arguments)?;
    ensure!(!said.contains("verification failed"), "{commands:?}: {said}");
    Ok(said)
}

fn read_back(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    io(
        &uri,
        &[
            "write -P 1 0 64k",
            "write -f -P 2 64k 4k",
            "write -P 3 1M 32M",
            "flush",
        ],
    )?;
    io(
        &uri,
        &[
            "read -P 1 0 64k",
            "read -P 2 64k 4k",
            "read -P 0 68k 956k",
            "read -P 3 1M 32M",
        ],
    )?;
    io(
        &uri,
        &[
            "aio_write -P 4 0 1M",
            "aio_write -P 5 2M 1M",
            "aio_flush",
            "read -P 4 0 1M",
            "read -P 5 2M 1M",
        ],
    )?;
    Ok(())
}

fn any_byte(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    io(
        &uri,
        &[
            "write -P 1 0 16k",
            "write -P 2 4095 2",
            "write -P 3 513 1000",
            "write -P 4 8191 4098",
        ],
    )?;
    io(
        &uri,
        &[
            "read -P 1 0 513",
            "read -P 3 513 1000",
            "read -P 1 1513 2582",
            "read -P 2 4095 2",
            "read -P 1 4097 4094",
            "read -P 4 8191 4098",
            "read -P 1 12289 4095",
            "read -P 0 16384 1",
        ],
    )?;
    Ok(())
}

fn zeros(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    io(
        &uri,
        &[
            "write -P 1 0 8M",
            "write -z 0 1M",
            "write -z -u 1M 1M",
            "discard 2M 1M",
            "write -z -n -u 3M 1M",
        ],
    )?;
    io(
        &uri,
        &[
            "read -P 0 0 4M",
            "read -P 1 4M 4M",
            "write -z -u 4194305 4095",
            "read -P 0 4194305 4095",
        ],
    )?;
    io(&uri, &["read -P 1 4M 1", "read -P 1 4198400 4096"])?;
    Ok(())
}

/// What nbdinfo says of a range: pairs of length and whether it holds data.
fn map(uri: &str) -> anyhow::Result<Vec<(u64, bool)>> {
    let said: Value = serde_json::from_str(&succeed("nbdinfo", ["--map", "--json", uri])?)?;
    let runs = said.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(runs
        .iter()
        .map(|run| (run["length"].as_u64().unwrap_or(0), run["type"] == 0))
        .collect())
}

fn allocation(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    io(&uri, &["write -P 1 0 4M", "discard 1M 1M", "write -z -u 2M 1M"])?;
    let found = map(&uri)?;
    ensure!(
        found == [(MIB, true), (2 * MIB, false), (MIB, true), (60 * MIB, false)],
        "with holes: {found:?}"
    );
    io(&uri, &["write -z 1M 2M", "read -P 0 1M 2M"])?;
    let found = map(&uri)?;
    ensure!(
        found == [(4 * MIB, true), (60 * MIB, false)],
        "without holes: {found:?}"
    );
    Ok(())
}

fn past_the_end(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    io(&uri, &["write -P 1 67104768 4k"])?;
    for command in ["write -P 2 67104768 8k", "write -P 2 64M 4k"] {
        let said = fail("qemu-io", ["-f", "raw", "-c", command, uri.as_str()])?;
        ensure!(said.contains("failed"), "{said}");
    }
    io(&uri, &["read -P 1 67104768 4k"])?;
    Ok(())
}

fn fio(uri: &str, extra: &[&str]) -> anyhow::Result<String> {
    let uri = format!("--uri={uri}");
    let mut arguments = vec![
        "--name=check",
        "--ioengine=nbd",
        "--minimal",
        "--randseed=7",
        "--verify_state_save=0",
        uri.as_str(),
    ];
    arguments.extend(extra);
    let said = succeed("fio", arguments)?;
    ensure!(!said.contains("verify:"), "{said}");
    Ok(said)
}

fn fio_verify(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let common = [
        "--iodepth=64",
        "--size=48M",
        "--verify=crc32c",
        "--verify_fatal=1",
    ];
    // Twice over the same blocks: fio's carry a CRC of themselves, and once an older one with the same
    // checksum came back.
    for shape in [
        ["--rw=randwrite", "--bs=4k", "--loops=2"],
        ["--rw=randwrite", "--bsrange=512-256k", "--loops=1"],
        ["--rw=write", "--bs=1M", "--loops=2"],
    ] {
        fio(&uri, &[&common[..], &shape[..]].concat())?;
    }
    Ok(())
}

fn fio_connections(stage: &mut Stage) -> Finding {
    let parallel = [
        "--numjobs=4",
        "--size=12M",
        "--offset_increment=12M",
        "--group_reporting",
    ];
    let work = [
        "--rw=randrw",
        "--bs=8k",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
    ];
    fio(&stage.uri("disk"), &[&parallel[..], &work[..]].concat())?;
    Ok(())
}

fn fio_trim(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    fio(&uri, &["--rw=randtrim", "--bs=64k", "--size=32M", "--iodepth=16"])?;
    fio(
        &uri,
        &["--rw=trimwrite", "--bs=64k", "--size=32M", "--iodepth=16"],
    )?;
    Ok(())
}

fn bench(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let common = ["bench", "-f", "raw", "-c", "4000", "-d", "64", "-s", "4096"];
    succeed(
        "qemu-img",
        common
            .iter()
            .copied()
            .chain(["-w", "--pattern=7", "-S", "8192", uri.as_str()]),
    )?;
    succeed("qemu-img", common.iter().copied().chain([uri.as_str()]))?;
    io(&uri, &["read -P 7 0 4k", "read -P 0 4k 4k", "read -P 7 8k 4k"])?;
    Ok(())
}

fn two_clients(stage: &mut Stage) -> Finding {
    let uri = stage.uri("disk");
    let mut first = crate::nbd::interruption::Session::open(&uri)?;
    let mut second = crate::nbd::interruption::Session::open(&uri)?;
    for round in 1..=5 {
        first.command(&format!("write -P {round} 0 1M"))?;
        let said = second.command("read -v 0 16")?;
        let seen = format!("{round:02x} {round:02x} {round:02x}");
        ensure!(
            said.contains(&seen),
            "round {round}: the second client reads\n{said}"
        );
        second.command(&format!("write -P {} 4k 4k", round + 100))?;
        let said = first.command(&format!("read -P {} 4k 4k", round + 100))?;
        ensure!(
            !said.contains("verification failed"),
            "round {round}: the first client reads\n{said}"
        );
    }
    Ok(())
}
