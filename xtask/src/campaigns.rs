//! The programs that look for defects, each with what it needs beside it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::debian;
use crate::process::run;
use crate::programs::{
    self, ATTACH, CINDER_API, ISCSI, NBD, PRODUCT, Profile, Program, STORAGECTL, STORAGED, VHOST_BLK,
};
use crate::second_lines;
use crate::tally::Tally;
use crate::workspace;

const SIMULATOR: Program = Program { binary: "simulator" };
const MUTANTS: Program = Program { binary: "mutants" };
const CRASH: Program = Program {
    binary: "crash-tests",
};
const STORE_MUTANTS: Program = Program {
    binary: "store-mutants",
};
const KILL: Program = Program { binary: "kill-tests" };
const MODEL: Program = Program {
    binary: "model-tests",
};
const SCALE: Program = Program { binary: "scale" };
const STORMS: Program = Program { binary: "storms" };
const BENCH: Program = Program { binary: "bench" };
const DEMO: Program = Program { binary: "demo" };
const CONFORMANCE: Program = Program {
    binary: "conformance",
};
const GUESTS: Program = Program { binary: "vm-tests" };
const HOSTS: Program = Program {
    binary: "hosts-tests",
};

/// What every whole run needs beside its unit tests.
pub(crate) const OF_EVERY_RUN: &[Program] = &[
    STORAGED,
    VHOST_BLK,
    NBD,
    ISCSI,
    STORAGECTL,
    ATTACH,
    CINDER_API,
    SIMULATOR,
    MODEL,
    CRASH,
    KILL,
    CONFORMANCE,
    GUESTS,
    HOSTS,
];
/// What is compiled anew for the sake of the bugs on purpose, each with the profile that it runs in.
pub(crate) fn of_mutants(profile: Profile) -> [(Profile, Program); 2] {
    // A panic is one way to be caught, and ends a program that is built for release.
    [(profile, MUTANTS), (Profile::Checked, STORE_MUTANTS)]
}

/// Simulated worlds, `seeds` of them, from seed `from` on; a third as many of pools that encode rows; and as many small ones
/// of rows.
pub(crate) fn sim(profile: Profile, seeds: u64, from: u64) -> Result<Tally> {
    let arguments = [
        "--seeds".to_owned(),
        seeds.to_string(),
        "--from".to_owned(),
        from.to_string(),
    ];
    let mut tally = programs::test(profile, SIMULATOR, &[], &arguments)?;
    let third = (seeds / 3).max(1).to_string();
    let encoded = ["--encoded", "--seeds", &third, "--from", &from.to_string()].map(str::to_owned);
    tally.add(programs::test(profile, SIMULATOR, &[], &encoded)?);
    let rows = [&arguments[..], &["--rows".to_owned()]].concat();
    tally.add(programs::test(profile, SIMULATOR, &[], &rows)?);
    Ok(tally)
}

/// Images of a disk after a power cut; with `full` all of them, else what fits into a minute or so.
pub(crate) fn crash(profile: Profile, full: bool) -> Result<Tally> {
    let arguments: &[String] = if full { &["--full".into()] } else { &[] };
    programs::test(profile, CRASH, &[], arguments)
}

/// The protocol as a model, every order of everything in bounded worlds; with `long` in larger ones.
pub(crate) fn model(profile: Profile, long: bool) -> Result<Tally> {
    let arguments: &[String] = if long { &["--long".into()] } else { &[] };
    programs::test(profile, MODEL, &[], arguments)
}

/// Seeded bugs, each of which the tests must catch: simulated worlds, or a unit test that the bug names;
/// for those of the store, crash images, failing I/O, flipped bits or random lives.
pub(crate) fn mutants(profile: Profile) -> Result<Tally> {
    let [worlds, store] = of_mutants(profile);
    let mut tally = programs::test(worlds.0, worlds.1, &[], &[])?;
    let folder = programs::build(profile, &[MUTANTS])?;
    let mut list = Command::new(folder.join(MUTANTS.binary));
    tally.add(second_lines::run(list.arg("--second-lines"))?);
    tally.add(programs::test(store.0, store.1, &[], &[])?);
    println!("mutants, all: {} caught, {} missed", tally.passed, tally.failed);
    Ok(tally)
}

/// Real processes, killed at random moments under load.
pub(crate) fn kill(profile: Profile, rounds: u32) -> Result<Tally> {
    programs::test(profile, KILL, PRODUCT, &["--rounds".into(), rounds.to_string()])
}

/// Real nodes in network namespaces, in bad weather.
pub(crate) fn storms(profile: Profile, arguments: &[String]) -> Result<Tally> {
    debian::fetch_etcd()?;
    debian::ensure(debian::STORAGE_DAEMON)?;
    programs::test(profile, STORMS, PRODUCT, arguments)
}

/// The Ansible collection, as far as it can be judged without hosts.
pub(crate) fn rules_of_hosts(profile: Profile) -> Result<Tally> {
    debian::ensure_python()?;
    let folder = workspace::target().join("hosts");
    let arguments = [
        "--rules".to_owned(),
        "--folder".to_owned(),
        folder.display().to_string(),
    ];
    programs::test(profile, HOSTS, &[], &arguments)
}

