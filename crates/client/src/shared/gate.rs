//! What may be done at the same time, of the requests of all who share a volume: the one rule that makes sending a
//! request again harmless. Pure.
//!
//! A write that was done stays *unconfirmed* until its attachment has its answer. Until then no other attachment's
//! request that overlaps it is begun: nobody has seen it, and nobody has overwritten it. So when the owner dies before
//! the answer has arrived, the attachment may have the write done once more by the next owner, and no one can tell.
//! For the same reason a new owner does nothing but such writes, until all attachments have sent theirs.

use std::collections::{BTreeMap, BTreeSet};

/// A request at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// Bytes of the volume: from and to.
pub(super) type Span = (u64, u64);

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
    write: bool,
    /// It may have been done by a former owner.
    again: bool,
    state: State,
    /// Its attachment has ended.
    orphan: bool,
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
    pub(super) fn enter(&mut self, who: u64, span: Span, write: bool, again: bool) -> Ticket {
        self.next += 1;
        let claim = Claim {
            who,
            span,
            write,
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
            let meets = (claim.write || other.write) && overlap(claim.span, other.span);
            let active = other.state != State::Waiting;
            let first = *other_ticket < ticket && self.admits(other);
            meets && ((active && other.write && other.who != claim.who) || (!active && first))
        };
        self.admits(claim) && !self.claims.iter().any(in_the_way)
    }

    fn admits(&self, claim: &Claim) -> bool {
        self.awaited.is_empty() || (claim.again && claim.write)
    }

    /// A running request was done: a write is kept until it is confirmed.
    pub(super) fn done(&mut self, ticket: Ticket) {
        let Some(claim) = self.claims.get_mut(&ticket) else {
            return;
        };
        if claim.write && !claim.orphan {
            claim.state = State::Unconfirmed;
        } else {
            self.claims.remove(&ticket);
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

    /// The attachments that are still waited for.
    pub(super) fn awaited(&self) -> &BTreeSet<u64> {
        &self.awaited
    }
}

fn overlap(a: Span, b: Span) -> bool {
    a.0 < b.1 && b.0 < a.1
}

#[cfg(test)]
mod tests {
    //! Nobody sees or overwrites what may be done a second time.
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;
    const BLOCK: Span = (0, 4096);

    #[test]
    fn what_is_not_confirmed_is_neither_seen_nor_overwritten_by_others() {
        let mut gate = Gate::new([]);
        let first = gate.enter(A, BLOCK, true, false);
        let read = gate.enter(B, BLOCK, false, false);
        let write = gate.enter(B, BLOCK, true, false);
        let elsewhere = gate.enter(B, (4096, 8192), true, false);
        assert_eq!(gate.begin(), [first, elsewhere]);
        gate.done(first);
        assert_eq!(gate.begin(), []);
        gate.confirm(first);
        // Both are of one attachment, whose own order they have; a read is nothing to wait for.
        assert_eq!(gate.begin(), [read, write]);
    }

    #[test]
    fn one_attachment_does_not_wait_for_itself() {
        let mut gate = Gate::new([]);
        let first = gate.enter(A, BLOCK, true, false);
        let second = gate.enter(A, BLOCK, true, false);
        let read = gate.enter(A, BLOCK, false, false);
        assert_eq!(gate.begin(), [first, second, read]);
    }

    #[test]
    fn its_order_is_kept_behind_what_it_waits_for() {
        let mut gate = Gate::new([]);
        let foreign = gate.enter(B, BLOCK, true, false);
        assert_eq!(gate.begin(), [foreign]);
        let first = gate.enter(A, (0, 8192), true, false);
        let second = gate.enter(A, (4096, 8192), true, false);
        assert_eq!(gate.begin(), []);
        gate.done(foreign);
        gate.confirm(foreign);
        assert_eq!(gate.begin(), [first, second]);
    }

    #[test]
    fn a_new_owner_does_what_is_sent_again_first_and_shows_nothing_before_all_of_that_has_come() {
        let mut gate = Gate::new([A, B]);
        let again = gate.enter(A, BLOCK, true, true);
        let read = gate.enter(A, BLOCK, false, true);
        assert_eq!(gate.begin(), [again]);
        gate.done(again);
        gate.confirm(again);
        gate.rejoined(A);
        let fresh = gate.enter(A, BLOCK, true, false);
        assert_eq!(gate.begin(), []);
        let late = gate.enter(B, BLOCK, true, true);
        assert_eq!(gate.begin(), [late]);
        gate.done(late);
        gate.rejoined(B);
        assert_eq!(gate.begin(), []);
        gate.confirm(late);
        assert_eq!(gate.begin(), [read, fresh]);
    }

    #[test]
    fn nobody_waits_for_an_attachment_that_has_ended() {
        let mut gate = Gate::new([A, B]);
        let running = gate.enter(A, BLOCK, true, true);
        assert_eq!(gate.begin(), [running]);
        gate.rejoined(B);
        let next = gate.enter(B, BLOCK, true, false);
        gate.expel(A);
        assert!(gate.awaited().is_empty());
        // It may be on its way to the disks.
        assert_eq!(gate.begin(), []);
        gate.done(running);
        assert_eq!(gate.begin(), [next]);
    }

    #[test]
    fn who_is_not_waited_for_has_nothing_to_send_again() {
        let mut gate = Gate::new([B]);
        gate.enter(A, BLOCK, true, true);
        assert_eq!(gate.begin(), []);
    }
}
