//! The other end of the writer: starts it on node 1, and asks it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use test_node::{Node, command_inside};

use crate::writer::{Answer, Figures, Word};

/// How long an answer may take: all of the volume is read for one of them, over a network that is healed.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
/// Answers that wait: each word is answered once.
const ANSWERS_MAX: usize = 4;
/// Between two looks at whether it goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The running writer. It ends with this value.
pub(crate) struct Witness {
    child: Child,
    answers: Receiver<Answer>,
}

impl Witness {
    /// Starts the writer beside a node, and waits until it has opened the volume.
    pub(crate) fn start(node: &Node, volume: &str, seed: u64) -> Result<Self> {
        let us = std::env::current_exe().context("find this program")?;
        let mut command = command_inside(node.namespace(), &us);
        command.arg("work").arg("--storaged").arg(node.session_socket());
        command.args(["--volume", volume, "--seed", &seed.to_string()]);
        let log = std::fs::File::create(node.folder().join("writer.log")).context("make a log")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("start the writer")?;
        let stdout = child.stdout.take().context("the writer's output")?;
        let (sender, answers) = sync_channel(ANSWERS_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str(&line) else {
                    return;
                };
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        let mut witness = Self { child, answers };
        match witness.answer()? {
            Answer::Open => Ok(witness),
            other => bail!("the writer said {other:?} in place of being open"),
        }
    }

    /// Tells it a word; its figures.
    pub(crate) fn ask(&mut self, word: Word) -> Result<Figures> {
        let mut line = serde_json::to_string(&word)?;
        line.push('\n');
        let stdin = self.child.stdin.as_mut().context("the writer's input")?;
        // If it has ended, what it said last tells why.
        let _ = stdin.write_all(line.as_bytes());
        match self.answer()? {
            Answer::Done(figures) => Ok(figures),
            other => bail!("the writer said {other:?}"),
        }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) fn until_it_wrote(&mut self, writes: u64, patience: Duration) -> Result<()> {
        let goal = self.ask(Word::Tell)?.writes + writes;
        let deadline = Instant::now() + patience;
        while self.ask(Word::Tell)?.writes < goal {
            if Instant::now() > deadline {
                bail!("I/O hangs: not even {writes} writes were acknowledged in {patience:?}");
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Lets so much time pass. It answers all the while: what breaks is noticed at once.
    pub(crate) fn hold(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.ask(Word::Tell)?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer> {
        match self.answers.recv_timeout(ANSWER_LIMIT) {
            Ok(Answer::Broken(sentence)) => bail!("the writer saw: {sentence}"),
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().context("wait for the writer")?;
                bail!("the writer ended with {status}")
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("I/O hangs: the writer said nothing for {ANSWER_LIMIT:?}")
            }
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
