//! `storagectl`: the command line of storaged. Asks the admin API, and shows what it answers as tables
//! for people or as JSON for programs. It knows nothing that the API does not tell it, except how to
//! read a disk that no daemon runs.
#![forbid(unsafe_code)]

mod api;
mod arguments;
mod clock;
mod commands;
mod confirm;
mod exit;
mod output;
mod progress;
mod tree;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    match runtime.block_on(commands::perform(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = exit::code(&error);
            if code != exit::QUIET {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(code)
        }
    }
}
