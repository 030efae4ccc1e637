//! Without the coordination store: an owner that cannot renew its lease serves on while every slot that it writes to
//! confirms, again and again, that nothing has changed.
//!
//! A lease is one proof that nobody took the volume over. This is the other: whoever takes over must fence all slots in
//! sync, and whoever comes into a group needs one of those as its source, which then knows the newer interval. So as long
//! as all of them confirm the generation and the interval that this owner has, nothing happened behind its back, up to the
//! age of the confirmation. A replica that confirmed makes the next owner wait for twice that age.

use std::collections::{BTreeMap, VecDeque};

use protocol::message::{Refusal, Request, Response, Vouch};
use protocol::{DiskId, PgId};

use super::Owner;
use super::event::Action;
use super::limits::HEARTBEAT_ROUNDS_MAX;
use super::link::{Link, Sent};
use crate::moment::{HEARTBEAT_AGE_MS, HEARTBEAT_EVERY_MS, Moment};
use crate::mutation::{self, Mutation};

/// Questions that were sent at one moment, which are about all slots together.
#[derive(Debug)]
struct Round {
    number: u64,
    sent: Moment,
    /// How many are not confirmed yet.
    left: usize,
}

/// What was asked, and what is confirmed.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    rounds: VecDeque<Round>,
    next: u64,
    /// When the last round was sent.
    asked: Option<Moment>,
    /// When the last round was sent that all confirmed.
    confirmed: Option<Moment>,
}

impl Heartbeats {
    /// Whether all slots confirmed, not too long ago, that nothing has changed.
    pub(super) fn vouch(&self, now: Moment) -> bool {
        self.confirmed
            .is_some_and(|sent| now.since(sent) < HEARTBEAT_AGE_MS)
    }

    /// What was confirmed is void: a group has another interval, or other slots.
    pub(super) fn void(&mut self) {
        *self = Self {
            next: self.next,
            ..Self::default()
        };
    }

    fn due(&self) -> Moment {
        self.asked.map_or(Moment(0), |asked| asked + HEARTBEAT_EVERY_MS)
    }

    fn begin(&mut self, now: Moment, left: usize) {
        self.asked = Some(now);
        if self.rounds.len() >= HEARTBEAT_ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.rounds.push_back(Round {
            number: self.next,
            sent: now,
            left,
        });
        self.next += 1;
    }

    /// One question was confirmed, or was not.
    fn answered(&mut self, number: u64, confirms: bool) {
        let Some(at) = self.rounds.iter().position(|round| round.number == number) else {
            return;
        };
        let enough = confirms && mutation::active(Mutation::HeartbeatOfOne);
        let Some(round) = self.rounds.get_mut(at) else {
            return;
        };
        round.left -= usize::from(confirms);
        let sent = round.sent;
        if round.left == 0 || enough {
            self.confirmed = self.confirmed.max(Some(sent));
            // Those that were sent before say less.
            self.rounds.drain(..=at);
        } else if !confirms {
            self.rounds.remove(at);
        }
    }
}

impl Owner {
    /// Whether anything may be sent now: by the lease, or because all slots vouch.
    pub(super) fn may_send(&self, now: Moment) -> bool {
        self.lease.allows(now) || self.is_vouched_for(now)
    }

    /// Whether all slots of all its groups confirmed within the last second that nobody else has the volume.
    pub fn is_vouched_for(&self, now: Moment) -> bool {
        self.is_open() && self.heartbeats.vouch(now)
    }

    /// When the slots are to be asked again, if they are.
    pub(super) fn heartbeat_due(&self) -> Option<Moment> {
        let from = self.lease.in_danger().filter(|_| self.is_open())?;
        Some(from.max(self.heartbeats.due()))
    }

    /// Asks every slot of every group whether interval and generation still stand, if the lease is in danger.
    pub(super) fn ask_slots(&mut self, now: Moment, out: &mut Vec<Action>) {
        if self.heartbeat_due().is_none_or(|due| due > now) {
            return;
        }
        // A group that has not been served yet has nothing that could be vouched for.
        let used = self.groups.values().filter(|group| group.is_used());
        let all_served = used.clone().all(|group| group.served);
        let mut slots: BTreeMap<DiskId, Vec<PgId>> = BTreeMap::new();
        for group in used {
            for disk in group.awaited() {
                slots.entry(disk).or_default().push(group.pg);
            }
        }
        let takes = |(disk, groups): (&DiskId, &Vec<PgId>)| {
            let link = self.links.get(disk);
            link.is_some_and(|link| link.takes_heartbeats(groups.len()))
        };
        if slots.is_empty() || !all_served || !slots.iter().all(takes) {
            self.heartbeats.asked = Some(now);
            return;
        }
        let questions = self.questions(&slots);
        let round = self.heartbeats.next;
        self.heartbeats.begin(now, questions.len());
        for (disk, question) in questions {
            let number = self.number();
            if let Some(link) = self.links.get_mut(&disk) {
                link.send(now, number, Sent::Heartbeat(round), question, out);
            }
        }
    }

    /// What each disk is to be asked about its groups: as few questions as it understands.
    fn questions(&self, slots: &BTreeMap<DiskId, Vec<PgId>>) -> Vec<(DiskId, Request)> {
        let mut questions = Vec::new();
        for (disk, groups) in slots {
            let at_once = self.links.get(disk).map_or(1, Link::groups_at_once);
            for part in groups.chunks(at_once) {
                let question = match part {
                    [pg] => Request::Ping {
                        scope: self.scope(*pg),
                    },
                    many => Request::Vouch(Vouch {
                        volume: self.view.volume,
                        generation: self.view.generation,
                        revision: self.view.revision,
                        groups: many.iter().map(|pg| (*pg, self.scope(*pg).interval)).collect(),
                    }),
                };
                questions.push((*disk, question));
            }
        }
        questions
    }

    /// An answer came to a question.
    pub(super) fn heartbeat_answered(
        &mut self,
        now: Moment,
        disk: DiskId,
        round: u64,
        response: &Response,
        out: &mut Vec<Action>,
    ) {
        match response {
            // That it is full says nothing against what it was asked.
            Response::Ok | Response::Refused(Refusal::Full) => self.heartbeats.answered(round, true),
            Response::Standing { refused } => {
                self.heartbeats.answered(round, refused.is_empty());
                for (_, refusal) in refused {
                    self.slow_down(now, disk, refusal, out);
                }
            }
            Response::Refused(refusal) => {
                self.heartbeats.answered(round, false);
                self.slow_down(now, disk, refusal, out);
            }
            _ => self.heartbeats.answered(round, false),
        }
    }
}
