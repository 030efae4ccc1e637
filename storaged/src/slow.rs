//! Which disk of a node is much slower than its peers: a decision over windows of time, from figures that are
//! handed in.
//!
//! What is compared is the medium: its log writes with their flushes, and its reads. Requests of owners also wait
//! for the log's turn, and for memory, which says nothing about a disk. A disk that is slow is told of; whether one
//! that is very slow leaves its groups is a matter of the [`Policy`]. Nothing here reads a clock or does I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use protocol::DiskId;
use telemetry::Latencies;

use crate::disk::Entries;

pub mod exile;
mod known;

pub use known::Known;

/// Operations of a disk in a window without which nothing is said of it: the slowest of a hundred means something
/// only if there are some.
pub const REQUESTS_MIN: u64 = 20;
/// A disk is slow in a window if the slowest of a hundred operations takes more than so many times as long as on
/// its peers. Disks of one kind differ by less than two; a dying one is hundreds of times slower.
pub const FACTOR: u32 = 10;
/// What takes less is fast enough, whatever the peers do: a rotating disk that works well stays below.
pub const FLOOR: Duration = Duration::from_millis(20);
/// A disk is told of as well if half of its operations take so long, and the policy's factor longer than its peers':
/// that happens to none that works well, however fast its peers are.
pub const MEDIAN_FLOOR: Duration = Duration::from_millis(2);
/// So many windows one after the other must be slow before a disk is told of: a checkpoint or a neighbour's burst
/// is over by then.
pub const WINDOWS_TO_TELL: u32 = 3;
/// So many windows one after the other it must be very slow before it leaves its groups.
pub const WINDOWS_TO_EVICT: u32 = 6;
/// So many windows one after the other must not be slow before it is thought to be well again.
pub const WINDOWS_TO_FORGET: u32 = 3;
/// The medium's operations that are compared.
const OPERATIONS: [&str; 2] = ["log", "read"];

/// What is done about slow disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether a disk that is very slow leaves its groups, where it can be spared.
    pub evict: bool,
    /// Very slow is a disk half of whose operations take more than so many times as long as on its peers,
    pub factor: u32,
    /// and so long or longer,
    pub at_least: Duration,
    /// for so long.
    pub after: Duration,
}

impl Policy {
    /// How long a window is.
    pub fn window(&self) -> Duration {
        self.after / WINDOWS_TO_EVICT
    }
}

/// What a disk's medium did in a window, of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The kind of operation.
    pub operation: &'static str,
    /// How many.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// All but one in a hundred took no longer.
    pub p99: Duration,
}

/// Makes windows of figures that only grow.
#[derive(Debug, Default)]
pub struct Windows {
    before: BTreeMap<DiskId, Vec<(&'static str, Latencies)>>,
}

impl Windows {
    /// Ends a window: what came since the former one ended. Disks that are left out are forgotten.
    pub fn close(&mut self, media: BTreeMap<DiskId, Entries>) -> BTreeMap<DiskId, Vec<Window>> {
        let mut before = BTreeMap::new();
        let mut windows = BTreeMap::new();
        for (disk, entries) in media {
            let former = self.before.remove(&disk).unwrap_or_default();
            let now: Vec<_> = entries
                .into_iter()
                .filter(|(operation, _)| OPERATIONS.contains(operation))
                .map(|(operation, figures)| (operation, figures.latency))
                .collect();
            let window = |&(operation, ref times): &(&'static str, Latencies)| {
                let earlier = former.iter().find(|(name, _)| *name == operation);
                let new = earlier.map_or_else(|| times.clone(), |(_, earlier)| times.since(earlier));
                Window {
                    operation,
                    count: new.count(),
                    p50: new.quantile(0.5),
                    p99: new.quantile(0.99),
                }
            };
            windows.insert(disk, now.iter().map(window).collect());
            before.insert(disk, now);
        }
        self.before = before;
        windows
    }
}

/// Why a disk is thought to be slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slowness {
    operation: &'static str,
    /// Of which operations: the slowest in a hundred, or half of all.
    which: &'static str,
    time: Duration,
    peers: Duration,
    /// For how long at least.
    span: Duration,
    /// Whether it is more than guests should have to bear.
    grave: bool,
}

