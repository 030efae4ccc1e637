//! How far disks are on their way back to their groups, how fast they go, and how long it will take: from what the
//! map shows, and for disks of this node from what they have copied. Who copies what is not known here.
//!
//! The estimate is by groups: so many are in sync again since it began, so many are left. There is none before the
//! first one is, and it is coarse where groups are few or unequal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use admin_api::sizes::format_size;
use admin_api::status::Recovery;
use coordination::ClusterMap;
use protocol::DiskId;
use protocol::session::SlotState;

/// The rate is that of so much time.
const RATE_SPAN: Duration = Duration::from_secs(30);
/// Looks that are kept for it: one a second, and some when disks start.
const LOOKS_MAX: usize = 64;

/// All that come back, as it was seen at the last look. Shared by who looks and who tells.
#[derive(Debug, Default)]
pub struct Progress(Mutex<BTreeMap<DiskId, Course>>);

#[derive(Debug)]
struct Course {
    began: Instant,
    now: Instant,
    /// The most groups that it lacked since then, and those that it lacks.
    lacked: usize,
    lacks: usize,
    /// What it had copied at each look, if it is a disk of this node.
    looks: VecDeque<(Instant, u64)>,
    copied_before: Option<u64>,
}

impl Progress {
    /// Looks at the map, and at what this node's disks have copied since they were started.
    pub fn look(&self, map: &ClusterMap, copied: &BTreeMap<DiskId, u64>, now: Instant) {
        let lacking = lacking(map);
        let mut courses = self.courses();
        courses.retain(|disk, _| lacking.contains_key(disk));
        for (disk, lacks) in lacking {
            let copied = copied.get(&disk).copied();
            let course = courses.entry(disk).or_insert_with(|| Course {
                began: now,
                now,
                lacked: lacks,
                lacks,
                looks: VecDeque::new(),
                copied_before: copied,
            });
            course.look(lacks, copied, now);
        }
    }

    /// Who comes back, and how far he is.
    pub fn all(&self) -> Vec<Recovery> {
        let courses = self.courses();
        courses
            .iter()
            .map(|(disk, course)| course.describe(*disk))
            .collect()
    }

    fn courses(&self) -> MutexGuard<'_, BTreeMap<DiskId, Course>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Course {
    fn look(&mut self, lacks: usize, copied: Option<u64>, now: Instant) {
        if lacks > self.lacked {
            // It was put out of more of them: what was achieved before says nothing about these.
            self.began = now;
            self.lacked = lacks;
        }
        (self.lacks, self.now) = (lacks, now);
        let Some(copied) = copied else { return };
        // A disk that was started anew counts from zero.
        if self.looks.back().is_some_and(|(_, before)| copied < *before) {
            self.looks.clear();
            self.copied_before = Some(copied);
        }
        self.looks.push_back((now, copied));
        while self.looks.len() > LOOKS_MAX
            || self
                .looks
                .front()
                .is_some_and(|(at, _)| now.duration_since(*at) > RATE_SPAN)
        {
            self.looks.pop_front();
        }
    }

    fn describe(&self, disk: DiskId) -> Recovery {
        let copied = self.looks.back().map(|(_, copied)| *copied);
        let done = self.lacked.saturating_sub(self.lacks) as u64;
        let elapsed = self.now.duration_since(self.began).as_secs();
        Recovery {
            disk: disk.0,
            groups: self.lacked as u64,
            groups_left: self.lacks as u64,
            copied: copied.map(|copied| copied.saturating_sub(self.copied_before.unwrap_or(0))),
            bytes_per_s: self.rate(),
            seconds_left: (elapsed * self.lacks as u64).checked_div(done),
        }
    }

    fn rate(&self) -> Option<u64> {
        let ((first, before), (last, now)) = (self.looks.front()?, self.looks.back()?);
        let milliseconds = last.duration_since(*first).as_millis();
        let rate = (u128::from(now.saturating_sub(*before)) * 1000).checked_div(milliseconds)?;
        u64::try_from(rate).ok()
    }
}

/// How many groups each disk lacks that is on its way back to some.
fn lacking(map: &ClusterMap) -> BTreeMap<DiskId, usize> {
    let slots = || {
        let pools = map.pools().flat_map(|(pool, _)| map.groups(pool));
        pools.flat_map(|group| &group.slots)
    };
    let coming = slots().filter(|slot| slot.state.comes_back());
    let mut lacking: BTreeMap<DiskId, usize> = coming.map(|slot| (slot.disk, 0)).collect();
    for slot in slots().filter(|slot| slot.state != SlotState::InSync) {
        if let Some(lacks) = lacking.get_mut(&slot.disk) {
            *lacks += 1;
        }
    }
    lacking
}

