//! `vhost-blk` is killed with SIGKILL, again and again, under a guest that writes and verifies; `storaged` now and
//! then as well. The guest must notice nothing but pauses.
//!
//! An emulated guest is so slow that its requests are answered before the next ones come. So in most rounds
//! `storaged` is stopped for a moment before the kill: requests pile up in `vhost-blk`, and those that it has sent
//! reach the disks after its death, while the next one takes the volume over.
//!
//! On the first disk fio writes and verifies with many requests under way. On the second is ext4 with an
//! `SQLite` database, each of whose transactions is durable before the next one begins.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use test_node::Node;

use super::Setting;
use super::device::fio_verify;
use crate::backend::Backend;
use crate::guest::{Disk, Guest};
use crate::patience::wait_for;

/// Kills in the short form, which every change must pass.
const KILLS_SHORT: u32 = 10;
/// One kill in so many takes `storaged` too.
const STORAGED_TOO: u32 = 12;
/// So many rounds of so many have a `storaged` that is stopped at the moment of the kill.
const SLOW: (u32, u32) = (3, 4);
/// The volumes, in the order of the guest's disks.
const VOLUMES: [&str; 2] = ["raw", "files"];
const QUEUES: usize = 2;
/// Requests that each disk must have had answered between two kills.
const REQUESTS_BETWEEN: u64 = 20;
/// The kill comes at any moment of so long a time after these.
const MOMENTS: Duration = Duration::from_millis(400);
/// How long anything may take that ought to happen at once.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at a log: what is measured is coarse by this much.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Lines of each log that a campaign that failed shows.
const LAST_WORDS: usize = 30;
/// How long a `vhost-blk` may wait for the former one's volume, in seconds.
const WAIT: u64 = 60;

/// What a campaign has seen.
#[derive(Debug, Default)]
pub struct Figures {
    kills: u32,
    storaged: u32,
    /// Kills that left requests in flight, and how many these were.
    with_requests: u32,
    requests: u64,
    /// From each kill of `vhost-blk` alone until the next one served, and had done again what was left.
    pauses: Vec<Duration>,
    rounds: u64,
    transactions: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pauses = self.pauses.clone();
        pauses.sort_unstable();
        let at = |part: usize| pauses.get((pauses.len().saturating_sub(1)) * part / 100).copied();
        write!(
            f,
            "{} kills of vhost-blk, {} of storaged; {} with requests in flight, {} requests in all; \
             from kill to service {} ms in the middle, {} ms at most; {} rounds of fio, {} transactions, \
             nothing lost or wrong",
            self.kills,
            self.storaged,
            self.with_requests,
            self.requests,
            at(50).unwrap_or_default().as_millis(),
            at(100).unwrap_or_default().as_millis(),
            self.rounds,
            self.transactions,
        )
    }
}

/// The short form.
pub(super) fn backend_killed(setting: &Setting) -> Result<()> {
    campaign(setting, KILLS_SHORT, 1).map(drop)
}

/// So many kills under one guest, and everything verified at the end.
pub fn campaign(setting: &Setting, kills: u32, seed: u64) -> Result<Figures> {
    let node = Node::start(3)?;
    let mut stage = Stage::set(setting, node, seed)?;
    let outcome = stage.perform(kills);
    if outcome.is_err() {
        println!("what was said is kept in {}", stage.node.keep().display());
        println!("the guest's kernel said: {}", stage.guest.kernel_log());
        if let Err(cause) = stage.print_last_words() {
            println!("and more cannot be found out: {cause:#}");
        }
    }
    outcome
}

struct Stage {
    node: Node,
    backends: [Option<Backend>; 2],
    guest: Guest,
    random: SmallRng,
    figures: Figures,
}

impl Stage {
    fn set(setting: &Setting, node: Node, seed: u64) -> Result<Self> {
        node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
        for volume in VOLUMES {
            node.storagectl(&["volume", "create", volume, "256M"])?;
        }
        let [raw, files] = VOLUMES.map(|volume| Backend::offer(&node, volume, volume, WAIT));
        let (raw, files) = (raw?, files?);
        let guest = setting.boot_with_fio(vec![Disk::at(raw.socket()), Disk::at(files.socket())])?;
        Ok(Self {
            node,
            backends: [Some(raw), Some(files)],
            guest,
            random: SmallRng::seed_from_u64(seed),
            figures: Figures::default(),
        })
    }

