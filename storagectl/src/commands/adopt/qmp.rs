//! QEMU's monitor: a line of JSON out, a line of JSON in (QEMU Machine Protocol Specification). What is asked is not
//! known here.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// How long QEMU may take for an answer. It answers nothing else while it connects to a disk.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(1);
/// The longest line: a list of some thousand nodes.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The most lines (events, answers to others) that are passed over on the way to an answer.
const LINES_MAX: usize = 10_000;

/// A monitor that is ready for commands.
pub(super) struct Monitor {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    asked: u64,
    /// The part of a line that was heard when whoever waited for it was interrupted.
    heard: Vec<u8>,
}

impl Monitor {
    /// Connects, and takes the monitor for commands.
    pub(super) async fn connect(socket: &Path) -> Result<Self> {
        let at = || format!("reach QEMU's monitor at {}", socket.display());
        let stream = UnixStream::connect(socket).await.with_context(at)?;
        let (reader, writer) = stream.into_split();
        let mut monitor = Self {
            reader: BufReader::new(reader),
            writer,
            asked: 0,
            heard: Vec::new(),
        };
        let greeting = timeout(ANSWER_TIME_MAX, monitor.line())
            .await
            .map_err(|_| anyhow!("it does not greet: does somebody else speak to it?"))
            .with_context(at)?
            .with_context(at)?;
        ensure!(
            greeting.get("QMP").is_some(),
            "{} is no QEMU monitor that speaks QMP",
            socket.display()
        );
        monitor.ask("qmp_capabilities", json!({})).await?;
        Ok(monitor)
    }

    /// The answer to a command.
    pub(super) async fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let answer = timeout(ANSWER_TIME_MAX, self.exchange(command, arguments)).await;
        answer.map_err(|_| {
            anyhow!(
                "QEMU gives no answer to {command} within {} s",
                ANSWER_TIME_MAX.as_secs()
            )
        })?
    }

    async fn exchange(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.asked += 1;
        let id = self.asked;
        let mut line = serde_json::to_vec(&json!({"execute": command, "arguments": arguments, "id": id}))?;
        line.push(b'\n');
        self.writer.write_all(&line).await.context("QEMU is gone")?;
        for _ in 0..LINES_MAX {
            let mut answer = self.line().await?;
            if answer.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or("(nothing)");
                bail!("QEMU says no to {command}: {why}");
            }
            return Ok(answer["return"].take());
        }
        bail!("QEMU's monitor says all sorts of things, and nothing to {command}")
    }

    /// The next line. May be interrupted, and goes on where it was.
    async fn line(&mut self) -> Result<Value> {
        let room = LINE_BYTES_MAX.saturating_sub(self.heard.len() as u64);
        let mut reader = (&mut self.reader).take(room);
        reader
            .read_until(b'\n', &mut self.heard)
            .await
            .context("listen to QEMU's monitor")?;
        let line = std::mem::take(&mut self.heard);
        ensure!(line.ends_with(b"\n"), "QEMU's monitor ended");
        serde_json::from_slice(&line).context("understand QEMU's monitor")
    }
}
