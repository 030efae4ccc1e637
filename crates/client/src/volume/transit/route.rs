//! Which owner has which part of a volume that moves, and what waits while a step is under way. Pure.
//!
//! What lies below `moved` is the head's, the rest the source's, and no block is ever both's. The step that is under way
//! is a window right behind: what is written there waits until it is known whose it is.

use std::collections::VecDeque;

use crate::pieces::Number;

/// Whose a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owned {
    /// The new head's.
    Head,
    /// Still that of where the volume came from.
    Source,
    /// It is being moved: the piece waits.
    Waits,
}

/// The step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// Its end; it begins where that which is moved ends.
    to: u64,
    /// Whether reads wait too: nothing is left of the source after the last step.
    last: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Route {
    moved: u64,
    window: Option<Window>,
    waiting: VecDeque<Number>,
}

impl Route {
    /// With so many bytes from the start moved.
    pub(super) fn new(moved: u64) -> Self {
        Self {
            moved,
            window: None,
            waiting: VecDeque::new(),
        }
    }

    /// How much is moved, in bytes from the start.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Where the next piece begins that may be somebody else's.
    pub(super) fn cut(&self, at: u64) -> u64 {
        let borders = [Some(self.moved), self.window.map(|window| window.to)];
        let next = borders.into_iter().flatten().filter(|border| *border > at).min();
        next.unwrap_or(u64::MAX)
    }

    /// Whose a piece is that begins there and was cut as [`Route::cut`] says. One that waits is kept.
    pub(super) fn lead(&mut self, number: Number, offset: u64, writes: bool) -> Owned {
        if offset < self.moved {
            return Owned::Head;
        }
        match self.window {
            Some(window) if offset < window.to && (writes || window.last) => {
                self.waiting.push_back(number);
                Owned::Waits
            }
            _ => Owned::Source,
        }
    }

    /// Begins to move what comes next.
    pub(super) fn open_window(&mut self, to: u64, last: bool) {
        self.window = Some(Window { to, last });
    }

    /// The step is over: what it was about is moved, or it is not. Gives the pieces that waited, in their order.
    pub(super) fn close_window(&mut self, moved: bool) -> VecDeque<Number> {
        if let Some(window) = self.window.take().filter(|_| moved) {
            self.moved = self.moved.max(window.to);
        }
        std::mem::take(&mut self.waiting)
    }

    /// `storaged` says how much is moved. What a step under way has done is for its end to tell.
    pub(super) fn learn(&mut self, moved: u64) {
        if self.window.is_none() {
            self.moved = self.moved.max(moved);
        }
    }

    /// All of it is moved. Gives the pieces that waited.
    pub(super) fn end(&mut self) -> VecDeque<Number> {
        self.moved = u64::MAX;
        self.close_window(false)
    }
}

#[cfg(test)]
mod tests {
    //! A place has one owner at any time, and what waits goes on in its order.
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_to_what_is_being_moved_wait_and_reads_do_not() {
        let mut route = Route::new(100);
        route.open_window(200, false);
        assert_eq!(route.lead(1, 99, true), Owned::Head);
        assert_eq!(route.lead(2, 100, true), Owned::Waits);
        assert_eq!(route.lead(3, 100, false), Owned::Source);
        assert_eq!(route.lead(4, 199, true), Owned::Waits);
        assert_eq!(route.lead(5, 200, true), Owned::Source);
        assert_eq!(route.close_window(true), [2, 4]);
        assert_eq!(route.lead(2, 100, true), Owned::Head);
    }

    #[test]
    fn reads_wait_too_for_the_last_step_after_which_nothing_of_the_source_is_left() {
        let mut route = Route::new(100);
        route.open_window(200, true);
        assert_eq!(route.lead(1, 150, false), Owned::Waits);
        assert_eq!(route.end(), [1]);
        assert_eq!(route.lead(1, 150, false), Owned::Head);
    }

    #[test]
    fn what_a_step_could_not_move_stays_the_sources() {
        let mut route = Route::new(0);
        route.open_window(50, false);
        assert_eq!(route.lead(1, 0, true), Owned::Waits);
        assert_eq!(route.close_window(false), [1]);
        assert_eq!((route.lead(1, 0, true), route.moved()), (Owned::Source, 0));
    }

    #[test]
    fn what_storaged_says_of_a_step_under_way_is_for_its_end_to_tell() {
        // Defect guarded: a view that shows the step as done would let writes through to the head while others to the
        // same place wait, and those would come after.
        let mut route = Route::new(0);
        route.open_window(50, false);
        assert_eq!(route.lead(1, 0, true), Owned::Waits);
        route.learn(50);
        assert_eq!(route.lead(2, 0, true), Owned::Waits);
        assert_eq!(route.close_window(true), [1, 2]);
    }

    proptest! {
        #[test]
        fn a_piece_has_one_owner_from_its_first_byte_to_its_last(
            moved in 0u64..100, window in proptest::option::of((0u64..50, any::<bool>())),
            at in 0u64..200, writes in any::<bool>(),
        ) {
            let mut route = Route::new(moved);
            if let Some((length, last)) = window {
                route.open_window(moved + length, last);
            }
            let end = route.cut(at).min(250);
            let owner = route.lead(0, at, writes);
            for place in at..end {
                prop_assert_eq!(route.lead(0, place, writes), owner);
            }
        }
    }
}
