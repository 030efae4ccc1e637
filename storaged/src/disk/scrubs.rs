//! The scrubs of one disk: when the next step may be taken, so that guests come first, and what was found so far.
//!
//! What a step is, and what follows from what it finds, is `replication`'s business; when a scrub is due, and who
//! is told, the daemon's.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use protocol::BLOCK_SIZE;
use replication::replica::Event;
use replication::scrub::{Finding, Order, Progress};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::bookmark::{Bookmark, Mark};
use super::copies::Copies;
use super::driver::Driver;
use crate::moment::wall_clock_ms;

/// Scrubs of one disk at once; each goes on when those after it are done.
pub(super) const RUNS_MAX: usize = 8;
/// Findings that are kept until somebody fetches them; of more only the numbers are told.
const FINDINGS_MAX: usize = 1024;
/// How often a disk without a scrub looks whether somebody met something damaged.
const IDLE: Duration = Duration::from_secs(1);
/// Before something is looked at again: longer than a write of a healthy group is on its way.
const REST: Duration = Duration::from_millis(250);
/// A step that is not answered for so long is not waited for: it asks others, who answer in a tenth of it.
const STEP_LIMIT: Duration = Duration::from_secs(100);
/// The longest that guests' requests hold up the next step.
const COURTESY_MAX: Duration = Duration::from_millis(200);

/// What was found, in numbers. Grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects that were done with.
    pub objects: u64,
    /// Blocks that were read from the medium and compared with their checksums.
    pub blocks: u64,
    /// Damaged blocks that were stored again from other disks' copies.
    pub mended: u64,
    /// Damaged blocks that stay damaged.
    pub unmended: u64,
    /// Objects that another disk in sync has at another stamp.
    pub differing: u64,
    /// Objects that could not be looked at.
    pub skipped: u64,
}

/// How far a scrub is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether it has ended.
    pub done: bool,
    /// All that it found so far.
    pub totals: Totals,
    /// What it found since this was asked for last.
    pub findings: Vec<Finding>,
    /// Whether it goes on where one was that a restart cut short.
    pub resumed: bool,
}

/// A disk's scrubs.
#[derive(Debug)]
pub(super) struct Scrubs {
    next: u64,
    /// By number; 0 is for what others met as damaged.
    reports: BTreeMap<u64, Report>,
    totals: Totals,
    pace: Copies,
    /// Whether the step that was taken last wants some time to pass.
    rests: bool,
    /// How far deep scrubs of the whole disk are, which are `whole`.
    bookmark: Bookmark,
    whole: BTreeSet<u64>,
    /// Where the process before left off; the first of these goes on from there.
    left_off: Option<Mark>,
}

impl Totals {
    fn add(&mut self, progress: &Progress) {
        match progress {
            Progress::Step { objects, blocks } => {
                self.objects += objects;
                self.blocks += blocks;
            }
            Progress::Passed { objects, .. } => self.objects += objects,
            Progress::Skipped(_) => self.skipped += 1,
            Progress::Found(Finding::Mended { blocks, .. }) => self.mended += u64::from(blocks.count_ones()),
            Progress::Found(Finding::Unmended { blocks, .. }) => {
                self.unmended += u64::from(blocks.count_ones());
            }
            Progress::Found(Finding::Differs { .. } | Finding::ParityDiffers { .. }) => self.differing += 1,
            Progress::Rest | Progress::Done => {}
        }
    }
}

impl Scrubs {
    /// None yet; at most so many bytes a second are read from now on.
    pub(super) fn new(rate: u64, bookmark: Bookmark) -> Self {
        let left_off = bookmark.read(wall_clock_ms());
        Self {
            next: 1,
            reports: BTreeMap::from([(0, Report::default())]),
            totals: Totals::default(),
            pace: Copies::new(rate),
            rests: false,
            bookmark,
            whole: BTreeSet::new(),
            left_off,
        }
    }

    /// A number for one more, unless there are too many. The first deep one of the whole disk goes on where the process
    /// before left off.
    pub(super) fn begin(&mut self, order: &mut Order) -> Option<u64> {
        if self.reports.len() > RUNS_MAX {
            return None;
        }
        let run = self.next;
        self.next += 1;
        let mut report = Report::default();
        if order.deep && order.only.is_none() {
            self.whole.insert(run);
            if let Some(mark) = self.left_off.take() {
                order.read = Some(mark.column);
                report.totals = mark.totals();
                report.resumed = true;
            }
        }
        self.reports.insert(run, report);
        Some(run)
    }

    /// The disk is out of service: what ends now did not come to its end, and is taken up by the next process.
    pub(super) fn stops(&mut self, run: u64) {
        self.whole.remove(&run);
    }

    /// A step was taken.
    pub(super) fn take_in(&mut self, run: u64, progress: Progress, now: Instant) {
        self.totals.add(&progress);
        if let Progress::Step { blocks, .. } = &progress {
            self.pace.copied(blocks * u64::from(BLOCK_SIZE), now);
        }
        self.rests = progress == Progress::Rest;
        let Some(report) = self.reports.get_mut(&run) else {
            return;
        };
        report.totals.add(&progress);
        match progress {
            Progress::Passed { column, .. } if self.whole.contains(&run) => {
                let mark = Mark::new(column, &report.totals);
                self.bookmark.note(&mark, now, wall_clock_ms());
            }
            Progress::Done => {
                report.done = true;
                if self.whole.remove(&run) {
                    self.bookmark.remove();
                }
            }
            Progress::Found(finding) if report.findings.len() < FINDINGS_MAX => report.findings.push(finding),
            _ => {}
        }
    }

