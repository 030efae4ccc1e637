//! Driving the take-overs of groups (rule 7): sends fences, pulls and levels, and takes in their
//! answers. What is to be done is `takeover`'s business.

use protocol::message::{Refusal, Request, Response};
use protocol::{DiskId, Interval, ObjectId, PgId, Stamp};

use super::event::Action;
use super::group::Phase;
use super::limits::{LEVELS_MAX, MAP_PAUSE_MS};
use super::link::Sent;
use super::takeover::{Step, TakeOver};
use super::{Owner, Stage};
use crate::moment::Moment;

impl Owner {
    /// Brings every take-over forward as far as it goes now.
    pub(super) fn drive_take_overs(&mut self, now: Moment, out: &mut Vec<Action>) {
        if !self.unready.is_empty() {
            let groups: Vec<PgId> = self.unready.iter().copied().collect();
            let mut leveling = groups
                .iter()
                .filter_map(|pg| self.take_over(*pg))
                .map(leveling)
                .sum();
            for pg in groups {
                self.send_fences(now, pg, out);
                leveling += self.begin_levels(pg, leveling);
                self.send_settling(now, pg, out);
                self.send_levels(now, pg, out);
                self.finish_take_over(pg);
            }
        }
        // Nothing is served before every group of the volume is level (7 d).
        if self.stage == Stage::Opening && self.unready.is_empty() {
            self.stage = Stage::Open;
            out.push(Action::Opened);
        }
    }

    fn take_over(&self, pg: PgId) -> Option<&TakeOver> {
        match &self.groups.get(&pg)?.phase {
            Phase::TakeOver(take_over) => Some(take_over),
            Phase::Unused | Phase::Serving => None,
        }
    }

    pub(super) fn take_over_mut(&mut self, pg: PgId) -> Option<&mut TakeOver> {
        match &mut self.groups.get_mut(&pg)?.phase {
            Phase::TakeOver(take_over) => Some(take_over),
            Phase::Unused | Phase::Serving => None,
        }
    }

    /// The same, if the group is still in this interval.
    pub(super) fn take_over_in(&mut self, pg: PgId, interval: Interval) -> Option<&mut TakeOver> {
        let current = self.groups.get(&pg)?.interval == interval;
        self.take_over_mut(pg).filter(|_| current)
    }

    fn send_fences(&mut self, now: Moment, pg: PgId, out: &mut Vec<Action>) {
        let (scope, family) = (self.scope(pg), self.view.family);
        let Some(take_over) = self.take_over(pg) else {
            return;
        };
        let due: Vec<(DiskId, Option<ObjectId>)> = take_over
            .fences
            .iter()
            .filter(|(_, fence)| !fence.done && fence.sent.is_none())
            .map(|(disk, fence)| (*disk, fence.after))
            .collect();
        for (disk, after) in due {
            let number = self.number();
            let Some(link) = self.links.get_mut(&disk).filter(|link| link.open(now)) else {
                continue;
            };
            let request = Request::Fence { scope, family, after };
            link.send(now, number, Sent::Fence(pg, scope.interval), request, out);
            if let Some(fence) = self.take_over_mut(pg).and_then(|t| t.fences.get_mut(&disk)) {
                fence.sent = Some(number);
            }
        }
    }

    fn begin_levels(&mut self, pg: PgId, leveling: usize) -> usize {
        let room = LEVELS_MAX.saturating_sub(leveling);
        match self.take_over_mut(pg) {
            Some(take_over) if take_over.fenced() => take_over.begin(room),
            _ => 0,
        }
    }

    fn send_levels(&mut self, now: Moment, pg: PgId, out: &mut Vec<Action>) {
        let scope = self.scope(pg);
        let Some(take_over) = self.take_over(pg) else {
            return;
        };
        let steps: Vec<(ObjectId, DiskId, Step)> = take_over
            .leveling
            .iter()
            .flat_map(|(object, leveling)| leveling.steps().into_iter().map(|(d, s)| (*object, d, s)))
            .collect();
        for (object, subject, step) in steps {
            let (to, above) = match step {
                Step::AskStamp { above } => (Some(subject), above),
                Step::Copy { sources, above } => {
                    let open = |disk: &DiskId| self.links.get(disk).is_some_and(|link| link.open(now));
                    // Nobody is asked for what could not be handed on: it would be asked for again at once.
                    let source = sources.into_iter().find(open);
                    (source.filter(|_| open(&subject)), above)
                }
            };
            let number = self.number();
            let Some(link) = to
                .and_then(|to| self.links.get_mut(&to))
                .filter(|link| link.open(now))
            else {
                continue;
            };
            let sent = Sent::Level {
                pg,
                interval: scope.interval,
                object,
                subject,
            };
            link.send(now, number, sent, Request::Pull { scope, object, above }, out);
            self.note_level_sent(pg, object, subject, number);
        }
    }

    fn note_level_sent(&mut self, pg: PgId, object: ObjectId, subject: DiskId, number: u64) {
        if let Some(leveling) = self.take_over_mut(pg).and_then(|t| t.leveling.get_mut(&object)) {
            leveling.sent.insert(subject, number);
        }
    }

    fn finish_take_over(&mut self, pg: PgId) {
        let done = |take_over: &TakeOver| take_over.fenced() && take_over.level();
        if !self.take_over(pg).is_some_and(done) {
            return;
        }
        let Some(group) = self.groups.get_mut(&pg) else {
            return;
        };
        group.phase = Phase::Serving;
        group.served = true;
        self.unready.remove(&pg);
        // What was levelled is complete; and a disk that joins hears by this that we serve (W7).
        self.untold.insert(pg);
    }

