//! Roll-out on real hosts: machines with Debian, systemd and ssh are made from nothing, and the collection in `ansible/`
//! does on them what an operator does: the first roll-out, a second one that changes nothing, a node more, an upgrade under
//! verified I/O, a node less. How long each takes is printed.
#![forbid(unsafe_code)]

mod ansible;
mod cgroup;
mod command_lines;
mod debian;
mod host;
mod inside;
mod lab;
mod machine;
#[path = "../../upgrade/src/nbd.rs"]
mod nbd;
mod own_packages;
#[path = "../../storms/src/pattern.rs"]
mod pattern;
mod roll_out;
mod rules;
#[path = "../../upgrade/src/writer.rs"]
#[expect(dead_code, reason = "here no front end is replaced")]
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use test_openstack::Environment;
use vm_tests::image::Image;

use ansible::Ansible;
use debian::Debian;
use lab::Lab;
use roll_out::{DEEDS, Deed, Stage, nova};

/// Programs of OpenStack's that hosts are looked at with.
const ENVIRONMENTS: [&str; 2] = ["keystone", "nova"];

/// Real hosts, rolled out by Ansible. Needs root, and makes namespaces of its own. Ends with a line "N passed, N failed,
/// N skipped".
#[derive(Parser)]
struct Arguments {
    /// Where our Debian packages are, as `cargo xtask package` makes them.
    #[arg(long, default_value = "target/debian")]
    packages: PathBuf,
    /// Where older ones are, to be upgraded from; else the same are upgraded to themselves under a later version.
    #[arg(long)]
    older: Option<PathBuf>,
    /// Where the hosts' Debian is kept.
    #[arg(long, default_value = "target/hosts")]
    folder: PathBuf,
    /// Where the guest's image is kept.
    #[arg(long, default_value = "target/guest")]
    guest: PathBuf,
    /// The collection.
    #[arg(long, default_value = "ansible")]
    collection: PathBuf,
    /// Only what needs no hosts: lints, rules, the dashboard.
    #[arg(long)]
    rules: bool,
    /// Leave out what changes nothing: check mode and second runs.
    #[arg(long)]
    brief: bool,
    /// Only deeds whose names have one of these words, and those that they stand on, which is yours to know.
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Instead of all this, start so many hosts and run a shell beside them, with an inventory.
    #[arg(long, value_name = "HOSTS")]
    shell: Option<usize>,
}

/// What was done, and how long it took.
struct Step {
    what: &'static str,
    took: Duration,
    failed: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            println!("0 passed, 1 failed, 0 skipped");
            ExitCode::FAILURE
        }
    }
}

/// Whether all held.
fn perform(arguments: &Arguments) -> Result<bool> {
    let programs = Ansible::prepare(&arguments.collection)?;
    if arguments.rules {
        return Ok(judged(&rules::all(&programs, &arguments.folder), 0));
    }
    let debian = Debian::prepare(&arguments.folder)?;
    // What it is made of may have to be fetched, which cannot be done from inside.
    if !arguments.brief {
        for name in ENVIRONMENTS {
            Environment::of(name)?;
        }
        nova::prepare(&arguments.folder)?;
    }
    Image::prepare(&arguments.guest)?;
    inside::enter()?;
    let lab = Lab::raise(debian, &arguments.packages, arguments.older.as_deref()).context("raise the lab")?;
    let ansible = Ansible::new(programs, &lab.control, lab.key())?;
    let mut stage = Stage::new(lab, ansible, &arguments.guest, &arguments.folder);
    if let Some(hosts) = arguments.shell {
        return stage.shell(hosts).map(|()| true);
    }
    let wanted = |deed: &&Deed| {
        let is_named = arguments.only.iter().any(|words| deed.what.contains(words));
        (deed.brief || !arguments.brief) && (is_named || arguments.only.is_empty())
    };
    let deeds: Vec<&Deed> = DEEDS.iter().filter(wanted).collect();
    ensure!(!deeds.is_empty(), "no deed is called so");
    let (steps, skipped) = campaign(&mut stage, &deeds);
    Ok(judged(&steps, skipped))
}

/// Deeds on hosts. Each stands on those before it: after a failure there are no more.
fn campaign(stage: &mut Stage, deeds: &[&Deed]) -> (Vec<Step>, usize) {
    let mut done: Vec<Step> = Vec::new();
    for deed in deeds {
        let step = step(deed.what, || (deed.act)(stage));
        let failed = step.failed.is_some();
        done.push(step);
        if failed {
            stage.tell();
            break;
        }
    }
    let skipped = deeds.len() - done.len();
    (done, skipped)
}

/// Does one thing and says how long it took.
fn step(what: &'static str, act: impl FnOnce() -> Result<()>) -> Step {
    let started = Instant::now();
    let failed = act().err().map(|error| format!("{error:#}"));
    let took = started.elapsed();
    match &failed {
        None => println!("{what}: {:.1} s", took.as_secs_f32()),
        Some(error) => println!("{what}: FAILED after {:.1} s: {error}", took.as_secs_f32()),
    }
    Step { what, took, failed }
}

/// Prints the sum; whether nothing failed. `skipped` steps were not done, because of one that failed.
fn judged(steps: &[Step], skipped: usize) -> bool {
    let failed = steps.iter().filter(|step| step.failed.is_some()).count();
    println!();
    for step in steps {
        let word = if step.failed.is_some() { "FAILED" } else { "" };
        println!("{:<60} {:>8.1} s {word}", step.what, step.took.as_secs_f32());
    }
    println!(
        "{} passed, {failed} failed, {skipped} skipped",
        steps.len() - failed
    );
    failed == 0
}
