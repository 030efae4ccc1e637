//! `cargo xtask test`: everything that shows that storaged keeps its promises, in one run.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::beside::{self, Beside};
use crate::programs::{self, Profile};
use crate::tally::Tally;
use crate::unit_tests::{self, Executable};
use crate::{campaigns, debian, deny, fuzz, package, tidy, upgrade};

/// How much of everything.
struct Scale {
    seeds: u64,
    fuzz_seconds: u64,
    fuzz_seed: Option<u32>,
    kill_rounds: u32,
    /// Kills under a guest, beyond the few that are a scenario.
    guest_kills: u32,
    guest_moves: u32,
    full: bool,
}

/// Rounds without a guest, and kills under one.
pub(crate) const KILLS_OF_A_RELEASE: (u32, u32) = (500, 1000);

/// How often each storm rages for a release: half an hour a round.
const STORM_ROUNDS_OF_A_RELEASE: u32 = 10;

/// The revision that hosts are upgraded from. Older packages cannot do all that is done before the upgrade: with those of the
/// first day no guest has a disk under systemd 252.
const FIRST_PACKAGES: &str = "f206eb2";

/// What every change must pass: under 45 minutes on two cores, builds included.
const SHORT: Scale = Scale {
    seeds: 200,
    fuzz_seconds: 60,
    fuzz_seed: Some(1),
    kill_rounds: 10,
    guest_kills: 0,
    guest_moves: 0,
    full: false,
};
/// What a release must pass: hours.
const LONG: Scale = Scale {
    seeds: 20_000,
    fuzz_seconds: 3600,
    fuzz_seed: None,
    kill_rounds: KILLS_OF_A_RELEASE.0,
    guest_kills: KILLS_OF_A_RELEASE.1,
    guest_moves: 50,
    full: true,
};

impl Scale {
    /// How programs that test are compiled; unit tests are always checked.
    fn profile(&self) -> Profile {
        if self.full {
            Profile::Release
        } else {
            Profile::Checked
        }
    }
}

type Step<'a> = (&'a str, Box<dyn Fn() -> Result<Tally> + 'a>);

/// Runs all steps, whatever the others did, and prints what each found and how long it took.
pub(crate) fn test(long: bool) -> Result<Tally> {
    let scale = if long { LONG } else { SHORT };
    debian::ensure(debian::COMPILER)?;
    debian::ensure(debian::NBD_CLIENTS)?;
    debian::ensure(debian::TRACER)?;
    debian::ensure_python()?;
    debian::fetch_etcd()?;
    let mut results = Vec::new();
    let mut built: &[Executable] = &[];
    results.push(perform("compilation", || {
        built = unit_tests::build(campaigns::OF_EVERY_RUN)?;
        let mut tally = Tally::default();
        tally.record(true);
        Ok(tally)
    }));
    let beside = compile_the_rest(&scale);
    for (name, step) in steps(&scale, built) {
        results.push(perform(name, step));
    }
    beside.end();
    Ok(summary(&results))
}

/// Does one step: an error in it is a failure, and the others go on.
fn perform(name: &str, step: impl FnOnce() -> Result<Tally>) -> (&str, Tally, Duration) {
    println!("\n== {name}");
    let started = Instant::now();
    let tally = step().unwrap_or_else(|error| {
        println!("{name}: {error:#}");
        Tally {
            failed: 1,
            ..Tally::default()
        }
    });
    (name, tally, started.elapsed())
}

/// Compiles what the last steps need while the others run: what has bugs on purpose, what fuzzes, lints, and cargo-deny.
fn compile_the_rest(scale: &Scale) -> Beside {
    let mutants = campaigns::of_mutants(scale.profile());
    let mut commands: Vec<Command> = mutants
        .into_iter()
        .map(|(profile, program)| programs::building(profile, &[program]))
        .collect();
    commands.extend([fuzz::building(), tidy::linting(), deny::installing()]);
    beside::start(commands)
}

