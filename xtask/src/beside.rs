//! Compiles what later steps need while earlier ones run, with what these leave of the processors: guests use one of two, and
//! tests of several processes wait for each other more than they compute.
//!
//! Knows nothing of what it compiles. A step asks cargo for what it needs all the same and finds it done, so what fails here
//! is not lost: it fails there again, and is shown.

use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// The lowest priority there is: what runs beside must not be slowed down.
const NICE: &str = "19";

/// What is under way. Ends when all was tried.
pub(crate) struct Beside {
    thread: JoinHandle<()>,
}

/// Begins: one command after the other, in the order in which they are needed.
pub(crate) fn start(commands: Vec<Command>) -> Beside {
    let thread = std::thread::spawn(move || {
        for command in commands {
            // Whether it went well the step finds out.
            let _ = in_silence(&command).status();
        }
    });
    Beside { thread }
}

impl Beside {
    /// Waits for the rest: nothing goes on behind the back of whoever started it.
    pub(crate) fn end(self) {
        // A panic there has been shown, and is no failure of what was tested.
        let _ = self.thread.join();
    }
}

/// The same command, at the lowest priority and without a word.
fn in_silence(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", NICE])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => nice.env(name, value),
            None => nice.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        nice.current_dir(folder);
    }
    nice
}

#[cfg(test)]
mod tests {
    //! What is done beside is what was asked, and all of it, whatever fails.
    use super::*;

    #[test]
    fn commands_run_in_order_as_they_are_and_one_that_fails_keeps_none_from_running() {
        let folder = tempfile::tempdir().unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .env("WORD", "two words")
                .env_remove("HOME")
                .current_dir(folder.path());
            command
        };
        let commands = vec![
            shell("echo \"$WORD\" > written; exit 3"),
            shell("echo \"${HOME-none} $(nice)\" >> written"),
        ];
        start(commands).end();
        let written = std::fs::read_to_string(folder.path().join("written")).unwrap();
        assert_eq!(written, "two words\nnone 19\n");
    }
}
