//! The demonstration: a real `storaged` on three directories, a real guest on one of its volumes, a
//! live snapshot while the guest writes, and a second guest on a clone of it. It checks all that it
//! claims: a step that does not hold ends it with an error.
#![forbid(unsafe_code)]

mod guests;
mod journal;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use vm_tests::scenarios::Setting;

use journal::Journal;
use stage::Stage;

/// Shows what storaged does, from three empty directories to a booted clone.
#[derive(Parser)]
struct Arguments {
    /// Where the guest's image is kept between runs.
    #[arg(long, default_value = "target/guest")]
    image: PathBuf,
    /// Leave the disks where they are, to look at them or to go on by hand.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let mut journal = Journal::new();
    match show(&Arguments::parse(), &mut journal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n{journal}");
            eprintln!("error: the demo did not hold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(arguments: &Arguments, journal: &mut Journal) -> Result<()> {
    let setting = journal.step("prepare a guest", || {
        let setting = Setting::prepare(&arguments.image)?;
        let how = format!("Debian's kernel, run by {:?}", setting.accelerator);
        Ok((setting, how))
    })?;
    let mut stage = Stage::set(journal)?;
    let seen = guests::write_and_snapshot(&setting, &mut stage, journal)?;
    guests::boot_the_clone(&setting, &mut stage, journal, seen)?;
    let folder = arguments.keep.then(|| stage.keep().to_owned());
    stage.strike(journal)?;
    println!("\n{journal}\n");
    println!(
        "The same by hand is in README.md; `storagectl --help` has examples; docs/semantics.md has the promises."
    );
    match folder {
        Some(folder) => println!("The disks are in {0}: storaged --work-dir {0}", folder.display()),
        None => println!("The disks were removed again; with --keep they stay."),
    }
    Ok(())
}