/// Real hosts, rolled out by Ansible with these packages, and upgraded from older ones if there are any.
pub(crate) fn hosts(profile: Profile, packages: &Path, older: Option<&Path>) -> Result<Tally> {
    debian::ensure_python()?;
    debian::ensure_guests()?;
    let folder = workspace::target().join("hosts");
    let mut arguments = vec!["--folder".to_owned(), folder.display().to_string()];
    arguments.extend(["--packages".to_owned(), packages.display().to_string()]);
    if let Some(older) = older {
        arguments.extend(["--older".to_owned(), older.display().to_string()]);
    }
    let mut tally = rules_of_hosts(profile)?;
    tally.add(programs::test(profile, HOSTS, PRODUCT, &arguments)?);
    Ok(tally)
}

/// `vhost-blk`, killed so often under a real guest.
pub(crate) fn guest_kills(profile: Profile, kills: u32, seed: u64) -> Result<Tally> {
    let arguments = [
        "--kills".into(),
        kills.to_string(),
        "--seed".into(),
        seed.to_string(),
    ];
    programs::test(profile, GUESTS, PRODUCT, &arguments)
}

/// Clients that others wrote, against one of our servers.
pub(crate) fn conformance(profile: Profile, name: &str, arguments: &[String]) -> Result<Tally> {
    let mut programs = PRODUCT.to_vec();
    match name {
        "libvirt" => {
            debian::ensure_python()?;
            debian::ensure(debian::LIBVIRT)?;
        }
        "iscsi" => debian::ensure(debian::ISCSI_CLIENTS)?,
        "cinder" | "cinder-clients" | "cinder-schema" | "os-brick" => {
            programs.push(CINDER_API);
            debian::ensure_python()?;
            debian::ensure(debian::IMAGES)?;
        }
        _ => debian::ensure(debian::NBD_CLIENTS)?,
    }
    let arguments = [&[name.to_owned()], arguments].concat();
    programs::test(profile, CONFORMANCE, &programs, &arguments)
}

/// The same of iSCSI, without what takes minutes.
pub(crate) fn brief_iscsi(profile: Profile) -> Result<Tally> {
    debian::ensure(debian::ISCSI_CLIENTS)?;
    let arguments = ["iscsi", "--brief"].map(str::to_owned);
    programs::test(profile, CONFORMANCE, PRODUCT, &arguments)
}

/// The Proxmox plugin among doubles of its callers, over real nodes and under QEMU; and its package.
pub(crate) fn proxmox(profile: Profile) -> Result<Tally> {
    debian::ensure(debian::PERL)?;
    debian::ensure_guests()?;
    debian::fetch_etcd()?;
    let folder = programs::build(profile, &[PRODUCT, &[ATTACH]].concat())?;
    let mut tests = Command::new(workspace::root().join("proxmox-plugin/t/run"));
    programs::count(tests.env("STORAGED_PROGRAMS", folder))
}

/// The Debian package of the Proxmox plugin, whose files were changed at `moment`, in seconds since 1970.
pub(crate) fn package_proxmox(into: &Path, moment: u64) -> Result<()> {
    debian::ensure(debian::PERL)?;
    let mut package = Command::new(workspace::root().join("proxmox-plugin/package"));
    run(package.arg(into).env("SOURCE_DATE_EPOCH", moment.to_string()))
}

/// Real guests under QEMU: all scenarios, or those that are quick enough for each change.
pub(crate) fn guests(profile: Profile, full: bool) -> Result<Tally> {
    debian::fetch_etcd()?;
    let arguments: &[String] = if full { &[] } else { &["--short".to_owned()] };
    programs::test(profile, GUESTS, &[PRODUCT, &[ATTACH]].concat(), arguments)
}

/// One guest, moved live between two QEMUs.
pub(crate) fn guest_moves(profile: Profile, moves: u32) -> Result<Tally> {
    programs::test(profile, GUESTS, PRODUCT, &["--moves".into(), moves.to_string()])
}

/// The demonstration.
pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    run_released(DEMO, arguments)
}

/// Benchmarks. They print their own tables and last line.
pub(crate) fn bench(name: &str, arguments: &[String]) -> Result<()> {
    if name == "scale" {
        debian::fetch_etcd()?;
        let folder = programs::build(Profile::Release, &[SCALE])?;
        return run(Command::new(folder.join(SCALE.binary)).args(arguments));
    }
    debian::ensure(debian::STORAGE_DAEMON)?;
    debian::ensure(debian::NBD_CLIENTS)?;
    if matches!(name, "cluster" | "pauses") {
        debian::fetch_etcd()?;
    }
    if name == "iscsi" {
        debian::ensure(debian::ISCSI_TARGET)?;
    }
    let arguments: Vec<String> = std::iter::once(name)
        .map(str::to_owned)
        .chain(arguments.iter().cloned())
        .collect();
    run_released(BENCH, &arguments)
}

/// Builds a program and the product for release, and runs it.
fn run_released(program: Program, arguments: &[String]) -> Result<()> {
    let mut programs = PRODUCT.to_vec();
    programs.push(program);
    let folder = programs::build(Profile::Release, &programs)?;
    let mut command = Command::new(folder.join(program.binary));
    command
        .args(arguments)
        .current_dir(workspace::root())
        .env("STORAGED_PROGRAMS", &folder);
    run(&mut command)
}