    /// A fence was answered.
    pub(super) fn fence_answered(
        &mut self,
        now: Moment,
        disk: DiskId,
        number: u64,
        (pg, interval): (PgId, Interval),
        response: Response,
        out: &mut Vec<Action>,
    ) {
        let Some(take_over) = self.take_over_in(pg, interval) else {
            return;
        };
        let Some(fence) = take_over.fences.get_mut(&disk) else {
            return;
        };
        if fence.sent != Some(number) {
            return;
        }
        fence.sent = None;
        match response {
            Response::Doubt { objects, more } => take_over.list(disk, objects, more),
            Response::Refused(refusal) => self.slow_down(now, disk, &refusal, out),
            _ => self.slow_down(now, disk, &Refusal::Invalid, out),
        }
    }

    /// A pull or a level was answered.
    pub(super) fn level_answered(
        &mut self,
        now: Moment,
        from: DiskId,
        number: u64,
        sent: &Sent,
        response: Response,
        out: &mut Vec<Action>,
    ) {
        let Sent::Level {
            pg,
            interval,
            object,
            subject,
        } = *sent
        else {
            return;
        };
        let take_over = self.take_over_in(pg, interval);
        let Some(leveling) = take_over.and_then(|t| t.leveling.get_mut(&object)) else {
            return;
        };
        if leveling.sent.get(&subject) != Some(&number) {
            return;
        }
        leveling.sent.remove(&subject);
        let known = leveling.stamps.get(&subject).copied().flatten();
        match (response, known) {
            // The disk told its own stamp.
            (Response::Delta(delta), None) => {
                leveling.stamps.insert(subject, Some(delta.stamp));
            }
            // A source gave what the disk lacks.
            (Response::Delta(delta), Some(follows)) if delta.stamp > follows && delta.object == object => {
                self.send_level(now, (pg, object, subject), follows, delta, out);
            }
            // The disk is level now.
            (Response::Ok, Some(_)) => self.leveled(pg, object, subject),
            (Response::Refused(Refusal::Gap(at)), _) => {
                leveling.stamps.insert(subject, Some(at));
            }
            (Response::Refused(Refusal::Damaged { .. }), _) => {
                leveling.bad_sources.insert(from);
                self.slow_down(now, from, &Refusal::Mismatch, out);
            }
            (Response::Refused(refusal), _) => self.slow_down(now, from, &refusal, out),
            (_, _) => self.slow_down(now, from, &Refusal::Invalid, out),
        }
        self.end_level(pg, object);
    }

    fn send_level(
        &mut self,
        now: Moment,
        (pg, object, subject): (PgId, ObjectId, DiskId),
        follows: Stamp,
        delta: protocol::storage::ObjectDelta,
        out: &mut Vec<Action>,
    ) {
        let (number, scope) = (self.number(), self.scope(pg));
        // Without a lease or a connection now, the copy is dropped, and asked for again later.
        if !self.may_send(now) {
            return;
        }
        let Some(link) = self.links.get_mut(&subject).filter(|link| link.open(now)) else {
            return;
        };
        let sent = Sent::Level {
            pg,
            interval: scope.interval,
            object,
            subject,
        };
        link.send(
            now,
            number,
            sent,
            Request::Level {
                scope,
                follows,
                delta,
            },
            out,
        );
        self.note_level_sent(pg, object, subject, number);
    }

    fn leveled(&mut self, pg: PgId, object: ObjectId, subject: DiskId) {
        if let Some(leveling) = self.take_over_mut(pg).and_then(|t| t.leveling.get_mut(&object)) {
            let target = leveling.stamps.values().flatten().copied().max();
            leveling.stamps.insert(subject, target);
        }
    }

    fn end_level(&mut self, pg: PgId, object: ObjectId) {
        if let Some(take_over) = self.take_over_mut(pg)
            && take_over
                .leveling
                .get(&object)
                .is_some_and(super::takeover::Leveling::done)
        {
            take_over.leveling.remove(&object);
        }
    }

    /// The connection on which a fence, a pull or a level was in flight is gone.
    pub(super) fn take_over_lost(&mut self, disk: DiskId, number: u64, sent: &Sent) {
        match *sent {
            Sent::Fence(pg, _) => {
                let fence = self.take_over_mut(pg).and_then(|t| t.fences.get_mut(&disk));
                if let Some(fence) = fence.filter(|fence| fence.sent == Some(number)) {
                    fence.sent = None;
                }
            }
            Sent::Level {
                pg, object, subject, ..
            } => {
                let leveling = self.take_over_mut(pg).and_then(|t| t.leveling.get_mut(&object));
                if let Some(leveling) = leveling.filter(|l| l.sent.get(&subject) == Some(&number)) {
                    leveling.sent.remove(&subject);
                }
            }
            Sent::Settle { pg, index, .. } => self.step_lost(disk, number, (pg, index)),
            Sent::Write(_)
            | Sent::GiveBack(_)
            | Sent::Lookup(_)
            | Sent::Lookups(_)
            | Sent::Probe
            | Sent::Heartbeat(_) => {}
        }
    }

    /// Nothing is retried at once after "not now": see [`MAP_PAUSE_MS`] and the other pauses.
    pub(super) fn map_pause(&mut self, now: Moment, disk: DiskId) {
        if let Some(link) = self.links.get_mut(&disk) {
            link.pause(now, MAP_PAUSE_MS);
        }
    }
}

fn leveling(take_over: &TakeOver) -> usize {
    take_over.leveling.len() + take_over.settling.len()
}
