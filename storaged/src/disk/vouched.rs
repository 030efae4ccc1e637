//! When a disk's process vouched for an owner last, for the process after it: in a file beside the disk's own, which
//! outlives the process. It need not outlive the machine, which takes longer to come up than such a word counts.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::clock;

const FILE: &str = "vouched";
/// It is written so often at most.
const EVERY: Duration = Duration::from_millis(200);
/// A word counts for a second, and is waited out for two (`replication::moment`); then what `EVERY` leaves out, and a
/// clock's coarseness.
const COUNTS_FOR_MS: u64 = 3_000;

/// The file, and when it was written last.
pub(super) struct Vouched {
    path: PathBuf,
    written: Cell<Option<Instant>>,
}

impl Vouched {
    /// Of the disk in this directory.
    pub(super) fn of(directory: &Path) -> Self {
        Self {
            path: directory.join(FILE),
            written: Cell::new(None),
        }
    }

    /// Whether the process before may have vouched so lately that it counts. What cannot be read counts.
    pub(super) fn lately(&self) -> bool {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => counts(&text, &boot(), clock::now().0),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Notes that somebody is vouched for now. Who cannot note it must not.
    pub(super) fn note(&self) -> io::Result<()> {
        if self.written.get().is_some_and(|at| at.elapsed() < EVERY) {
            return Ok(());
        }
        std::fs::write(&self.path, format!("{} {}\n", boot(), clock::now().0))?;
        self.written.set(Some(Instant::now()));
        Ok(())
    }
}

fn boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn counts(text: &str, boot: &str, now: u64) -> bool {
    let Some((then, at)) = text.trim().split_once(' ') else {
        return true;
    };
    let Ok(at) = at.parse::<u64>() else {
        return true;
    };
    then == boot && now.saturating_sub(at) < COUNTS_FOR_MS
}

#[cfg(test)]
mod tests {
    //! What is waited for, and what is not.
    use super::*;

    #[test]
    fn a_word_of_this_boot_counts_for_three_seconds_and_one_that_cannot_be_read_counts() {
        assert!(counts("a 1000\n", "a", 3_999));
        assert!(!counts("a 1000\n", "a", 4_000));
        assert!(!counts("b 1000\n", "a", 1_001));
        for broken in ["", "a", "a b"] {
            assert!(counts(broken, "a", 9_000), "{broken:?}");
        }
    }

    #[test]
    fn who_never_vouched_is_not_waited_for_and_who_just_did_is() {
        let directory = tempfile::tempdir().unwrap();
        let vouched = Vouched::of(directory.path());
        assert!(!vouched.lately());
        vouched.note().unwrap();
        assert!(Vouched::of(directory.path()).lately());
    }
}
