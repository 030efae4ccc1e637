//! What the copies that initiators began at a unit have come to, for those who ask (SPC-4 clause 6.25).
//!
//! Refuses to know what is copied.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::reservation::Nexus;
use crate::scsi::copy_results::{Progress, State};

/// Copies of a unit that are remembered. The oldest are forgotten first, which the standard allows.
const REMEMBERED_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub struct Copies {
    remembered: RefCell<VecDeque<Remembered>>,
}

struct Remembered {
    nexus: Nexus,
    /// What the initiator calls it.
    list: u8,
    progress: Progress,
}

/// A copy that is under way. It is forgotten if it is dropped before it has ended.
pub struct CopyPlace<'a> {
    copies: &'a Copies,
    /// Nothing if nobody will ask.
    name: Option<(&'a Nexus, u8)>,
    progress: Progress,
}

impl Copies {
    /// A copy begins. It takes the place of one of the same name, also of one that is under way: SPC-4 clause 5.17.4.2 would
    /// have it refused then, but QEMU calls all its copies the same and begins several at once.
    pub fn begin<'a>(&'a self, nexus: &'a Nexus, list: Option<u8>) -> CopyPlace<'a> {
        let place = CopyPlace {
            copies: self,
            name: list.map(|list| (nexus, list)),
            progress: Progress {
                state: State::UnderWay,
                segments: 0,
                bytes: 0,
            },
        };
        place.tell();
        place
    }

    /// How far a copy is, or what became of it, which is told once.
    pub fn ask(&self, nexus: &Nexus, list: u8) -> Option<Progress> {
        let mut remembered = self.remembered.borrow_mut();
        let found = remembered.iter().position(|copy| copy.is(nexus, list))?;
        let progress = remembered[found].progress;
        if progress.state != State::UnderWay {
            remembered.remove(found);
        }
        Some(progress)
    }

    /// A path is over.
    pub fn forget(&self, nexus: &Nexus) {
        self.remembered.borrow_mut().retain(|copy| copy.nexus != *nexus);
    }

    /// The unit was reset.
    pub fn forget_all(&self) {
        self.remembered.borrow_mut().clear();
    }
}

impl Remembered {
    fn is(&self, nexus: &Nexus, list: u8) -> bool {
        self.list == list && self.nexus == *nexus
    }
}

impl CopyPlace<'_> {
    /// A segment is begun.
    pub fn begin_segment(&mut self) {
        self.progress.segments = self.progress.segments.saturating_add(1);
        self.tell();
    }

    /// So many more bytes are written.
    pub fn wrote(&mut self, bytes: u64) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.progress.bytes = self.progress.bytes.saturating_add(bytes);
        self.tell();
    }

    /// It has ended, and this came of it.
    pub fn end(mut self, all_was_copied: bool) {
        self.progress.state = if all_was_copied {
            State::Done
        } else {
            State::Failed
        };
        self.tell();
    }

    fn tell(&self) {
        let Some((nexus, list)) = self.name else { return };
        let mut remembered = self.copies.remembered.borrow_mut();
        remembered.retain(|copy| !copy.is(nexus, list));
        if remembered.len() >= REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(Remembered {
            nexus: nexus.clone(),
            list,
            progress: self.progress,
        });
    }
}

impl Drop for CopyPlace<'_> {
    fn drop(&mut self) {
        let Some((nexus, list)) = self.name else { return };
        if self.progress.state == State::UnderWay {
            let mut remembered = self.copies.remembered.borrow_mut();
            remembered.retain(|copy| !copy.is(nexus, list));
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is told, how often, and to whom.
    use super::*;
    use crate::unit::copy::tests::nexus;

    #[test]
    fn what_became_of_a_copy_is_told_once_to_who_began_it() {
        let (a, b) = (nexus("a"), nexus("b"));
        let copies = Copies::default();
        let mut place = copies.begin(&a, Some(1));
        place.begin_segment();
        place.wrote(4096);
        let progress = Progress {
            state: State::UnderWay,
            segments: 1,
            bytes: 4096,
        };
        assert_eq!(copies.ask(&a, 1), Some(progress));
        assert_eq!((copies.ask(&b, 1), copies.ask(&a, 2)), (None, None));
        place.end(true);
        let done = Progress {
            state: State::Done,
            ..progress
        };
        assert_eq!((copies.ask(&a, 1), copies.ask(&a, 1)), (Some(done), None));
    }

    #[test]
    fn what_is_aborted_lost_or_not_named_is_not_told() {
        let a = nexus("a");
        let copies = Copies::default();
        drop(copies.begin(&a, Some(1)));
        copies.begin(&a, None).end(true);
        assert_eq!((copies.ask(&a, 1), copies.ask(&a, 0)), (None, None));
        copies.begin(&a, Some(2)).end(false);
        copies.forget(&a);
        assert_eq!(copies.ask(&a, 2), None);
        copies.begin(&a, Some(3)).end(false);
        copies.forget_all();
        assert_eq!(copies.ask(&a, 3), None);
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let copies = Copies::default();
        let paths = [nexus("a"), nexus("b")];
        for path in &paths {
            for list in 0..u8::try_from(REMEMBERED_MAX).unwrap() {
                copies.begin(path, Some(list)).end(true);
            }
        }
        assert_eq!(copies.ask(&paths[0], 63), None);
        assert!(copies.ask(&paths[1], 0).is_some());
    }
}
