//! QEMU's monitor: one connection, one command and its answer at a time. It knows no command by name.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer. It answers at once, but for a machine that is busy.
const ANSWER: Duration = Duration::from_mins(1);

/// A connection to the monitor.
pub(crate) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects, and leaves the greeting behind.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut monitor = Self(BufReader::new(stream));
        monitor.line()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Has a command carried out, and gives what it returns. Events that come before are passed over.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{request}").with_context(|| format!("send {command} to QEMU"))?;
        loop {
            let mut line = self.line()?;
            if let Some(error) = line.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("read what QEMU says")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU says {line:?}"))
    }
}
