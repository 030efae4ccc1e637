//! Full disks: while one has no room, new data is refused before it is sent anywhere, and the disk
//! is asked now and then (`docs/decisions/0010-full-disks.md`).

use std::collections::BTreeSet;

use protocol::message::{Refusal, Request, Response};
use protocol::{DiskId, PgId};

use super::Owner;
use super::event::Action;
use super::limits::FULL_PROBE_MS;
use super::link::Sent;
use crate::moment::Moment;

/// Which disks said that they are full, and when they were asked last.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    disks: BTreeSet<DiskId>,
    asked: Moment,
}

impl Fullness {
    /// Whether new data must be refused.
    pub(super) fn is_full(&self) -> bool {
        !self.disks.is_empty()
    }

    /// A disk said that it is full.
    pub(super) fn note(&mut self, now: Moment, disk: DiskId) {
        if self.disks.is_empty() {
            self.asked = now;
        }
        self.disks.insert(disk);
    }

    /// A disk takes no part any more: its room is nobody's business.
    pub(super) fn forget(&mut self, disk: DiskId) {
        self.disks.remove(&disk);
    }

    /// When to ask again.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.is_full().then_some(self.asked + FULL_PROBE_MS)
    }

    /// The full disks, for people.
    pub(super) fn disks(&self) -> impl Iterator<Item = DiskId> {
        self.disks.iter().copied()
    }
}

impl Owner {
    /// Asks the full disks whether they have room again.
    pub(super) fn probe_full(&mut self, now: Moment, out: &mut Vec<Action>) {
        if self.fullness.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.fullness.asked = now;
        let disks: Vec<DiskId> = self.fullness.disks().collect();
        for disk in disks {
            let of_disk = |pg: &PgId| {
                let group = self.groups.get(pg);
                group.is_some_and(|group| group.serving() && group.awaited().any(|other| other == disk))
            };
            let Some(pg) = self.groups.keys().copied().find(of_disk) else {
                self.fullness.forget(disk);
                continue;
            };
            let (number, scope) = (self.number(), self.scope(pg));
            if let Some(link) = self.links.get_mut(&disk).filter(|link| link.open(now)) {
                link.send(now, number, Sent::Probe, Request::Ping { scope }, out);
            }
        }
    }

    /// A disk answered the question.
    pub(super) fn probed(&mut self, now: Moment, disk: DiskId, response: &Response, out: &mut Vec<Action>) {
        match response {
            Response::Ok => self.fullness.forget(disk),
            Response::Refused(Refusal::Full) => {}
            Response::Refused(other) => self.slow_down(now, disk, other, out),
            _ => self.slow_down(now, disk, &Refusal::Invalid, out),
        }
    }
}
