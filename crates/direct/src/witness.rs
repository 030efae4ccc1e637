//! The witness: counters in a file of the disk's directory, which the disk's process and all readers
//! of the disk map into their memory.
//!
//! ```text
//! offset   size  field
//!      0      8  magic, the bytes "STGDWIT1"
//!      8     16  the opening: drawn anew each time the disk is opened
//!     24      8  admissions: goes up when some reader may not be let in any more
//!   4096   1 MiB 131072 counts of moves, 8 bytes each
//! ```
//!
//! Numbers are in the machine's own order: nobody reads the file on another one. A count of moves
//! belongs to all chunks that hash to it, and goes up *before* any of them changes: before a block of
//! it is written, zeroed or given another place. So a reader who finds the count unchanged *after*
//! his read is done knows that the bytes which he read were the chunk's at some moment meanwhile.
//!
//! It is a file and not only memory because a reader may be stopped while the disk's process dies and
//! another one opens the disk: whoever opens counts the admissions up in the same file, first of all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::FamilyId;
use protocol::geometry::CHUNKS_PER_OBJECT;
use rustix::mm::ProtFlags;

use crate::mapping::Mapping;

/// Its name in a disk's directory.
pub const FILE_NAME: &str = "witness";

const MAGIC: [u8; 8] = *b"STGDWIT1";
const ADMISSIONS_AT: usize = 24;
const MOVES_AT: usize = 4096;
/// Counts of moves: so many that the chunks of some GiB under write do not disturb one another.
const MOVES: usize = 1 << 17;
const LENGTH: usize = MOVES_AT + MOVES * size_of::<u64>();

/// The mapped file. It is only used through atomics but for the opening, which is written once, before the
/// value is given to anybody.
#[derive(Debug)]
struct Memory(Mapping);

impl Memory {
    fn map(file: &File, protection: ProtFlags) -> io::Result<Self> {
        Mapping::new(file, LENGTH, protection).map(Self)
    }

    fn count(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= LENGTH);
        // SAFETY: `at` is inside the mapping and a multiple of eight, as all callers compute it from
        // constants and a remainder; all processes use these eight bytes as an atomic only.
        unsafe { AtomicU64::from_ptr(self.0.start().as_ptr().add(at).cast()) }
    }

    fn moves(&self, family: FamilyId, index: u32, chunk: u8) -> &AtomicU64 {
        self.count(MOVES_AT + place(family, index, chunk) * size_of::<u64>())
    }
}

/// Which count belongs to a chunk. The chunks of an object lie side by side, so that telling of all of
/// them touches few cache lines.
fn place(family: FamilyId, index: u32, chunk: u8) -> usize {
    let objects = MOVES as u64 / u64::from(CHUNKS_PER_OBJECT);
    // Two odd constants, of splitmix64: neighbours spread over all counts.
    let mixed = (family.0 ^ u64::from(index).rotate_left(32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
    let object = (mixed >> 32) % objects;
    let chunk = u64::from(chunk) % u64::from(CHUNKS_PER_OBJECT);
    usize::try_from(object * u64::from(CHUNKS_PER_OBJECT) + chunk).unwrap_or(0)
}

/// The disk's side: counts up. One process has it, the one that holds the disk's lock.
#[derive(Debug)]
pub struct Witness {
    memory: Memory,
    opening: [u8; 16],
}

impl Witness {
    /// Opens or makes the witness of a disk's directory, whose lock the caller holds, and shuts out
    /// all who read by what former openings told them. `opening` is random.
    pub fn open(directory: &Path, opening: [u8; 16]) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join(FILE_NAME))?;
        if file.metadata()?.len() != LENGTH as u64 {
            file.set_len(LENGTH as u64)?;
            // Room on the file system now: a mapped hole that finds none kills the process that writes.
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, LENGTH as u64)?;
        }
        Self::open_on(&file, opening)
    }

    /// As [`Self::open`], on a file that the caller has open: one in memory, too, which has no directory. Such a file's
    /// holes need no room before they are written.
    pub fn open_on(file: &File, opening: [u8; 16]) -> io::Result<Self> {
        if file.metadata()?.len() != LENGTH as u64 {
            file.set_len(LENGTH as u64)?;
        }
        let memory = Memory::map(file, ProtFlags::READ | ProtFlags::WRITE)?;
        memory.count(ADMISSIONS_AT).fetch_add(1, Ordering::SeqCst);
        use_opening(file, opening)?;
        Ok(Self { memory, opening })
    }

    /// Which opening of the disk this is.
    pub fn opening(&self) -> [u8; 16] {
        self.opening
    }

    /// A chunk is about to change, in any layer.
    pub fn moves(&self, family: FamilyId, index: u32, chunk: u8) {
        self.memory
            .moves(family, index, chunk)
            .fetch_add(1, Ordering::SeqCst);
    }

    /// The count of a chunk's moves.
    pub fn count(&self, family: FamilyId, index: u32, chunk: u8) -> u64 {
        self.memory.moves(family, index, chunk).load(Ordering::SeqCst)
    }

    /// Some reader may not be let in any more: all must ask again.
    pub fn readmit(&self) {
        self.memory.count(ADMISSIONS_AT).fetch_add(1, Ordering::SeqCst);
    }

    /// The count of admissions.
    pub fn admission(&self) -> u64 {
        self.memory.count(ADMISSIONS_AT).load(Ordering::SeqCst)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // The disk is closed: nobody tells of its moves any more.
        self.readmit();
    }
}

