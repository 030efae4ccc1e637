//! One round: a worker verifies, works, and something is killed under it.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rand::rngs::SmallRng;
use test_node::Node;

use crate::oracle::Oracle;
use crate::pattern::Value;
use crate::report::Report;
use crate::worker::VOLUME;

/// The kill comes after at most so many acknowledged writes, so that checkpoints happen too.
const WRITES_BEFORE_MAX: u64 = 3000;
/// After `storaged` is back, so many writes must be acknowledged: I/O went on by itself.
const WRITES_AFTER: u64 = 200;
/// How long nothing may be heard from a worker: a lease has to lapse, a log to be read.
const SILENCE_MAX: Duration = Duration::from_mins(2);
/// Reports that wait for the parent; a worker that is faster waits in turn.
const REPORTS_WAITING_MAX: usize = 1024;
/// Numbers of requests that each round has for itself.
const NUMBERS_PER_ROUND: u64 = 1 << 32;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// `storaged`, and the worker must not notice more than a pause.
    Storaged,
    /// The worker; the next one takes over.
    Worker,
    /// Both at once.
    Both,
}

impl Victim {
    /// One of them.
    pub(crate) fn draw(random: &mut SmallRng) -> Self {
        [Self::Storaged, Self::Storaged, Self::Worker, Self::Both][random.random_range(0..4)]
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storaged => "storaged killed",
            Self::Worker => "the writer killed",
            Self::Both => "storaged and the writer killed",
        })
    }
}

/// A round.
pub(crate) struct Round<'a> {
    pub(crate) number: u32,
    pub(crate) victim: Victim,
    /// Our own program, which is the worker's too.
    pub(crate) us: &'a Path,
}

impl Round<'_> {
    /// Runs it; how many writes were acknowledged, or what went wrong.
    pub(crate) fn run(self, node: &mut Node, oracle: &mut Oracle, random: &mut SmallRng) -> Result<u64> {
        let first_number = u64::from(self.number) * NUMBERS_PER_ROUND;
        let mut worker = Worker::start(self.us, node, first_number, random.random())?;
        worker.until_verified(oracle)?;
        let mut acknowledged =
            worker.until_acknowledged(random.random_range(1..=WRITES_BEFORE_MAX), oracle)?;
        match self.victim {
            Victim::Storaged => {
                node.kill()?;
                node.start_again()?;
                acknowledged += worker.until_acknowledged(WRITES_AFTER, oracle)?;
                acknowledged += worker.finish(oracle)?;
            }
            Victim::Worker => acknowledged += worker.kill(oracle)?,
            Victim::Both => {
                worker.child.kill().context("kill the worker")?;
                node.kill()?;
                node.start_again()?;
                acknowledged += worker.kill(oracle)?;
            }
        }
        Ok(acknowledged)
    }
}

struct Worker {
    child: Child,
    reports: Receiver<Report>,
}

impl Worker {
    fn start(us: &Path, node: &Node, first_number: u64, random: u64) -> Result<Self> {
        let mut child = Command::new(us)
            .arg("work")
            .arg("--storaged")
            .arg(node.session_socket())
            .args(["--volume", VOLUME, "--random", &random.to_string()])
            .args(["--first-number", &first_number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a worker")?;
        let stdout = child.stdout.take().context("the worker's output")?;
        let (sender, reports) = sync_channel(REPORTS_WAITING_MAX);
        std::thread::spawn(move || {
            // Ends when the worker does, or when nobody listens any more.
            let _ = lines(stdout).try_for_each(|report| sender.send(report));
        });
        Ok(Self { child, reports })
    }

    fn until_verified(&mut self, oracle: &mut Oracle) -> Result<()> {
        while let Some(report) = self.next()? {
            if apply(report, oracle)? == Report::Verified {
                return Ok(());
            }
        }
        self.died()
    }

    /// Listens until so many more writes were acknowledged.
    fn until_acknowledged(&mut self, writes: u64, oracle: &mut Oracle) -> Result<u64> {
        let mut acknowledged = 0;
        while acknowledged < writes {
            let Some(report) = self.next()? else {
                return self.died();
            };
            acknowledged += u64::from(matches!(apply(report, oracle)?, Report::Acknowledged { .. }));
        }
        Ok(acknowledged)
    }

    /// Tells the worker to end, and listens until it has; it verifies everything once more.
    fn finish(mut self, oracle: &mut Oracle) -> Result<u64> {
        drop(self.child.stdin.take());
        let (acknowledged, verified) = self.until_ended(oracle)?;
        let status = self.child.wait().context("wait for the worker")?;
        ensure!(
            status.success() && verified,
            "the worker ended with {status}, verified: {verified}"
        );
        Ok(acknowledged)
    }

    /// Kills the worker, and hears what it said last.
    fn kill(mut self, oracle: &mut Oracle) -> Result<u64> {
        self.child.kill().context("kill the worker")?;
        let (acknowledged, _) = self.until_ended(oracle)?;
        self.child.wait().context("wait for the worker")?;
        oracle.worker_died();
        Ok(acknowledged)
    }

    fn until_ended(&mut self, oracle: &mut Oracle) -> Result<(u64, bool)> {
        let (mut acknowledged, mut verified) = (0, false);
        while let Some(report) = self.next()? {
            match apply(report, oracle)? {
                Report::Acknowledged { .. } => acknowledged += 1,
                Report::Verified => verified = true,
                _ => {}
            }
        }
        Ok((acknowledged, verified))
    }

    /// The next report; nothing when the worker ended.
    fn next(&mut self) -> Result<Option<Report>> {
        match self.reports.recv_timeout(SILENCE_MAX) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("I/O hangs: nothing was acknowledged for {SILENCE_MAX:?}")
            }
        }
    }

    fn died<T>(&mut self) -> Result<T> {
        let status = self.child.wait().context("wait for the worker")?;
        bail!("the worker ended with {status}, and nobody had killed it")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> impl Iterator<Item = Report> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.filter_map(|line| Report::read(&line))
}

/// Tells the oracle; an error if what was read is against the promises.
fn apply(report: Report, oracle: &mut Oracle) -> Result<Report> {
    match report {
        Report::Opened | Report::Verified => {}
        Report::Read { block, value } => oracle.read(block, value).map_err(anyhow::Error::msg)?,
        Report::Submitted {
            number,
            first,
            count,
            discards,
        } => {
            let value = if discards {
                Value::Zero
            } else {
                Value::Write(number)
            };
            oracle.submitted(number, first, count, value);
        }
        Report::Acknowledged { number } => oracle.acknowledged(number),
    }
    Ok(report)
}