/// A sentence about a disk that comes back.
pub fn sentence(recovery: &Recovery) -> String {
    let done = recovery.groups.saturating_sub(recovery.groups_left);
    let mut text = format!(
        "disk-{} comes back: {done} of {} placement groups are in sync again",
        recovery.disk, recovery.groups
    );
    if let (Some(copied), Some(rate)) = (recovery.copied, recovery.bytes_per_s) {
        let (copied, rate) = (format_size(copied), format_size(rate));
        text = format!("{text}, {copied} copied, {rate}/s now");
    }
    match recovery.seconds_left {
        None => format!("{text}; how long it takes is known when the first one is"),
        Some(left) if left < 60 => format!("{text}; about {left} s left"),
        Some(left) => format!("{text}; about {} min left", left.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    //! What is left, and how long it takes, by what was done so far.
    use coordination::Revision;
    use coordination::keys::Key;
    use coordination::records::{GroupRecord, encode};
    use coordination::store::{Batch, Entry, Event};
    use protocol::PgId;
    use protocol::session::Slot;

    use super::*;
    use crate::membership::fixture::{self, POOL};

    const C: DiskId = DiskId(3);
    const MIB: u64 = 1 << 20;

    /// Two groups whose third slots are in these states.
    fn map(first: SlotState, second: SlotState) -> ClusterMap {
        let group = |number, third| {
            let slots = [1, 2, 3]
                .map(|disk| Slot::of_copy(DiskId(disk), if disk == 3 { third } else { SlotState::InSync }));
            let record = GroupRecord {
                slots: slots.to_vec(),
            };
            Event::Put(Entry {
                key: Key::Group(PgId { pool: POOL, number }).to_text(),
                value: encode(&record).unwrap(),
                created: Revision(3),
                modified: Revision(51),
                lease: None,
            })
        };
        let batch = Batch {
            revision: Revision(51),
            events: vec![group(0, first), group(1, second)],
        };
        fixture::map(2, 2).apply(&batch).unwrap()
    }

    #[test]
    fn what_is_left_and_how_long_it_takes_follows_from_what_was_done() {
        use SlotState::{Down, InSync, Joining, Syncing};
        let (progress, start) = (Progress::default(), Instant::now());
        let look = |map: &ClusterMap, copied, seconds| {
            let copied = BTreeMap::from([(C, copied)]);
            progress.look(map, &copied, start + Duration::from_secs(seconds));
            progress.all()
        };
        assert!(look(&map(InSync, Down), 0, 0).is_empty(), "it does not come back");
        let told = look(&map(Syncing, Down), 7 * MIB, 0).remove(0);
        assert_eq!((told.groups, told.groups_left, told.seconds_left), (2, 2, None));
        let told = look(&map(Joining, Syncing), 27 * MIB, 20).remove(0);
        assert_eq!((told.copied, told.bytes_per_s), (Some(20 * MIB), Some(MIB)));
        let told = look(&map(InSync, Syncing), 27 * MIB, 20).remove(0);
        assert_eq!((told.groups_left, told.seconds_left), (1, Some(20)));
        assert_eq!(
            sentence(&told),
            "disk-3 comes back: 1 of 2 placement groups are in sync again, 20 MiB copied, 1 MiB/s now; about 20 s left"
        );
        assert!(look(&map(InSync, InSync), 27 * MIB, 40).is_empty());
    }

    #[test]
    fn of_a_disk_elsewhere_the_groups_tell_and_one_that_starts_anew_counts_from_zero() {
        use SlotState::Syncing;
        let (progress, start) = (Progress::default(), Instant::now());
        progress.look(&map(Syncing, Syncing), &BTreeMap::new(), start);
        let told = progress.all().remove(0);
        assert_eq!((told.copied, told.bytes_per_s), (None, None));
        let text = sentence(&told);
        assert!(
            text.ends_with("again; how long it takes is known when the first one is"),
            "{text}"
        );
        for (copied, seconds) in [(50 * MIB, 1), (MIB, 2), (3 * MIB, 3)] {
            let copied = BTreeMap::from([(C, copied)]);
            progress.look(
                &map(Syncing, Syncing),
                &copied,
                start + Duration::from_secs(seconds),
            );
        }
        assert_eq!(progress.all()[0].copied, Some(2 * MIB));
    }
}