impl fmt::Display for Slowness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            "log" => "log writes",
            _ => "reads",
        };
        let (time, peers) = (self.time.as_secs_f64() * 1e3, self.peers.as_secs_f64() * 1e3);
        let (which, seconds) = (self.which, self.span.as_secs());
        write!(
            f,
            "{which} of its {operation} take {time:.1} ms, on its peers {peers:.1} ms, for {seconds} s or longer"
        )
    }
}

/// What has changed with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is slow, and was not before.
    Slow(Slowness),
    /// It is as fast as its peers again.
    Well,
}

/// Remembers how disks did.
#[derive(Debug)]
pub struct Judge {
    policy: Policy,
    disks: BTreeMap<DiskId, Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Slow windows since the last one that was not.
    slow_windows: u32,
    /// Very slow ones since the last one that was not.
    grave_windows: u32,
    /// Since the last one that was slow.
    good_windows: u32,
    told: bool,
    last: Option<Slowness>,
}

impl Judge {
    /// Knows of no disk yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            disks: BTreeMap::new(),
        }
    }

    /// Looks at a window of all disks. Disks that are left out are forgotten; of those that did little in it,
    /// nothing new is thought.
    pub fn judge(&mut self, window: &BTreeMap<DiskId, Vec<Window>>) -> Vec<(DiskId, Verdict)> {
        self.disks.retain(|disk, _| window.contains_key(disk));
        let mut verdicts = Vec::new();
        for disk in window.keys() {
            let record = self.disks.entry(*disk).or_default();
            if let Some(verdict) = record.take(compare(*disk, window, &self.policy)) {
                verdicts.push((*disk, verdict));
            }
        }
        verdicts
    }

    /// The disks that have been very slow for as long as the policy says, and why. Nothing if it says that none is
    /// to leave.
    pub fn unbearable(&self) -> Vec<(DiskId, Slowness)> {
        let long = |record: &&Record| self.policy.evict && record.grave_windows >= WINDOWS_TO_EVICT;
        let disks = self.disks.iter().map(|(disk, record)| (*disk, record));
        let grave = disks.filter(|(_, record)| long(record));
        grave
            .filter_map(|(disk, record)| {
                let span = self.policy.after;
                Some((
                    disk,
                    Slowness {
                        span,
                        ..record.last.clone()?
                    },
                ))
            })
            .collect()
    }

    /// A disk is being put out for what was seen of it so far. That is spent: when it comes back, after its pause or
    /// because somebody trusts it, it leaves again only for what it does from then on.
    pub fn put_out(&mut self, disk: DiskId) {
        if let Some(record) = self.disks.get_mut(&disk) {
            record.grave_windows = 0;
        }
    }
}

impl Record {
    fn take(&mut self, pace: Pace) -> Option<Verdict> {
        match pace {
            Pace::Unknown => None,
            Pace::Slow(slowness) => {
                self.good_windows = 0;
                self.slow_windows = self.slow_windows.saturating_add(1);
                self.grave_windows = if slowness.grave {
                    self.grave_windows.saturating_add(1)
                } else {
                    0
                };
                self.last = Some(slowness.clone());
                let tell = !self.told && self.slow_windows >= WINDOWS_TO_TELL;
                self.told |= tell;
                tell.then_some(Verdict::Slow(slowness))
            }
            Pace::Good => {
                self.slow_windows = 0;
                self.grave_windows = 0;
                self.good_windows = self.good_windows.saturating_add(1);
                let well = self.told && self.good_windows >= WINDOWS_TO_FORGET;
                self.told &= !well;
                well.then_some(Verdict::Well)
            }
        }
    }
}

/// How a disk did in a window.
enum Pace {
    /// It did little, or all others did.
    Unknown,
    Good,
    Slow(Slowness),
}

