//! Notices: one who shares a volume has changed something that all of them go by besides the volume, a reservation say,
//! and goes on when none of the others acts on what was before (`docs/decisions/0067-notices.md`). Pure. What it is that
//! has changed is nobody's business here.

use std::collections::{BTreeMap, BTreeSet};

use protocol::shared::NOTICE_SINCE;
use tokio::sync::oneshot;

/// How far somebody who shares the volume has come.
#[derive(Clone, Copy, Debug)]
struct Listener {
    /// The last notice that was taken.
    took: u64,
    /// Is too old to be told.
    older: bool,
}

/// The owner's side: who asked for a notice, and who has not taken it yet.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// The number of the last one.
    last: u64,
    /// Who waits for which; one at a time for each.
    asked: BTreeMap<u64, u64>,
    listeners: BTreeMap<u64, Listener>,
}

impl Notices {
    /// Somebody is here to be told, in place of whoever had his number before. Gives the notice that he is to take, if
    /// there is one: what he knows may be from before it.
    pub(super) fn join(&mut self, who: u64, speaks: u16) -> Option<u64> {
        let older = speaks < NOTICE_SINCE;
        self.asked.remove(&who);
        self.listeners.insert(who, Listener { took: 0, older });
        (!older && self.last > 0).then_some(self.last)
    }

    /// Somebody is gone.
    pub(super) fn leave(&mut self, who: u64) {
        self.asked.remove(&who);
        self.listeners.remove(&who);
    }

    /// Somebody asks that the others take notice. Gives the notice's number; nothing if he waits for another one.
    pub(super) fn ask(&mut self, who: u64) -> Option<u64> {
        if self.asked.contains_key(&who) {
            return None;
        }
        self.last += 1;
        self.asked.insert(who, self.last);
        Some(self.last)
    }

    /// Who is to be told of a notice that was asked for by `who`, of those who are here.
    pub(super) fn audience(&self, who: u64) -> Vec<u64> {
        let told = self
            .listeners
            .iter()
            .filter(|(other, listener)| **other != who && !listener.older);
        told.map(|(other, _)| *other).collect()
    }

    /// Somebody took a notice and all before it. False if there is no such notice.
    pub(super) fn took(&mut self, who: u64, notice: u64) -> bool {
        if notice > self.last {
            return false;
        }
        if let Some(listener) = self.listeners.get_mut(&who) {
            listener.took = listener.took.max(notice);
        }
        true
    }

    /// Whether anybody waits for the others.
    pub(super) fn are_awaited(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Takes out those who waited for notices that all others on the roster have taken. Who is on the roster and not here
    /// is waited for: he may come with something that he has begun.
    pub(super) fn passed(&mut self, roster: &BTreeSet<u64>) -> Vec<u64> {
        let listeners = &self.listeners;
        let has_taken = |who: &u64, notice: u64| {
            let listener = listeners.get(who);
            listener.is_some_and(|listener| listener.older || listener.took >= notice)
        };
        let is_over = |who: u64, notice: u64| {
            roster
                .iter()
                .filter(|other| **other != who)
                .all(|other| has_taken(other, notice))
        };
        let passed: Vec<u64> = self
            .asked
            .iter()
            .filter(|(who, notice)| is_over(**who, **notice))
            .map(|(who, _)| *who)
            .collect();
        for who in &passed {
            self.asked.remove(who);
        }
        passed
    }
}

/// The side of a front end that gives notice: those who wait for a notice that is on its way, and for the one after it,
/// because what they changed may have come too late for the first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    on_its_way: Vec<oneshot::Sender<()>>,
    next: Vec<oneshot::Sender<()>>,
}

impl Pending {
    /// One more waits. True if a notice is to be given now.
    pub(super) fn wait(&mut self) -> (oneshot::Receiver<()>, bool) {
        let (sender, receiver) = oneshot::channel();
        self.next.push(sender);
        (receiver, self.turn())
    }