    /// How far a scrub is; nothing if there is none. One that is done is forgotten with this.
    pub(super) fn fetch(&mut self, run: u64) -> Option<Report> {
        let report = self.reports.get_mut(&run)?;
        let told = Report {
            findings: std::mem::take(&mut report.findings),
            ..report.clone()
        };
        if told.done {
            self.reports.remove(&run);
        }
        Some(told)
    }

    /// All that was found since the disk was started.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// How long to wait after a step that took so long. While guests ask for something, a scrub takes half of the
    /// time at most.
    fn pause(&self, took: Duration, guests: bool, now: Instant) -> Duration {
        if self.rests {
            return REST;
        }
        let courtesy = if guests {
            took.min(COURTESY_MAX)
        } else {
            Duration::ZERO
        };
        self.pace.pause(now).max(courtesy)
    }
}

/// Takes step after step, as long as there is one: run it as a task.
pub(super) async fn run(driver: Rc<Driver>, told: Rc<Notify>) {
    loop {
        if !driver.scrubs_now() {
            // Whether somebody ordered a scrub or it is time to look all the same.
            let _ = timeout(IDLE, told.notified()).await;
            continue;
        }
        let (began, requests) = (Instant::now(), driver.requests());
        driver.event(Event::ScrubStep);
        let _ = timeout(STEP_LIMIT, told.notified()).await;
        let guests = driver.requests() != requests;
        let pause = driver
            .scrubs
            .borrow()
            .pause(began.elapsed(), guests, Instant::now());
        sleep(pause).await;
    }
}

impl Driver {
    /// Begins a scrub; gives its number, or nothing if there are too many.
    pub(super) fn begin_scrub(&self, mut order: Order) -> Option<u64> {
        let run = self.scrubs.borrow_mut().begin(&mut order)?;
        self.event(Event::Scrub { run, order });
        self.scrubbed.notify_one();
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    //! What is told, and that guests come first.
    use std::path::Path;

    use protocol::{DiskId, FamilyId};

    use super::*;

    fn scrubs(rate: u64, directory: &Path) -> Scrubs {
        Scrubs::new(rate, Bookmark::of(directory, [1; 16], DiskId(1)))
    }

    fn nowhere(rate: u64) -> Scrubs {
        scrubs(rate, Path::new("/nowhere"))
    }

    #[test]
    fn a_scrub_that_is_done_is_told_of_once() {
        let (mut scrubs, now) = (nowhere(1 << 20), Instant::now());
        let run = scrubs.begin(&mut Order::default()).unwrap();
        let step = Progress::Step {
            objects: 2,
            blocks: 3,
        };
        scrubs.take_in(run, step, now);
        let report = scrubs.fetch(run).unwrap();
        assert_eq!(
            (report.done, report.totals.objects, report.totals.blocks),
            (false, 2, 3)
        );
        scrubs.take_in(run, Progress::Done, now);
        assert!(scrubs.fetch(run).unwrap().done);
        assert_eq!(scrubs.fetch(run), None);
        assert_eq!(scrubs.totals().blocks, 3);
    }

    #[test]
    fn too_many_scrubs_are_refused_until_one_is_done() {
        let mut scrubs = nowhere(1 << 20);
        let runs: Vec<u64> = std::iter::from_fn(|| scrubs.begin(&mut Order::default()))
            .take(100)
            .collect();
        assert_eq!(runs.len(), RUNS_MAX);
        scrubs.take_in(runs[0], Progress::Done, Instant::now());
        scrubs.fetch(runs[0]);
        assert!(scrubs.begin(&mut Order::default()).is_some());
    }

    #[test]
    fn the_rate_holds_and_guests_come_first() {
        let (mut scrubs, now) = (nowhere(4096), Instant::now());
        let took = Duration::from_millis(30);
        assert_eq!(scrubs.pause(took, false, now), Duration::ZERO);
        assert_eq!(scrubs.pause(took, true, now), took);
        let step = Progress::Step {
            objects: 0,
            blocks: 5,
        };
        scrubs.take_in(0, step, now);
        assert_eq!(scrubs.pause(took, true, now), Duration::from_secs(5));
        scrubs.take_in(0, Progress::Rest, now + Duration::from_mins(1));
        assert_eq!(scrubs.pause(took, false, now + Duration::from_mins(1)), REST);
    }

    #[test]
    fn a_deep_scrub_of_the_whole_disk_goes_on_after_a_restart_and_the_next_one_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let whole = Order {
            deep: true,
            ..Order::default()
        };
        let mut before = scrubs(1 << 20, directory.path());
        let run = before.begin(&mut whole.clone()).unwrap();
        let step = Progress::Step {
            objects: 0,
            blocks: 40,
        };
        before.take_in(run, step, Instant::now());
        let column = (FamilyId(2), 5);
        before.take_in(run, Progress::Passed { objects: 3, column }, Instant::now());
        drop(before);

        let mut after = scrubs(1 << 20, directory.path());
        // One that looks at stamps only, or at a part, leaves it to others.
        let mut light = Order::default();
        after.begin(&mut light).unwrap();
        assert_eq!(light.read, None);
        let mut first = whole.clone();
        let run = after.begin(&mut first).unwrap();
        assert_eq!(first.read, Some(column));
        let report = after.fetch(run).unwrap();
        assert_eq!(
            (report.resumed, report.totals.blocks, report.totals.objects),
            (true, 40, 0)
        );
        let mut second = whole.clone();
        after.begin(&mut second).unwrap();
        assert_eq!(second.read, None);
        after.take_in(run, Progress::Done, Instant::now());
        let mut next = whole;
        scrubs(1 << 20, directory.path()).begin(&mut next).unwrap();
        assert_eq!(next.read, None, "it came to its end");
    }
}
