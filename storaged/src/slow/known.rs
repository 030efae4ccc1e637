//! What is known of slow disks at this moment, for those who tell people. Who finds out is not known here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::DiskId;

/// Disks that are thought to be slow, and why: by their node, or by owners, whose word fades. Shared by those who
/// find out and those who tell.
#[derive(Debug, Default)]
pub struct Known(Mutex<BTreeMap<DiskId, Note>>);

#[derive(Clone, Debug)]
struct Note {
    why: String,
    /// Nothing: until it is taken back.
    until: Option<Instant>,
}

/// For how long an owner's word counts: it is repeated while it is true.
const WORD_LASTS: Duration = Duration::from_mins(1);

impl Known {
    /// The disk's own node thinks that it is slow from now on, or not any more.
    pub fn mark(&self, disk: DiskId, why: Option<String>) {
        match why {
            Some(why) => self.notes().insert(disk, Note { why, until: None }),
            None => self.notes().remove(&disk),
        };
    }

    /// An owner says that a disk is slow; gives whether that is news.
    pub fn heard(&self, disk: DiskId, why: &str, now: Instant) -> bool {
        let mut notes = self.notes();
        let former = notes.get(&disk);
        if former.is_some_and(|former| former.until.is_none()) {
            return false;
        }
        let news = former.is_none_or(|former| former.until.is_some_and(|until| until < now));
        let why = why.to_owned();
        let until = Some(now + WORD_LASTS);
        notes.insert(disk, Note { why, until });
        news
    }

    /// Why a disk is thought to be slow.
    pub fn why(&self, disk: DiskId, now: Instant) -> Option<String> {
        let note = self.notes().get(&disk).cloned()?;
        note.until.is_none_or(|until| now <= until).then_some(note.why)
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<DiskId, Note>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    //! What is known lasts until it is taken back, and what was only heard until it is not repeated.
    use super::*;

    #[test]
    fn an_owners_word_fades_and_the_nodes_own_does_not() {
        let (known, now) = (Known::default(), Instant::now());
        let later = now + WORD_LASTS + Duration::from_secs(1);
        assert!(known.heard(DiskId(1), "it lags", now));
        assert!(!known.heard(DiskId(1), "it lags", now), "it is known");
        assert_eq!(known.why(DiskId(1), now).as_deref(), Some("it lags"));
        assert_eq!(known.why(DiskId(1), later), None);
        assert!(known.heard(DiskId(1), "it lags", later));
        known.mark(DiskId(1), Some("its medium".to_owned()));
        assert!(!known.heard(DiskId(1), "it lags", later));
        assert_eq!(known.why(DiskId(1), later).as_deref(), Some("its medium"));
        known.mark(DiskId(1), None);
        assert_eq!(known.why(DiskId(1), now), None);
    }
}
