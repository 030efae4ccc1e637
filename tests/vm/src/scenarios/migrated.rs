//! A guest moves from one QEMU to another while it writes and verifies: each QEMU has a `vhost-blk` of its own, both
//! of one volume. Some moves are called off half-way, some lose their target. The guest must notice nothing.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use test_node::Node;

use super::Setting;
use super::device::fio_verify;
use crate::backend::Backend;
use crate::guest::{Disk, Guest, Load, Machine, Options};
use crate::patience::wait_for;

/// Moves in the short form, which every change must pass: one of each kind at least.
const MOVES_SHORT: u32 = 3;
/// How long anything may take that ought to happen at once.
const PATIENCE: Duration = Duration::from_mins(3);
/// How fast a guest moves, in bytes a second: as fast as it can; and so slowly that there is time to call it off.
const FAST: u64 = 1 << 30;
const SLOW: u64 = 16 << 20;
/// Requests that must have been answered between two moves.
const REQUESTS_BETWEEN: u64 = 20;
/// The migration's stage in which the guest stands still, all of it copied, and the target does not run yet.
const STANDS_STILL: &str = "pre-switchover";

/// How a move ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Through,
    /// Called off while memory is copied.
    CalledOff,
    /// Called off while the guest stands still.
    CalledOffAtTheEnd,
    /// QEMU and its back end are killed at the target while memory is copied.
    TargetKilled,
    /// The same while the guest stands still.
    TargetKilledAtTheEnd,
}

const KINDS: [Kind; 5] = [
    Kind::CalledOffAtTheEnd,
    Kind::Through,
    Kind::TargetKilledAtTheEnd,
    Kind::CalledOff,
    Kind::TargetKilled,
];

/// What a campaign has seen.
#[derive(Debug, Default)]
pub struct Figures {
    through: u32,
    called_off: u32,
    target_killed: u32,
    /// What QEMU says that the guest stood still for, for each move that went through.
    pauses: Vec<u64>,
    rounds: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pauses = self.pauses.clone();
        pauses.sort_unstable();
        let middle = pauses.get(pauses.len() / 2).copied().unwrap_or_default();
        let longest = pauses.last().copied().unwrap_or_default();
        write!(
            f,
            "{} moves went through, {} were called off, {} lost their target; the guest stood still for {middle} ms in \
             the middle, {longest} ms at most; {} rounds of fio, nothing lost or wrong",
            self.through, self.called_off, self.target_killed, self.rounds
        )
    }
}

/// The short form.
pub(super) fn guest_migrated(setting: &Setting) -> Result<()> {
    campaign(setting, MOVES_SHORT, 1).map(drop)
}

/// So many moves that go through, and others between them; everything verified at the end.
pub fn campaign(setting: &Setting, moves: u32, seed: u64) -> Result<Figures> {
    let node = Node::start(3)?;
    let mut stage = Stage::set(setting, node, seed)?;
    let outcome = stage.perform(moves);
    if outcome.is_err() {
        println!("what was said is kept in {}", stage.node.keep().display());
        println!("the guest's kernel said: {}", stage.guest.kernel_log());
    }
    outcome
}

struct Stage<'a> {
    setting: &'a Setting,
    node: Node,
    backend: Backend,
    guest: Guest,
    random: SmallRng,
    /// Numbers back ends, so that each has a socket of its own.
    count: u32,
    figures: Figures,
}

impl<'a> Stage<'a> {
    fn set(setting: &'a Setting, node: Node, seed: u64) -> Result<Self> {
        node.storagectl(&["pool", "create", "main", "--copies", "3"])?;
        node.storagectl(&["volume", "create", "disk", "256M"])?;
        let backend = Backend::offer(&node, "disk", "disk0", 0)?;
        let guest = setting.boot_with_fio(vec![Disk::at(backend.socket())])?;
        Ok(Self {
            setting,
            node,
            backend,
            guest,
            random: SmallRng::seed_from_u64(seed),
            count: 0,
            figures: Figures::default(),
        })
    }

    fn perform(&mut self, moves: u32) -> Result<Figures> {
        let fio = fio_verify("/dev/vda", 12);
        self.guest.run(&format!(
            "(n=0; while test ! -f /tmp/stop; do {fio} > /tmp/fio 2>&1 || {{ touch /tmp/fio-bad; break; }}; \
             n=$((n + 1)); echo $n > /tmp/rounds; done; touch /tmp/fio-end) > /dev/null 2>&1 &"
        ))?;
        let mut first = KINDS.into_iter();
        while self.figures.through < moves {
            self.await_progress()?;
            // One of each kind, then whatever comes.
            let drawn = self.random.random_range(0..KINDS.len() + 3);
            let kind = first
                .next()
                .or(KINDS.get(drawn).copied())
                .unwrap_or(Kind::Through);
            let context = format!("move {kind:?}, number {}", self.count + 1);
            self.migrate(kind).context(context)?;
        }
        self.await_progress()?;
        self.end_load()?;
        Ok(std::mem::take(&mut self.figures))
    }

    /// Waits until the guest has had requests answered, where it runs now.
    fn await_progress(&mut self) -> Result<()> {
        let before = self.answered()?;
        wait_for("requests of the guest to be answered", PATIENCE, || {
            let ended = self.guest.try_run("cat /tmp/fio; test ! -f /tmp/fio-end")?;
            ensure!(ended.status == 0, "the load has ended: {}", ended.text);
            Ok((self.answered()? >= before + REQUESTS_BETWEEN).then_some(()))
        })
    }