    fn perform(&mut self, kills: u32) -> Result<Figures> {
        self.begin_loads()?;
        while self.figures.kills < kills {
            self.await_progress()?;
            let slow = self.random.random_ratio(SLOW.0, SLOW.1);
            if slow {
                self.node.storaged().freeze()?;
            }
            self.await_moment();
            let storaged_too = self.random.random_ratio(1, STORAGED_TOO);
            let victims: &[usize] = [&[0][..], &[1], &[0, 1]][self.random.random_range(0..3)];
            self.kill(victims, storaged_too, slow)
                .with_context(|| format!("kill number {}", self.figures.kills + 1))?;
        }
        self.await_progress()?;
        self.end_loads()?;
        ensure!(
            self.figures.with_requests > 0,
            "no kill has met a request in flight: nothing was tried"
        );
        Ok(std::mem::take(&mut self.figures))
    }

    fn begin_loads(&mut self) -> Result<()> {
        let fio = fio_verify("/dev/vda", 12);
        self.guest.run(&format!(
            "(n=0; while test ! -f /tmp/stop; do {fio} > /tmp/fio 2>&1 || {{ touch /tmp/fio-bad; break; }}; \
             n=$((n + 1)); echo $n > /tmp/rounds; done; touch /tmp/fio-end) > /dev/null 2>&1 &"
        ))?;
        self.guest.run("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt")?;
        self.guest.run(
            "sqlite3 /mnt/db 'CREATE TABLE entry (n INTEGER PRIMARY KEY, noise BLOB); \
             CREATE TABLE total (sum INTEGER); INSERT INTO total VALUES (0);'",
        )?;
        // The pipe is full most of the time, so the statements that are still in it at the end are few.
        self.guest.run(
            "(n=0; while test ! -f /tmp/stop; do n=$((n + 1)); echo \"BEGIN; INSERT INTO entry VALUES ($n, \
             randomblob(abs(random() % 9000))); UPDATE total SET sum = sum + $n; COMMIT; -- $(printf %0900d 0)\"; done \
             | sqlite3 -bail /mnt/db > /tmp/sql 2>&1 || touch /tmp/sql-bad; touch /tmp/sql-end) > /dev/null 2>&1 &",
        )?;
        Ok(())
    }

    /// Waits until the guest has had requests of both disks answered, or a load has ended.
    fn await_progress(&mut self) -> Result<()> {
        let before = self.answered()?;
        wait_for("requests of the guest to be answered", PATIENCE, || {
            let ended = self
                .guest
                .try_run("cat /tmp/fio /tmp/sql; test ! -f /tmp/fio-end -a ! -f /tmp/sql-end")?;
            ensure!(ended.status == 0, "a load has ended: {}", ended.text);
            let now = self.answered()?;
            let both = before
                .iter()
                .zip(now)
                .all(|(before, now)| now >= before + REQUESTS_BETWEEN);
            Ok(both.then_some(()))
        })
    }