/// Writes the head of the file. Through the file and not the mapping: the page cache is one.
fn use_opening(file: &File, opening: [u8; 16]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(&opening, MAGIC.len() as u64)?;
    file.write_all_at(&MAGIC, 0)
}

/// A reader's side: looks only.
#[derive(Debug)]
pub struct Watch {
    memory: Memory,
}

impl Watch {
    /// Opens the witness of a directory, if it is of this opening of the disk.
    pub fn open(directory: &Path, opening: [u8; 16]) -> io::Result<Self> {
        use std::os::unix::fs::FileExt;
        let file = File::open(directory.join(FILE_NAME))?;
        let stale = || io::Error::new(io::ErrorKind::InvalidData, "it is the witness of another opening");
        let mut head = [0; ADMISSIONS_AT];
        file.read_exact_at(&mut head, 0)?;
        if file.metadata()?.len() != LENGTH as u64 || head[..8] != MAGIC || head[8..] != opening {
            return Err(stale());
        }
        Ok(Self {
            memory: Memory::map(&file, ProtFlags::READ)?,
        })
    }

    /// The count of a chunk's moves.
    pub fn count(&self, family: FamilyId, index: u32, chunk: u8) -> u64 {
        self.memory.moves(family, index, chunk).load(Ordering::SeqCst)
    }

    /// The count of admissions.
    pub fn admission(&self) -> u64 {
        self.memory.count(ADMISSIONS_AT).load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    //! What the disk counts, its readers see; who opened before is shut out.
    use super::*;

    #[test]
    fn a_reader_sees_what_the_disk_counts_and_nothing_else_moves() {
        let directory = tempfile::tempdir().unwrap();
        let witness = Witness::open(directory.path(), [1; 16]).unwrap();
        let watch = Watch::open(directory.path(), [1; 16]).unwrap();
        let (one, other) = ((FamilyId(7), 3, 5), (FamilyId(7), 3, 6));
        let before = (
            watch.count(one.0, one.1, one.2),
            watch.count(other.0, other.1, other.2),
        );
        witness.moves(one.0, one.1, one.2);
        assert_eq!(watch.count(one.0, one.1, one.2), before.0 + 1);
        assert_eq!(watch.count(other.0, other.1, other.2), before.1);
        assert_eq!(watch.admission(), witness.admission());
        witness.readmit();
        assert_eq!(watch.admission(), witness.admission());
    }

    /// Law: whoever was told something by a former opening of the disk, and stood still while the
    /// disk's process died and another one opened it, finds that he is not admitted any more.
    #[test]
    fn an_opening_shuts_out_the_readers_of_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let witness = Witness::open(directory.path(), [1; 16]).unwrap();
        let watch = Watch::open(directory.path(), [1; 16]).unwrap();
        let admitted = watch.admission();
        std::mem::forget(witness); // Killed: it closes nothing.
        let _next = Witness::open(directory.path(), [2; 16]).unwrap();
        assert_ne!(watch.admission(), admitted);
        assert!(Watch::open(directory.path(), [1; 16]).is_err());
        assert!(Watch::open(directory.path(), [2; 16]).is_ok());
    }

    #[test]
    fn a_disk_that_is_closed_admits_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let witness = Witness::open(directory.path(), [1; 16]).unwrap();
        let watch = Watch::open(directory.path(), [1; 16]).unwrap();
        let admitted = watch.admission();
        drop(witness);
        assert_ne!(watch.admission(), admitted);
    }

    /// Guards: a hash that puts all chunks on few counts would make every write disturb every read.
    #[test]
    fn chunks_spread_over_the_counts() {
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..1000 {
            for chunk in 0..64 {
                seen.insert(place(FamilyId(1), index, chunk));
            }
        }
        assert!(seen.len() > 64 * 700, "{}", seen.len());
        assert!(seen.last().is_some_and(|last| *last < MOVES));
    }
}
