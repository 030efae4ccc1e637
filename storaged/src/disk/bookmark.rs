//! How far a deep scrub of a whole disk is, for the process after this one: in a file beside the disk's own. It saves
//! reading what was read; whoever finds it damaged, foreign or old begins anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::checksum::crc;
use protocol::{DiskId, FamilyId};
use replication::scrub::Column;
use tracing::debug;

use super::scrubs::Totals;

const FILE: &str = "scrubbed";
/// The layout of the file.
const VERSION: u64 = 1;
/// It is written so often at most: what is read again after a restart is a minute's reading.
const EVERY: Duration = Duration::from_mins(1);
/// An older one does not count, in milliseconds: what was read so long ago is to be read again.
const COUNTS_FOR_MS: u64 = 24 * 60 * 60 * 1000;

/// How far a scrub came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// All blocks up to this column's end were read.
    pub(super) column: Column,
    /// Blocks that were read, and what became of those that were damaged.
    pub(super) blocks: u64,
    pub(super) mended: u64,
    pub(super) unmended: u64,
}

impl Mark {
    /// Of a scrub that has found this so far.
    pub(super) fn new(column: Column, totals: &Totals) -> Self {
        Self {
            column,
            blocks: totals.blocks,
            mended: totals.mended,
            unmended: totals.unmended,
        }
    }

    /// What a scrub that goes on from here has found so far. Objects are compared again, and count again.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            blocks: self.blocks,
            mended: self.mended,
            unmended: self.unmended,
            ..Totals::default()
        }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Bookmark {
    path: PathBuf,
    cluster: [u8; 16],
    disk: DiskId,
    written: Option<Instant>,
}

impl Bookmark {
    /// Of this disk, which lies in this directory.
    pub(super) fn of(directory: &Path, cluster: [u8; 16], disk: DiskId) -> Self {
        Self {
            path: directory.join(FILE),
            cluster,
            disk,
            written: None,
        }
    }

    /// Where a process before left off, if that is to be taken up.
    pub(super) fn read(&self, now_ms: u64) -> Option<Mark> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        self.parse(&text, now_ms)
    }

    /// Notes how far it is, not too often. Who cannot note it reads more after a restart.
    pub(super) fn note(&mut self, mark: &Mark, now: Instant, now_ms: u64) {
        if self.written.is_some_and(|at| now.duration_since(at) < EVERY) {
            return;
        }
        self.written = Some(now);
        if let Err(error) = std::fs::write(&self.path, self.text(mark, now_ms)) {
            debug!(%error, "how far a scrub is could not be noted");
        }
    }

    /// It came to its end.
    pub(super) fn remove(&mut self) {
        self.written = None;
        // There is none if it took less than a minute.
        let _ = std::fs::remove_file(&self.path);
    }

    fn text(&self, mark: &Mark, now_ms: u64) -> String {
        let (family, index) = mark.column;
        let head = self.head();
        let mut text = format!(
            "{head} {} {index} {} {} {} {now_ms}",
            family.0, mark.blocks, mark.mended, mark.unmended
        );
        // Writing to a string does not fail.
        let _ = writeln!(text, " {}", crc(text.as_bytes()));
        text
    }

    /// Whose it is.
    fn head(&self) -> String {
        let cluster = u128::from_be_bytes(self.cluster);
        format!("{VERSION} {cluster:032x} {}", self.disk.0)
    }

    fn parse(&self, text: &str, now_ms: u64) -> Option<Mark> {
        let (sealed, sum) = text.trim_end().rsplit_once(' ')?;
        if sum.parse() != Ok(crc(sealed.as_bytes())) {
            return None;
        }
        let rest = sealed.strip_prefix(&self.head())?.strip_prefix(' ')?;
        let numbers: Vec<u64> = rest
            .split(' ')
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        let [family, index, blocks, mended, unmended, at] = *numbers.as_slice() else {
            return None;
        };
        // A clock that was set back says nothing of its age.
        let counts = now_ms.checked_sub(at).is_some_and(|age| age < COUNTS_FOR_MS);
        let column = (FamilyId(family), u32::try_from(index).ok()?);
        counts.then_some(Mark {
            column,
            blocks,
            mended,
            unmended,
        })
    }
}

#[cfg(test)]
mod tests {
    //! What is taken up, and what is not.
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn mark() -> Mark {
        Mark {
            column: (FamilyId(7), 30),
            blocks: 1000,
            mended: 2,
            unmended: 1,
        }
    }

    fn bookmark(directory: &Path) -> Bookmark {
        Bookmark::of(directory, [0x2a; 16], DiskId(3))
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_was_for_a_day() {
        let directory = tempfile::tempdir().unwrap();
        bookmark(directory.path()).note(&mark(), Instant::now(), NOW);
        let next = bookmark(directory.path());
        assert_eq!(next.read(NOW), Some(mark()));
        assert_eq!(next.read(NOW + COUNTS_FOR_MS - 1), Some(mark()));
        assert_eq!(next.read(NOW + COUNTS_FOR_MS), None, "it is too old");
        assert_eq!(next.read(NOW - 1), None, "it is of the future");
    }

    #[test]
    fn the_layout_stays_what_it_is() {
        let text = bookmark(Path::new("")).text(&mark(), NOW);
        let golden = "1 2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a 3 7 30 1000 2 1 1800000000000";
        assert_eq!(text, format!("{golden} {}\n", crc(golden.as_bytes())));
    }

    #[test]
    fn what_is_damaged_or_foreign_is_begun_anew() {
        let ours = bookmark(Path::new(""));
        let text = ours.text(&mark(), NOW);
        assert_eq!(ours.parse(&text, NOW), Some(mark()));
        for at in 0..text.trim_end().len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let damaged = String::from_utf8(damaged).unwrap();
            assert_eq!(ours.parse(&damaged, NOW), None, "{damaged}");
            assert_eq!(ours.parse(&text[..at], NOW), None, "cut at {at}");
        }
        for other in [
            Bookmark::of(Path::new(""), [0x2b; 16], DiskId(3)),
            Bookmark::of(Path::new(""), [0x2a; 16], DiskId(4)),
        ] {
            assert_eq!(ours.parse(&other.text(&mark(), NOW), NOW), None);
        }
    }

    #[test]
    fn it_is_written_once_a_minute_and_gone_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let (mut bookmark, begun) = (bookmark(directory.path()), Instant::now());
        bookmark.note(&mark(), begun, NOW);
        let later = Mark {
            blocks: 5000,
            ..mark()
        };
        bookmark.note(&later, begun + EVERY / 2, NOW);
        assert_eq!(bookmark.read(NOW), Some(mark()));
        bookmark.note(&later, begun + EVERY, NOW);
        assert_eq!(bookmark.read(NOW), Some(later));
        bookmark.remove();
        assert_eq!(bookmark.read(NOW), None);
    }
}