    /// Reads and writes of each disk that were answered.
    fn answered(&mut self) -> Result<[u64; 2]> {
        let text = self.guest.run("cat /sys/block/vda/stat /sys/block/vdb/stat")?;
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).map(|line| {
            let numbers: Vec<u64> = line
                .split_whitespace()
                .map_while(|field| field.parse().ok())
                .collect();
            numbers.first().copied().unwrap_or(0) + numbers.get(4).copied().unwrap_or(0)
        });
        Ok([lines.next().unwrap_or(0), lines.next().unwrap_or(0)])
    }

    /// Any moment will do, so one is drawn.
    fn await_moment(&mut self) {
        let deadline = Instant::now() + MOMENTS.mul_f64(self.random.random());
        while Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now())));
        }
    }

    fn kill(&mut self, victims: &[usize], storaged_too: bool, slow: bool) -> Result<()> {
        let logs = VOLUMES.map(|volume| self.socket(volume));
        let said = |victim: usize| Ok::<_, anyhow::Error>(Backend::log(&logs[victim])?.len());
        let before = [said(0)?, said(1)?];
        let began = Instant::now();
        // In either order: a process that dies after `storaged` may not have found the new one yet.
        let storaged_first = storaged_too && self.random.random();
        if storaged_first {
            self.restart_storaged()?;
        }
        for victim in victims {
            self.backends[*victim].take().context("a back end runs")?.kill()?;
        }
        if slow && !storaged_too {
            self.node.storaged().thaw()?;
        }
        if storaged_too && !storaged_first {
            self.restart_storaged()?;
        }
        for victim in victims {
            let volume = VOLUMES[*victim];
            self.backends[*victim] = Some(Backend::offer(&self.node, volume, volume, WAIT)?);
        }
        for victim in victims {
            let left = await_service(&logs[*victim], before[*victim])?;
            self.figures.kills += 1;
            self.figures.requests += left;
            self.figures.with_requests += u32::from(left > 0);
        }
        if !storaged_too {
            self.figures.pauses.push(began.elapsed());
        }
        Ok(())
    }

    fn restart_storaged(&mut self) -> Result<()> {
        self.figures.storaged += 1;
        self.node.kill()?;
        self.node.start_again()
    }

    /// The folder does not outlive a machine of CI.
    fn print_last_words(&mut self) -> Result<()> {
        for volume in VOLUMES {
            let log = Backend::log(&self.socket(volume))?;
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            println!("the last that vhost-blk said of {volume}:\n{}", last.join("\n"));
        }
        let now = self.guest.try_run("ps; cat /proc/locks; ls -l /mnt /tmp")?;
        println!("in the guest there are:\n{}", now.text);
        Ok(())
    }

    fn socket(&self, volume: &str) -> PathBuf {
        self.node.folder().join(format!("{volume}.vhost"))
    }

    fn end_loads(&mut self) -> Result<()> {
        self.guest.run("touch /tmp/stop")?;
        wait_for("the loads to end", PATIENCE * 3, || {
            let ended = self.guest.try_run("test -f /tmp/fio-end -a -f /tmp/sql-end")?;
            Ok((ended.status == 0).then_some(()))
        })?;
        self.guest
            .run("cat /tmp/fio /tmp/sql; test ! -f /tmp/fio-bad -a ! -f /tmp/sql-bad")?;
        let number = |text: String| text.trim().parse().unwrap_or(0);
        self.figures.rounds = number(self.guest.try_run("cat /tmp/rounds")?.text);
        self.figures.transactions = number(self.guest.run("sqlite3 /mnt/db 'SELECT count(*) FROM entry'")?);
        // Not from the page cache: what the disk has.
        self.guest.run(
            "umount /mnt && e2fsck -fn /dev/vdb && echo 3 > /proc/sys/vm/drop_caches && mount /dev/vdb /mnt",
        )?;
        let verdict = self.guest.run(
            "sqlite3 /mnt/db 'PRAGMA integrity_check; SELECT count(*) = max(n), sum(n) = (SELECT sum FROM total) FROM entry'",
        )?;
        let words: Vec<&str> = verdict.split_whitespace().collect();
        ensure!(
            words == ["ok", "1|1"],
            "the database is not what was committed: {verdict}"
        );
        ensure!(self.figures.transactions > 0, "nothing was committed");
        let log = self.guest.kernel_log();
        for bad in ["I/O error", "EXT4-fs error", "EXT4-fs warning", "timed out"] {
            ensure!(!log.contains(bad), "the guest has seen errors: {log}");
        }
        Ok(())
    }
}

/// Waits until all rings run and what was left of them is answered; how many requests that were.
fn await_service(socket: &std::path::Path, after: usize) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = Backend::log(socket)?;
        let new = log.get(after..).unwrap_or_default();
        let left: Vec<u64> = new.lines().filter_map(left_of_ring).collect();
        let requests = left.iter().sum();
        if left.len() >= QUEUES && (requests == 0 || new.contains("has left is answered")) {
            return Ok(requests);
        }
        ensure!(
            Instant::now() < deadline,
            "the new vhost-blk does not serve: {new}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How many requests a line says that were left of a ring, if it says that a ring runs.
fn left_of_ring(line: &str) -> Option<u64> {
    let (_, fields) = line.split_once("running;")?;
    fields
        .split_once("left=")?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    //! The oracle reads a log: it must not read past it.
    use super::left_of_ring;

    #[test]
    fn what_was_left_is_read_from_the_line_that_says_so() {
        let line = "2026 INFO vhost_blk::session: running; what a former process has left comes first ring=1 left=12";
        assert_eq!(left_of_ring(line), Some(12));
        assert_eq!(
            left_of_ring("all that a former process has left is answered"),
            None
        );
    }
}
