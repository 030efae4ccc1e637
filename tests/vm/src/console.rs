//! A guest's serial line, on which it takes commands: one line each, answered with what the command printed
//! and how it ended. It does not know who runs the guest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long a single command may take, fio and file system checks included.
pub(crate) const COMMAND: Duration = Duration::from_mins(4);

/// What a command in the guest printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it printed.
    pub text: String,
    /// Its status.
    pub status: i32,
}

/// The host's end of the line.
pub struct Console {
    stream: BufReader<UnixStream>,
}

impl Console {
    /// On a connection that QEMU has opened. Waits until the guest takes commands.
    pub fn open(stream: UnixStream, patience: Duration) -> Result<Self> {
        stream.set_nonblocking(false)?;
        let mut console = Self {
            stream: BufReader::new(stream),
        };
        console.read_until(|line| (line == "@@ready").then_some(()), patience)?;
        Ok(console)
    }

    /// On a connection to a guest that takes commands already.
    pub fn resume(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Runs a command line of the guest's shell; an error if it fails.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let output = self.try_run(command)?;
        ensure!(
            output.status == 0,
            "in the guest, {command:?} ended with {}: {}",
            output.status,
            output.text
        );
        Ok(output.text)
    }

    /// Runs a command line of the guest's shell, however it ends.
    pub fn try_run(&mut self, command: &str) -> Result<Output> {
        self.begin(command)?;
        self.finish()
    }

    /// Lets the guest begin with a command line; [`Console::finish`] waits for its end.
    pub fn begin(&mut self, command: &str) -> Result<()> {
        ensure!(!command.contains('\n'), "a command is one line");
        writeln!(self.stream.get_mut(), "{command}").context("send a command to the guest")
    }

    /// Waits for the end of what was begun.
    pub fn finish(&mut self) -> Result<Output> {
        let (text, status) = self
            .read_until(
                |line| line.strip_prefix("@@status ")?.trim().parse().ok(),
                COMMAND,
            )
            .context("wait for the guest to finish a command")?;
        // The guest ends the last line before it says how the command ended.
        let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        Ok(Output { text, status })
    }

    /// Waits for a line of the output of what was begun.
    pub fn wait_for_line(&mut self, wanted: &str) -> Result<String> {
        Ok(self.read_until(|line| (line == wanted).then_some(()), COMMAND)?.0)
    }

    /// Reads lines until one gives something; what came before it, and what it gave.
    fn read_until<T>(
        &mut self,
        mut found: impl FnMut(&str) -> Option<T>,
        patience: Duration,
    ) -> Result<(String, T)> {
        let deadline = Instant::now() + patience;
        let mut text = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "the guest has not answered for {} seconds; it said: {text}",
                patience.as_secs()
            );
            self.stream.get_ref().set_read_timeout(Some(left))?;
            let mut line = String::new();
            let count = self
                .stream
                .read_line(&mut line)
                .with_context(|| format!("the guest said: {text}"))?;
            ensure!(count > 0, "QEMU has closed the console; the guest said: {text}");
            let line_end = line.trim_end_matches(['\r', '\n']).len();
            line.truncate(line_end);
            if let Some(value) = found(&line) {
                return Ok((text, value));
            }
            text.push_str(&line);
            text.push('\n');
        }
    }
}