/// The steps, in an order in which those that leave a processor idle come first: what the last ones need is compiled meanwhile.
fn steps<'a>(scale: &'a Scale, built: &'a [Executable]) -> Vec<Step<'a>> {
    let profile = scale.profile();
    let mut steps: Vec<Step<'_>> = vec![
        ("tidy", Box::new(tidy_without_lints)),
        (
            "unit, property and integration tests",
            Box::new(move || all_tests(built)),
        ),
        (
            "kills of real processes",
            Box::new(move || campaigns::kill(profile, scale.kill_rounds)),
        ),
        (
            "NBD clients",
            Box::new(move || campaigns::conformance(profile, "nbd", &[])),
        ),
        (
            "iSCSI initiators",
            Box::new(move || campaigns::brief_iscsi(profile)),
        ),
        (
            "real guests",
            Box::new(move || campaigns::guests(profile, scale.full)),
        ),
        ("Proxmox plugin", Box::new(move || campaigns::proxmox(profile))),
        ("Debian packages", Box::new(move || package::trial(profile))),
        (
            "Ansible collection",
            Box::new(move || campaigns::rules_of_hosts(profile)),
        ),
        (
            "simulation",
            Box::new(move || campaigns::sim(profile, scale.seeds, 1)),
        ),
        ("model", Box::new(move || campaigns::model(profile, scale.full))),
        (
            "crash images",
            Box::new(move || campaigns::crash(profile, scale.full)),
        ),
        ("mutants", Box::new(move || campaigns::mutants(profile))),
        (
            "fuzzing",
            Box::new(|| fuzz::fuzz(scale.fuzz_seconds, &[], false, scale.fuzz_seed)),
        ),
        ("lints", Box::new(|| Ok(tidy::lints()))),
        (
            "crates of others",
            if scale.full {
                Box::new(deny::deny)
            } else {
                Box::new(deny::without_holes)
            },
        ),
    ];
    if scale.guest_kills > 0 {
        let kills = move || campaigns::guest_kills(profile, scale.guest_kills, 1);
        steps.push(("kills under a guest", Box::new(kills)));
    }
    if scale.full {
        let arguments = ["--rounds".to_owned(), STORM_ROUNDS_OF_A_RELEASE.to_string()];
        let storms = move || campaigns::storms(profile, &arguments);
        steps.push(("storms over real nodes", Box::new(storms)));
        let hosts = || upgrade::hosts(Some(FIRST_PACKAGES));
        steps.push(("roll-out on real hosts", Box::new(hosts)));
    }
    if scale.guest_moves > 0 {
        let moves = move || campaigns::guest_moves(profile, scale.guest_moves);
        steps.push(("a guest that moves", Box::new(moves)));
    }
    steps
}

fn tidy_without_lints() -> Result<Tally> {
    let mut tally = tidy::rules()?;
    tally.add(tidy::format());
    Ok(tally)
}

/// All tests of all crates. Not the examples in comments: there are none, which tidy sees to.
fn all_tests(built: &[Executable]) -> Result<Tally> {
    if built.is_empty() {
        bail!("they were not built");
    }
    unit_tests::run(built)
}

fn summary(results: &[(&str, Tally, Duration)]) -> Tally {
    let mut sum = Tally::default();
    println!(
        "\n{:<40} {:>8} {:>8} {:>8} {:>9}",
        "", "passed", "failed", "skipped", "seconds"
    );
    for (name, tally, elapsed) in results {
        let Tally {
            passed,
            failed,
            skipped,
        } = tally;
        println!(
            "{name:<40} {passed:>8} {failed:>8} {skipped:>8} {:>9}",
            elapsed.as_secs()
        );
        sum.add(*tally);
        // A step that checked nothing is broken, even if nothing failed in it.
        if !tally.is_good() && tally.failed == 0 {
            println!("{name}: nothing was checked, which counts as a failure");
            sum.failed += 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    //! A step must not vanish from the sum.
    use super::*;

    #[test]
    fn a_step_that_checks_nothing_counts_as_a_failure() {
        let good = Tally {
            passed: 3,
            failed: 0,
            skipped: 1,
        };
        let sum = summary(&[
            ("a", good, Duration::ZERO),
            ("b", Tally::default(), Duration::ZERO),
        ]);
        assert_eq!(
            sum,
            Tally {
                passed: 3,
                failed: 1,
                skipped: 1
            }
        );
    }
}
