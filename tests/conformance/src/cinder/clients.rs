//! What people and programs do with volumes all day, by their own means: python-cinderclient, openstacksdk, and the `openstack`
//! command. Each script is a row of steps, and asserts in each what it got.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_openstack::Environment;
use test_openstack::accounts::PROJECTS;

use super::cloud::{Cloud, Server};
use crate::suite::Tally;
use crate::tool::bounded_by;

/// What all scripts begin with.
const STEPS: &str = include_str!("clients/steps.py");
/// The scripts, by what they use.
const SCRIPTS: &[(&str, &str)] = &[
    ("python-cinderclient", include_str!("clients/cinderclient.py")),
    ("openstacksdk", include_str!("clients/openstacksdk.py")),
    ("openstack", include_str!("clients/openstack.py")),
];
/// No script takes longer than this, in seconds, unless it hangs: the `openstack` command takes two to start.
const SECONDS_MAX: u32 = 600;

/// Runs the scripts, each on what the others left, which is nothing.
pub fn run(server: &Server, keep: Option<&Path>) -> Tally {
    let mut tally = Tally::default();
    let ran = perform(server, keep, &mut tally);
    if let Err(error) = ran {
        tally.fail("clients", &error);
    }
    tally
}

fn perform(server: &Server, keep: Option<&Path>, tally: &mut Tally) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let environment = Environment::of("clients")?;
    let cloud = Cloud::start(keep.unwrap_or(temporary.path()), server)?;
    for (name, script) in SCRIPTS {
        if let Err(error) = follow(&environment, &cloud, script, tally) {
            tally.fail(name, &error);
        }
    }
    Ok(())
}

/// Runs a script and counts its steps.
fn follow(environment: &Environment, cloud: &Cloud, script: &str, tally: &mut Tally) -> Result<()> {
    let mut command: Command = bounded_by(SECONDS_MAX, environment.program("python"));
    command
        .args(["-W", "ignore", "-c", &format!("{STEPS}\n{script}")])
        .current_dir(&cloud.folder)
        .envs(cloud.keystone.variables("alpha-member", PROJECTS[0]))
        .env("OPENSTACK_PROGRAM", environment.program("openstack"))
        .stdin(Stdio::null());
    let output = command.output().context("start a script")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut steps = 0;
    for line in said.lines() {
        let step: Value = serde_json::from_str(line).with_context(|| format!("read {line:?}"))?;
        let (name, error) = (step["step"].as_str(), step["error"].as_str());
        let name = name.context("a step without a name")?;
        steps += 1;
        match error.context("a step without an end")? {
            "" => {
                println!("{name} ... ok");
                tally.passed += 1;
            }
            error => tally.fail(name, &anyhow::anyhow!("{}", error.trim_end())),
        }
    }
    ensure!(
        output.status.success() && steps > 0,
        "after {steps} steps: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
