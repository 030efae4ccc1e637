//! Disks of a small world that come back: what they ask each other, and what they wish of the group's record. Questions
//! and answers arrive in any order; with a disk that loses its power they are lost, and who asked is told so.

use std::collections::BTreeMap;

use protocol::message::Refusal;
use protocol::recovery::{Question, Told};
use protocol::session::SlotState;
use protocol::{DiskId, Interval};
use replication::owner;
use replication::replica::Event;

use super::RowWorld;
use super::disks::Disk;

/// Steps of the record that were wished by a disk which has died meanwhile are still to come, this often in a hundred.
const LATE_PERCENT: u64 = 50;

/// What a disk says.
#[derive(Debug)]
pub(super) enum Said {
    /// To another disk.
    Question(DiskId, u64, Box<Question>),
    Answer(u64, Box<Result<Told, Refusal>>),
    /// To the record.
    Wish(Interval, SlotState, SlotState),
}

/// What is on its way between disks.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// What disks have asked each other, by numbers of the world's own: a disk that has lost its power counts from one
    /// again, and what it asked before may be answered after that (seed 5574 of its time).
    asked: BTreeMap<u64, Asked>,
    next: u64,
    wishes: Vec<Wish>,
}

/// A step of the record that a disk wishes.
#[derive(Debug)]
struct Wish {
    disk: DiskId,
    interval: Interval,
    from: SlotState,
    to: SlotState,
    /// Whether the disk still waits for it.
    waits: bool,
}

#[derive(Debug)]
struct Asked {
    from: DiskId,
    to: DiskId,
    /// As the asker counts.
    number: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Asked(Box<Question>),
    /// The other one is at it.
    Heard,
    Answered(Box<Result<Told, Refusal>>),
}

impl RowWorld {
    /// Takes along what disks have said.
    pub(super) fn collect(&mut self) {
        for (id, disk) in &mut self.disks {
            for said in disk.said.drain(..) {
                match said {
                    Said::Question(to, number, question) => {
                        let asked = Asked {
                            from: *id,
                            to,
                            number,
                            stage: Stage::Asked(question),
                        };
                        self.talk.next += 1;
                        self.talk.asked.insert(self.talk.next, asked);
                    }
                    Said::Answer(number, told) => {
                        if let Some(asked) = self.talk.asked.get_mut(&number) {
                            asked.stage = Stage::Answered(told);
                        }
                    }
                    Said::Wish(interval, from, to) => {
                        self.talk.wishes.push(Wish {
                            disk: *id,
                            interval,
                            from,
                            to,
                            waits: true,
                        });
                    }
                }
            }
        }
    }

    /// A disk has lost its power, or is gone.
    pub(super) fn forget_talk(&mut self, disk: DiskId) {
        self.talk.asked.retain(|_, asked| asked.from != disk);
        for asked in self.talk.asked.values_mut().filter(|asked| asked.to == disk) {
            asked.stage = Stage::Answered(Box::new(Err(Refusal::Busy)));
        }
        let chance = &mut self.chance;
        self.talk.wishes.retain_mut(|wish| {
            let others = wish.disk != disk;
            wish.waits &= others;
            others || chance.percent(LATE_PERCENT)
        });
    }

    /// A question, an answer or a wish arrives.
    pub(super) fn talk(&mut self) {
        if !self.talk.wishes.is_empty() && self.chance.percent(20) {
            let last = self.talk.wishes.len() as u64 - 1;
            let at = usize::try_from(self.chance.between(0, last)).unwrap_or(0);
            return self.wish_arrives(at);
        }
        let on_its_way = |stage: &Stage| !matches!(stage, Stage::Heard);
        let asked = self.talk.asked.iter();
        let fitting: Vec<u64> = asked
            .filter(|(_, asked)| on_its_way(&asked.stage))
            .map(|(key, _)| *key)
            .collect();
        let Some(key) = self.chance.pick(&fitting) else {
            return;
        };
        let Some(Asked {
            from,
            to,
            number,
            stage,
        }) = self.talk.asked.remove(&key)
        else {
            return;
        };
        match stage {
            Stage::Asked(question) if self.disks.contains_key(&to) => {
                self.trace(|| format!("{from} asks {to} {number}: {:?}", question.ask));
                let heard = Asked {
                    from,
                    to,
                    number,
                    stage: Stage::Heard,
                };
                self.talk.asked.insert(key, heard);
                let event = Event::Question {
                    from,
                    number: key,
                    question: *question,
                };
                self.feed_disk(to, |disk: &mut Disk, out| disk.feed(event, out));
            }
            Stage::Answered(told) => {
                self.trace(|| format!("{to} tells {from} {number}: {}", brief(&told)));
                let event = Event::Told { number, told: *told };
                self.feed_disk(from, |disk, out| disk.feed(event, out));
            }
            Stage::Asked(_) | Stage::Heard => {
                let told = Err(Refusal::Busy);
                self.feed_disk(from, |disk, out| disk.feed(Event::Told { number, told }, out));
            }
        }
    }

    fn wish_arrives(&mut self, at: usize) {
        let Wish {
            disk: id,
            interval,
            from,
            to,
            waits,
        } = self.talk.wishes.remove(at);
        let done = self.cluster.swap(id, interval, from, to);
        self.trace(|| format!("{id} wishes {from:?} to {to:?} in {interval:?}: {done}"));
        self.met.returned += u64::from(done && to == SlotState::InSync);
        if waits {
            let (map, pg) = (self.cluster.map(), self.cluster.group_id());
            self.feed_disk(id, |disk, out| {
                disk.map(map, out);
                disk.feed(Event::Proposed { pg }, out);
            });
        }
    }

    /// Some time has passed for a disk.
    pub(super) fn nudge(&mut self) {
        let disks: Vec<DiskId> = self.disks.keys().copied().collect();
        if let Some(id) = self.chance.pick(&disks) {
            self.feed_disk(id, |disk, out| disk.feed(Event::Nudge { returns: true }, out));
        }
    }

    /// Another disk takes the place of one that is out: an empty one, or one that had a slot before, and was off meanwhile.
    pub(super) fn replace_disk(&mut self, old: DiskId) -> Result<(), String> {
        let before: Vec<DiskId> = self.retired.keys().copied().collect();
        let again = self.chance.pick(&before).filter(|_| self.chance.percent(60));
        let new = again.unwrap_or(DiskId(self.next_disk));
        self.next_disk += u32::from(again.is_none());
        self.trace(|| format!("{new} TAKES THE PLACE OF {old}, {} of before", again.is_some()));
        let owned = self.forget_disk(old);
        if let Some(retired) = self.disks.remove(&old) {
            self.retired.insert(old, retired);
        }
        self.cluster.replace(old, new);
        let disk = match self.retired.remove(&new) {
            Some(mut disk) => {
                disk.crash(self.cluster.map(), &mut self.chance);
                disk
            }
            None => Disk::new(new, &self.cluster),
        };
        self.disks.insert(new, disk);
        self.collect();
        if owned {
            // The owner's driver tries to connect until it is told not to.
            self.wanted.insert(old);
            self.feed(owner::Event::Disconnected { disk: old })?;
        }
        Ok(())
    }
}

fn brief(told: &Result<Told, Refusal>) -> String {
    match told {
        Ok(Told::Difference { delta, doubt }) => {
            format!(
                "{} at {}: {:?}, doubt {doubt}",
                delta.object, delta.stamp, delta.chunks
            )
        }
        other => format!("{other:?}"),
    }
}