/// How a disk did in a window, against the others.
fn compare(disk: DiskId, window: &BTreeMap<DiskId, Vec<Window>>, policy: &Policy) -> Pace {
    let busy = |id: &DiskId, operation| {
        let found = window
            .get(id)?
            .iter()
            .find(|found| found.operation == operation)?;
        (found.count >= REQUESTS_MIN).then_some((found.p50, found.p99))
    };
    let mut pace = Pace::Unknown;
    for operation in OPERATIONS {
        let Some((p50, p99)) = busy(&disk, operation) else {
            continue;
        };
        let others = || window.keys().filter(|id| **id != disk);
        let peers = |which: fn((Duration, Duration)) -> Duration| {
            middle(others().filter_map(|id| busy(id, operation)).map(which).collect())
        };
        let (Some(peers_p50), Some(peers_p99)) = (peers(|(p50, _)| p50), peers(|(_, p99)| p99)) else {
            continue;
        };
        let far = p50 >= MEDIAN_FLOOR && p50 > peers_p50 * policy.factor;
        let slowness = |which, time, peers, grave| {
            Pace::Slow(Slowness {
                operation,
                which,
                time,
                peers,
                span: policy.window() * WINDOWS_TO_TELL,
                grave,
            })
        };
        if far {
            return slowness("half", p50, peers_p50, p50 >= policy.at_least);
        }
        if p99 >= FLOOR && p99 > peers_p99 * FACTOR {
            return slowness("the slowest in a hundred", p99, peers_p99, false);
        }
        pace = Pace::Good;
    }
    pace
}

