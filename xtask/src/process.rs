//! Runs other programs, and says so: a person can repeat each step by hand.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program to its end, with our standard output. An error unless its status is good.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| start_failed(command))?;
    ensure!(status.success(), "{} ended with {status}", line(command));
    Ok(())
}

/// Runs a program to its end, passes its standard output on line by line, and returns that with
/// whether its status was good.
pub(crate) fn run_and_read(command: &mut Command) -> Result<(String, bool)> {
    announce(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| start_failed(command))?;
    let mut output = String::new();
    if let Some(stdout) = child.stdout.take() {
        for read in BufReader::new(stdout).split(b'\n') {
            let text = String::from_utf8_lossy(&read.context("read a program's output")?).into_owned();
            println!("{text}");
            output.push_str(&text);
            output.push('\n');
        }
    }
    let status = child.wait().context("wait for a program")?;
    Ok((output, status.success()))
}

/// Says what is about to be run.
pub(crate) fn announce(command: &Command) {
    println!("+ {}", line(command));
}

fn start_failed(command: &Command) -> String {
    format!("start {}", command.get_program().display())
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '"', '$', '*']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