    fn turn(&mut self) -> bool {
        let turns = self.on_its_way.is_empty() && !self.next.is_empty();
        if turns {
            self.on_its_way = std::mem::take(&mut self.next);
        }
        turns
    }

    /// Whether a notice is on its way: it is given again to another owner.
    pub(super) fn is_on_its_way(&self) -> bool {
        !self.on_its_way.is_empty()
    }

    /// All others took it. True if another notice is to be given now.
    pub(super) fn passed(&mut self) -> bool {
        for waiting in self.on_its_way.drain(..) {
            // Whoever does not wait any more does not mind.
            let _ = waiting.send(());
        }
        self.turn()
    }

    /// Nobody can be told any more: all who wait hear so.
    pub(super) fn fail(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    //! Who is waited for, and who is not.
    use super::*;

    fn roster(of: &[u64]) -> BTreeSet<u64> {
        of.iter().copied().collect()
    }

    #[test]
    fn a_notice_passes_when_all_others_took_it() {
        let mut notices = Notices::default();
        for who in 1..=3 {
            assert_eq!(notices.join(who, NOTICE_SINCE), None);
        }
        let notice = notices.ask(1).unwrap();
        assert_eq!(notices.audience(1), [2, 3]);
        assert!(notices.took(2, notice));
        assert!(notices.passed(&roster(&[1, 2, 3])).is_empty());
        assert!(notices.took(3, notice));
        assert_eq!(notices.passed(&roster(&[1, 2, 3])), [1]);
        assert!(notices.passed(&roster(&[1, 2, 3])).is_empty(), "it is told once");
    }

    #[test]
    fn who_has_not_come_yet_is_waited_for_until_the_roster_has_him_no_more() {
        let mut notices = Notices::default();
        notices.join(1, NOTICE_SINCE);
        let notice = notices.ask(1).unwrap();
        assert!(notices.passed(&roster(&[1, 2])).is_empty());
        assert_eq!(
            notices.join(2, NOTICE_SINCE),
            Some(notice),
            "who comes late is told"
        );
        assert!(notices.passed(&roster(&[1, 2])).is_empty());
        notices.leave(2);
        assert_eq!(notices.passed(&roster(&[1])), [1]);
    }

    #[test]
    fn who_is_too_old_is_neither_told_nor_waited_for() {
        let mut notices = Notices::default();
        notices.join(1, NOTICE_SINCE);
        notices.join(2, NOTICE_SINCE - 1);
        notices.ask(1).unwrap();
        assert!(notices.audience(1).is_empty());
        assert_eq!(notices.passed(&roster(&[1, 2])), [1]);
        assert_eq!(notices.join(2, NOTICE_SINCE - 1), None);
    }

    #[test]
    fn two_may_wait_for_each_other() {
        let mut notices = Notices::default();
        notices.join(1, NOTICE_SINCE);
        notices.join(2, NOTICE_SINCE);
        let first = notices.ask(1).unwrap();
        let second = notices.ask(2).unwrap();
        assert_eq!(notices.ask(2), None, "one at a time");
        assert!(notices.took(1, second));
        assert_eq!(notices.passed(&roster(&[1, 2])), [2]);
        assert!(notices.took(2, first));
        assert_eq!(notices.passed(&roster(&[1, 2])), [1]);
        assert!(!notices.took(1, second + 1), "there is no such notice");
    }

    /// Law: a notice that is on its way is not enough for a change that came after it was given.
    #[test]
    fn what_comes_while_a_notice_is_on_its_way_waits_for_the_next_one() {
        let mut pending = Pending::default();
        let (mut first, gives) = pending.wait();
        assert!(gives);
        let (mut second, gives) = pending.wait();
        assert!(!gives);
        assert!(pending.passed(), "the next one is to be given");
        assert!(first.try_recv().is_ok());
        assert!(second.try_recv().is_err());
        assert!(!pending.passed() && second.try_recv().is_ok());
        let (mut third, _) = pending.wait();
        pending.fail();
        assert!(third.try_recv().is_err() && !pending.is_on_its_way());
    }
}