    /// Reads and writes of the disk that were answered.
    fn answered(&mut self) -> Result<u64> {
        let text = self.guest.run("cat /sys/block/vda/stat")?;
        let fields: Vec<u64> = text
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .collect();
        Ok(fields.first().copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0))
    }

    fn end_load(&mut self) -> Result<()> {
        self.guest.run("touch /tmp/stop")?;
        wait_for("the load to end", PATIENCE * 3, || {
            Ok((self.guest.try_run("test -f /tmp/fio-end")?.status == 0).then_some(()))
        })?;
        self.guest.run("cat /tmp/fio; test ! -f /tmp/fio-bad")?;
        let rounds = self.guest.try_run("cat /tmp/rounds")?.text;
        self.figures.rounds = rounds.trim().parse().unwrap_or(0);
        ensure!(self.figures.rounds > 0, "fio has not come round once");
        let log = self.guest.kernel_log();
        for bad in ["I/O error", "timed out"] {
            ensure!(!log.contains(bad), "the guest has seen errors: {log}");
        }
        Ok(())
    }

    fn migrate(&mut self, kind: Kind) -> Result<()> {
        self.count += 1;
        let name = format!("disk{}", self.count);
        let backend = Backend::await_guest(&self.node, "disk", &name)?;
        let door = self.node.folder().join(format!("{name}.move"));
        let options = Options {
            disks: vec![Disk::at(backend.socket())],
            load: Load::Fio,
            starts_from: None,
            read_only_disk: None,
            accelerator: self.setting.accelerator,
        };
        let besides = ["-incoming".to_owned(), format!("unix:{}", door.display())];
        let (machine, console) = Machine::start(&self.setting.image, &options, &besides, PATIENCE)?;
        wait_for("QEMU to await the guest", PATIENCE, || {
            Ok(door.exists().then_some(()))
        })?;
        let at_the_end = matches!(kind, Kind::CalledOffAtTheEnd | Kind::TargetKilledAtTheEnd);
        let speed = if matches!(kind, Kind::CalledOff | Kind::TargetKilled) {
            SLOW
        } else {
            FAST
        };
        self.begin(&door, speed, at_the_end)?;
        let awaited = match kind {
            Kind::Through => "completed",
            _ if at_the_end => STANDS_STILL,
            _ => "active",
        };
        self.await_status(&[awaited])?;
        match kind {
            Kind::Through => {
                await_arrival(&machine)?;
                self.guest.has_moved(machine, console)?;
                std::mem::replace(&mut self.backend, backend).stop()?;
                self.figures.through += 1;
            }
            Kind::CalledOff | Kind::CalledOffAtTheEnd => {
                self.guest.monitor()?.execute("migrate_cancel", &json!({}))?;
                self.await_status(&["cancelled"])?;
                self.figures.called_off += 1;
            }
            Kind::TargetKilled | Kind::TargetKilledAtTheEnd => {
                drop(machine);
                backend.kill()?;
                if at_the_end {
                    self.guest
                        .monitor()?
                        .execute("migrate-continue", &json!({ "state": STANDS_STILL }))?;
                }
                self.await_status(&["failed"])?;
                self.figures.target_killed += 1;
            }
        }
        self.await_running()
    }

    fn begin(&self, door: &std::path::Path, speed: u64, stop_at_the_end: bool) -> Result<()> {
        let mut monitor = self.guest.monitor()?;
        let capability = json!({ "capability": "pause-before-switchover", "state": stop_at_the_end });
        monitor.execute(
            "migrate-set-capabilities",
            &json!({ "capabilities": [capability] }),
        )?;
        monitor.execute("migrate-set-parameters", &json!({ "max-bandwidth": speed }))?;
        monitor.execute("migrate", &json!({ "uri": format!("unix:{}", door.display()) }))?;
        Ok(())
    }

    /// Waits until the migration is at one of these stages, of those that QEMU names.
    fn await_status(&mut self, wanted: &[&str]) -> Result<()> {
        let mut monitor = self.guest.monitor()?;
        let ends = ["completed", "failed", "cancelled"];
        let began = Instant::now();
        wait_for("the migration", PATIENCE, || {
            let answer = monitor.execute("query-migrate", &json!({}))?;
            let status = answer
                .get("status")
                .and_then(|status| status.as_str())
                .unwrap_or_default();
            if wanted.contains(&status) {
                if let Some(pause) = answer.get("downtime").and_then(serde_json::Value::as_u64) {
                    self.figures.pauses.push(pause);
                }
                return Ok(Some(()));
            }
            // The stage of the former move may be shown for a moment.
            let over = ends.contains(&status) && began.elapsed() > PATIENCE / 10;
            if over {
                bail!("the migration is {status}, not {wanted:?}: {answer}");
            }
            Ok(None)
        })
    }

    /// A guest whose move failed at the very end may have been left standing: then it is let go on, as an operator or
    /// libvirt does.
    fn await_running(&self) -> Result<()> {
        let mut monitor = self.guest.monitor()?;
        wait_for("the guest to run on", PATIENCE, || {
            let answer = monitor.execute("query-status", &json!({}))?;
            match answer.get("status").and_then(|status| status.as_str()) {
                Some("running") => Ok(Some(())),
                Some("postmigrate" | "paused") => monitor.execute("cont", &json!({})).map(|_| None),
                _ => Ok(None),
            }
        })
    }
}

fn await_arrival(machine: &Machine) -> Result<()> {
    let mut monitor = machine.monitor()?;
    wait_for("the guest to run at the target", PATIENCE, || {
        let answer = monitor.execute("query-status", &json!({}))?;
        Ok((answer.get("status").and_then(|status| status.as_str()) == Some("running")).then_some(()))
    })
}
