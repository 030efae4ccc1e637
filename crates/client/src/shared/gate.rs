//! What may be done at the same time, of the requests of all who share a volume: the one rule that makes sending a
//! request again harmless. Pure.
//!
//! A write that was done stays *unconfirmed* until its attachment has its answer. Until then no other attachment's
//! request that overlaps it is begun: nobody has seen it, and nobody has overwritten it. So when the owner dies before
//! the answer has arrived, the attachment may have the write done once more by the next owner, and no one can tell.
//! For the same reason a new owner does nothing but such writes, until all attachments have sent theirs.
//!
//! A compare-and-write keeps out even its own attachment's requests until it is confirmed, so whoever does it again finds
//! what was there before it, or what it wrote, or what other writes that are done again have put there. A new owner does
//! those that are sent again when all have come: after the writes, which do not look, and before everything else, which
//! may be the first to see them (`docs/decisions/0063-compare-and-write.md`).

use std::collections::{BTreeMap, BTreeSet};

use crate::exclusion::{Span, overlap};

/// A request at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// What a request has to do with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Looks.
    Read,
    /// Changes it, whatever is there.
    Write,
    /// Looks, and changes it then.
    Compare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    /// Done; its answer may not have arrived.
    Unconfirmed,
}

#[derive(Debug)]
struct Claim {
    who: u64,
    span: Span,
    access: Access,
    /// It may have been done by a former owner.
    again: bool,
    state: State,
    /// Its attachment has ended.
    orphan: bool,
}

/// When a request has its turn among those that overlap it: the lower the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// A write that is sent again.
    WrittenAgain,
    /// A compare-and-write that is sent again.
    ComparedAgain,
    /// Anything else.
    New,
}

impl Claim {
    fn changes(&self) -> bool {
        self.access != Access::Read
    }

    fn class(&self) -> Class {
        match (self.again, self.access) {
            (true, Access::Write) => Class::WrittenAgain,
            (true, Access::Compare) => Class::ComparedAgain,
            _ => Class::New,
        }
    }

    /// Whether one of them must not begin while the other is under way, or not confirmed.
    fn excludes(&self, other: &Self) -> bool {
        let comparing = self.access == Access::Compare || other.access == Access::Compare;
        self.who != other.who || comparing
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gate {
    next: u64,
    claims: BTreeMap<Ticket, Claim>,
    /// Attachments that may have requests which a former owner did not answer.
    awaited: BTreeSet<u64>,
}

impl Gate {
    /// A gate of a new owner, who waits for these attachments.
    pub(super) fn new(awaited: impl IntoIterator<Item = u64>) -> Self {
        Self {
            awaited: awaited.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A request comes.
    pub(super) fn enter(&mut self, who: u64, span: Span, access: Access, again: bool) -> Ticket {
        self.next += 1;
        let claim = Claim {
            who,
            span,
            access,
            again: again && self.awaited.contains(&who),
            state: State::Waiting,
            orphan: false,
        };
        self.claims.insert(Ticket(self.next), claim);
        Ticket(self.next)
    }

    /// Those that may be begun now, in order; they are running from now on.
    pub(super) fn begin(&mut self) -> Vec<Ticket> {
        let waiting = |(ticket, claim): (&Ticket, &Claim)| (claim.state == State::Waiting).then_some(*ticket);
        let waiting: Vec<Ticket> = self.claims.iter().filter_map(waiting).collect();
        let mut begun = Vec::new();
        for ticket in waiting {
            let free = self
                .claims
                .get(&ticket)
                .is_some_and(|claim| self.is_free(ticket, claim));
            if let Some(claim) = self.claims.get_mut(&ticket).filter(|_| free) {
                claim.state = State::Running;
                begun.push(ticket);
            }
        }
        begun
    }

    fn is_free(&self, ticket: Ticket, claim: &Claim) -> bool {
        let in_the_way = |(other_ticket, other): (&Ticket, &Claim)| {
            let meets = (claim.changes() || other.changes()) && overlap(claim.span, other.span);
            let active = other.state != State::Waiting;
            let first = (other.class(), *other_ticket) < (claim.class(), ticket) && self.admits(other);
            meets && ((active && other.changes() && other.excludes(claim)) || (!active && first))
        };
        self.admits(claim) && !self.claims.iter().any(in_the_way)
    }

    fn admits(&self, claim: &Claim) -> bool {
        self.awaited.is_empty() || claim.class() == Class::WrittenAgain
    }

    /// A running request was done: a write is kept until it is confirmed.
    pub(super) fn done(&mut self, ticket: Ticket) {
        let Some(claim) = self.claims.get_mut(&ticket) else {
            return;
        };
        if claim.changes() && !claim.orphan {
            claim.state = State::Unconfirmed;
        } else {
            self.claims.remove(&ticket);
        }
    }

    /// Whether a request is a compare-and-write that a former owner may have done.
    pub(super) fn is_compared_again(&self, ticket: Ticket) -> bool {
        let claim = self.claims.get(&ticket);
        claim.is_some_and(|claim| claim.class() == Class::ComparedAgain)
    }

    /// A running request is not done yet after all: it waits again, for those that may have been done before it.
    pub(super) fn retreat(&mut self, ticket: Ticket) {
        if let Some(claim) = self.claims.get_mut(&ticket) {
            claim.state = State::Waiting;
        }
    }

    /// The answer to a request has arrived, or it is known not to be done.
    pub(super) fn confirm(&mut self, ticket: Ticket) {
        self.claims.remove(&ticket);
    }

    /// An attachment has sent all that a former owner did not answer.
    pub(super) fn rejoined(&mut self, who: u64) {
        self.awaited.remove(&who);
    }

    /// An attachment has ended: nothing of it is sent again. What runs is waited for.
    pub(super) fn expel(&mut self, who: u64) {
        self.awaited.remove(&who);
        self.claims
            .retain(|_, claim| claim.who != who || claim.state == State::Running);
        for claim in self.claims.values_mut().filter(|claim| claim.who == who) {
            claim.orphan = true;
        }
    }

    /// Whether something of an attachment that has ended is under way.
    pub(super) fn has_orphans(&self) -> bool {
        self.claims.values().any(|claim| claim.orphan)
    }

    /// The attachments that are still waited for.
    pub(super) fn awaited(&self) -> &BTreeSet<u64> {
        &self.awaited
    }
}

#[cfg(test)]
mod tests;
