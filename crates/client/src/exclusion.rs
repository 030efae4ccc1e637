//! Which requests of one device wait while a compare-and-write has its range to itself. Pure.
//!
//! Only those that wait are known here, so a device whose front end never compares pays for one look at an empty list.
//! What is under way already the device knows itself: a compare-and-write that has its turn waits for that too.

use std::collections::BTreeMap;

/// Bytes of the device: from and to.
pub(crate) type Span = (u64, u64);

/// Whether two ranges have a byte in common.
pub(crate) fn overlap(a: Span, b: Span) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// The place of a compare-and-write among those that are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

#[derive(Debug)]
enum Entry<W> {
    /// Has its range to itself from when nothing earlier overlaps it, until it leaves.
    Alone(Span),
    /// Waits; of a flush there is no range.
    Waits(Option<Span>, W),
}

/// See the module. How much waits is bounded by what the front end has in flight.
#[derive(Debug)]
pub(crate) struct Exclusion<W> {
    next: u64,
    entries: BTreeMap<Turn, Entry<W>>,
}

impl<W> Default for Exclusion<W> {
    fn default() -> Self {
        Self {
            next: 0,
            entries: BTreeMap::new(),
        }
    }
}

impl<W> Exclusion<W> {
    /// Whether nothing compares and nothing waits: then every request may begin.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// A compare-and-write comes. It is there until [`Exclusion::leave`].
    pub(crate) fn enter(&mut self, span: Span) -> Turn {
        self.add(Entry::Alone(span))
    }

    /// Any other request comes, a flush without a range. It is given back if it may begin now, and is kept otherwise.
    pub(crate) fn pass(&mut self, span: Option<Span>, request: W) -> Option<W> {
        if self.is_free(None, span) {
            return Some(request);
        }
        self.add(Entry::Waits(span, request));
        None
    }

    /// Whether all is gone that came before a compare-and-write and overlaps it.
    pub(crate) fn has_turn(&self, turn: Turn) -> bool {
        match self.entries.get(&turn) {
            Some(Entry::Alone(span)) => self.is_free(Some(turn), Some(*span)),
            _ => false,
        }
    }

    /// A compare-and-write is done. Gives what may begin now, in order.
    pub(crate) fn leave(&mut self, turn: Turn) -> Vec<W> {
        self.entries.remove(&turn);
        let turns: Vec<Turn> = self.entries.keys().copied().collect();
        let mut free = Vec::new();
        for turn in turns {
            let span = match self.entries.get(&turn) {
                Some(Entry::Waits(span, _)) => *span,
                _ => continue,
            };
            if self.is_free(Some(turn), span)
                && let Some(Entry::Waits(_, request)) = self.entries.remove(&turn)
            {
                free.push(request);
            }
        }
        free
    }

    /// Whether nothing is in the way that came before `turn`, or before now. A flush waits for all of it.
    fn is_free(&self, turn: Option<Turn>, span: Option<Span>) -> bool {
        let before = self.entries.range(..turn.unwrap_or(Turn(u64::MAX)));
        !before.into_iter().any(|(_, entry)| {
            let other = match entry {
                Entry::Alone(other) => Some(*other),
                Entry::Waits(other, _) => *other,
            };
            match (span, other) {
                (Some(span), Some(other)) => overlap(span, other),
                // A flush concerns everything before it, and nothing waits for a flush.
                (None, _) => true,
                (Some(_), None) => false,
            }
        })
    }

    fn add(&mut self, entry: Entry<W>) -> Turn {
        self.next += 1;
        let turn = Turn(self.next);
        self.entries.insert(turn, entry);
        turn
    }
}

#[cfg(test)]
mod tests {
    //! Who compares is alone, nobody is overtaken where it matters, and nobody is forgotten.
    use super::*;

    const HERE: Span = (4096, 8192);
    const BESIDE: Span = (8192, 12288);
    const BOTH: Span = (4096, 12288);

    #[test]
    fn what_overlaps_a_compare_and_write_waits_until_it_is_done_and_the_rest_does_not() {
        let mut exclusion = Exclusion::default();
        assert_eq!(exclusion.pass(Some(HERE), "before"), Some("before"));
        let turn = exclusion.enter(HERE);
        assert!(exclusion.has_turn(turn));
        assert_eq!(exclusion.pass(Some(BESIDE), "beside"), Some("beside"));
        assert_eq!(exclusion.pass(Some(BOTH), "both"), None);
        assert_eq!(exclusion.leave(turn), ["both"]);
        assert!(exclusion.is_idle());
    }

    #[test]
    fn the_second_of_two_waits_for_the_first_and_for_what_came_in_between() {
        let mut exclusion = Exclusion::default();
        let first = exclusion.enter(HERE);
        assert_eq!(exclusion.pass(Some(HERE), "between"), None);
        let second = exclusion.enter(HERE);
        let elsewhere = exclusion.enter(BESIDE);
        assert!(exclusion.has_turn(first) && !exclusion.has_turn(second));
        assert!(exclusion.has_turn(elsewhere));
        assert_eq!(exclusion.pass(Some(HERE), "after"), None);
        assert_eq!(exclusion.leave(first), ["between"]);
        assert!(exclusion.has_turn(second));
        assert_eq!(exclusion.leave(second), ["after"]);
        assert_eq!(exclusion.leave(elsewhere), [""; 0]);
        assert!(exclusion.is_idle());
    }

    #[test]
    fn what_waits_is_not_overtaken_by_what_overlaps_it() {
        let mut exclusion = Exclusion::default();
        let turn = exclusion.enter(HERE);
        assert_eq!(exclusion.pass(Some(BOTH), "first"), None);
        // Only of the one that waits does it have a part.
        assert_eq!(exclusion.pass(Some(BESIDE), "second"), None);
        assert_eq!(exclusion.leave(turn), ["first", "second"]);
    }

    #[test]
    fn a_flush_waits_for_all_that_came_before_it_and_holds_nothing_up() {
        let mut exclusion = Exclusion::default();
        let turn = exclusion.enter(HERE);
        assert_eq!(exclusion.pass(None, "flush"), None);
        assert_eq!(exclusion.pass(Some(BESIDE), "beside"), Some("beside"));
        let later = exclusion.enter(BESIDE);
        assert!(exclusion.has_turn(later));
        assert_eq!(exclusion.leave(turn), ["flush"]);
        assert_eq!(exclusion.leave(later), [""; 0]);
    }
}
