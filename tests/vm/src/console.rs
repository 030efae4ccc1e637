//! A guest's serial line, on which it takes commands: one line each, answered with what the command printed
//! and how it ended. It does not know who runs the guest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long a single command may take, fio and file system checks included.
pub(crate) const COMMAND: Duration = Duration::from_mins(4);

/// How long a guest that has been silent for longer may take to answer an empty line.
const NUDGE: Duration = Duration::from_secs(20);

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
    /// Commands that were sent to this guest. It counts them too: an answer with another number is one to something
    /// else, and the line has lost or doubled something.
    commands: u64,
}

impl Console {
    /// On a connection that QEMU has opened. Waits until the guest takes commands.
    pub fn open(stream: UnixStream, patience: Duration) -> Result<Self> {
        stream.set_nonblocking(false)?;
        let mut console = Self {
            stream: BufReader::new(stream),
            commands: 0,
        };
        console.read_until(|line| (line == "@@ready").then_some(()), patience)?;
        Ok(console)
    }

    /// The guest that was talked to on another connection goes on with this one.
    pub fn resume(&mut self, stream: UnixStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        self.stream = BufReader::new(stream);
        Ok(())
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
        self.commands += 1;
        writeln!(self.stream.get_mut(), "{command}").context("send a command to the guest")
    }

    /// Waits for the end of what was begun.
    pub fn finish(&mut self) -> Result<Output> {
        let (text, (status, number)) = self
            .read_until(end_of_command, COMMAND)
            .context("wait for the guest to finish a command")?;
        ensure!(
            number == self.commands,
            "the guest has answered command {number}, and {} were sent: the line has lost or doubled something",
            self.commands
        );
        // The guest ends the last line before it says how the command ended.
        let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        Ok(Output { text, status })
    }

    /// Sends an empty line to a guest that has not answered, and gives what it says to that.
    pub fn nudge(&mut self) -> Result<String> {
        self.begin("")?;
        let (text, (status, number)) = self.read_until(end_of_command, NUDGE)?;
        Ok(format!(
            "{text}status {status} of command {number}, and {} were sent",
            self.commands
        ))
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

/// How a command ended, and which, if a line says that.
fn end_of_command(line: &str) -> Option<(i32, u64)> {
    let (status, number) = line.strip_prefix("@@status ")?.trim().split_once(' ')?;
    Some((status.parse().ok()?, number.parse().ok()?))
}