/// The middle one; of two in the middle the slower, which accuses later.
fn middle(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    //! One disk far behind for long enough is told of, once, and nobody else is; it is forgiven as slowly.
    use super::*;

    const FAST: u64 = 2;
    const SLOW: u64 = 90;
    const GRAVE: u64 = 200;
    const POLICY: Policy = Policy {
        evict: true,
        factor: 50,
        at_least: Duration::from_millis(20),
        after: Duration::from_mins(1),
    };

    /// A window in which disks 1, 2, ... took so many milliseconds each, with enough log writes.
    fn window(p99_ms: &[u64]) -> BTreeMap<DiskId, Vec<Window>> {
        with_count(p99_ms, REQUESTS_MIN)
    }

    fn with_count(p99_ms: &[u64], count: u64) -> BTreeMap<DiskId, Vec<Window>> {
        let one = |p99_ms: &u64| {
            vec![Window {
                operation: "log",
                count,
                p50: Duration::from_millis(*p99_ms),
                p99: Duration::from_millis(*p99_ms),
            }]
        };
        (1..).map(DiskId).zip(p99_ms.iter().map(one)).collect()
    }

    fn after(judge: &mut Judge, windows: u32, p99_ms: &[u64]) -> Vec<(DiskId, Verdict)> {
        (0..windows).flat_map(|_| judge.judge(&window(p99_ms))).collect()
    }

    #[test]
    fn a_disk_far_behind_its_peers_is_told_of_once_and_only_after_some_windows() {
        let mut judge = Judge::new(POLICY);
        assert_eq!(after(&mut judge, WINDOWS_TO_TELL - 1, &[FAST, SLOW, FAST]), []);
        let told = after(&mut judge, 5, &[FAST, SLOW, FAST]);
        let [(DiskId(2), Verdict::Slow(slowness))] = &told[..] else {
            panic!("{told:?}");
        };
        let sentence = slowness.to_string();
        assert!(
            sentence.contains(
                "the slowest in a hundred of its log writes take 90.0 ms, on its peers 2.0 ms, for 30 s"
            ),
            "{sentence}"
        );
    }

    #[test]
    fn a_single_good_window_begins_the_count_anew() {
        let mut judge = Judge::new(POLICY);
        for _ in 0..5 {
            assert_eq!(after(&mut judge, WINDOWS_TO_TELL - 1, &[FAST, SLOW]), []);
            assert_eq!(after(&mut judge, 1, &[FAST, FAST]), []);
        }
    }

    #[test]
    fn it_is_well_again_after_as_many_good_windows() {
        let mut judge = Judge::new(POLICY);
        assert_eq!(after(&mut judge, WINDOWS_TO_TELL, &[FAST, SLOW]).len(), 1);
        assert_eq!(after(&mut judge, WINDOWS_TO_FORGET - 1, &[FAST, FAST]), []);
        assert_eq!(after(&mut judge, 1, &[FAST, SLOW]), [], "it is known already");
        assert_eq!(
            after(&mut judge, WINDOWS_TO_FORGET, &[FAST, FAST]),
            [(DiskId(2), Verdict::Well)]
        );
    }

    #[test]
    fn disks_that_are_all_slow_or_fast_enough_or_without_peers_are_not_told_of() {
        for p99_ms in [&[SLOW, SLOW, SLOW][..], &[1, 15, 1], &[SLOW], &[SLOW, SLOW, 30]] {
            assert_eq!(after(&mut Judge::new(POLICY), 9, p99_ms), [], "{p99_ms:?}");
        }
    }

    #[test]
    fn of_a_disk_that_does_little_nothing_new_is_thought() {
        let mut judge = Judge::new(POLICY);
        assert_eq!(after(&mut judge, WINDOWS_TO_TELL, &[FAST, SLOW]).len(), 1);
        for _ in 0..9 {
            assert_eq!(judge.judge(&with_count(&[FAST, FAST], REQUESTS_MIN - 1)), []);
        }
        assert_eq!(after(&mut judge, WINDOWS_TO_FORGET, &[FAST, FAST]).len(), 1);
    }

    #[test]
    fn slow_reads_are_not_outweighed_by_fast_log_writes() {
        let mut window = window(&[FAST, FAST]);
        for (disk, p99_ms) in [(DiskId(1), FAST), (DiskId(2), SLOW)] {
            window.get_mut(&disk).unwrap().push(Window {
                operation: "read",
                count: REQUESTS_MIN,
                p50: Duration::from_millis(FAST),
                p99: Duration::from_millis(p99_ms),
            });
        }
        let mut judge = Judge::new(POLICY);
        let told: Vec<_> = (0..WINDOWS_TO_TELL).flat_map(|_| judge.judge(&window)).collect();
        assert!(matches!(&told[..], [(DiskId(2), Verdict::Slow(_))]), "{told:?}");
    }

    #[test]
    fn a_disk_that_was_put_out_is_not_put_out_again_for_what_it_did_before() {
        // Found by CI: a disk that was trusted again was taken out again at once. A disk that is out does little, so
        // that nothing new was thought of it, and what was thought before put it out for ever.
        let mut judge = Judge::new(POLICY);
        after(&mut judge, WINDOWS_TO_EVICT, &[FAST, GRAVE, FAST]);
        assert_eq!(judge.unbearable().len(), 1);
        judge.put_out(DiskId(2));
        judge.judge(&with_count(&[FAST, GRAVE, FAST], REQUESTS_MIN - 1));
        assert_eq!(judge.unbearable(), []);
        after(&mut judge, WINDOWS_TO_EVICT - 1, &[FAST, GRAVE, FAST]);
        assert_eq!(judge.unbearable(), []);
        after(&mut judge, 1, &[FAST, GRAVE, FAST]);
        assert_eq!(judge.unbearable().len(), 1, "it is as slow as before");
    }

    #[test]
    fn a_disk_is_unbearable_when_half_of_all_takes_far_longer_for_as_long_as_the_policy_says() {
        let mut judge = Judge::new(POLICY);
        after(&mut judge, WINDOWS_TO_EVICT - 1, &[FAST, GRAVE, FAST]);
        assert_eq!(judge.unbearable(), []);
        after(&mut judge, 1, &[FAST, GRAVE, FAST]);
        let found = judge.unbearable();
        let [(DiskId(2), slowness)] = &found[..] else {
            panic!("{found:?}");
        };
        let sentence = slowness.to_string();
        assert_eq!(
            sentence,
            "half of its log writes take 200.0 ms, on its peers 2.0 ms, for 60 s or longer"
        );
        after(&mut judge, 1, &[FAST, SLOW, FAST]);
        assert_eq!(judge.unbearable(), [], "it is bearable now");
    }

    #[test]
    fn a_disk_a_hundred_times_slower_than_very_fast_peers_is_told_of_but_need_not_leave() {
        let at = |time_us: u64| Window {
            operation: "log",
            count: REQUESTS_MIN,
            p50: Duration::from_micros(time_us),
            p99: Duration::from_micros(time_us),
        };
        let window = BTreeMap::from([(DiskId(1), vec![at(50)]), (DiskId(2), vec![at(5_000)])]);
        let mut judge = Judge::new(POLICY);
        let told: Vec<_> = (0..9).flat_map(|_| judge.judge(&window)).collect();
        assert!(matches!(&told[..], [(DiskId(2), Verdict::Slow(_))]), "{told:?}");
        assert_eq!(judge.unbearable(), []);
    }

    #[test]
    fn nobody_is_unbearable_where_the_policy_says_report() {
        let mut judge = Judge::new(Policy {
            evict: false,
            ..POLICY
        });
        assert_eq!(after(&mut judge, 9, &[FAST, GRAVE, FAST]).len(), 1);
        assert_eq!(judge.unbearable(), []);
    }
}
