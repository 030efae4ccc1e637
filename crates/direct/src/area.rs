//! Memory that a front end shares with a disk of its own machine, so that the data of a large write
//! need not pass through a socket.
//!
//! The front end makes an [`Area`] and puts data there; the disks open it as a [`Window`] and write to their
//! files from it. A piece belongs to the disks from the moment on in which the front end sent the
//! requests that name it until the last answer comes: the front end does not touch it meanwhile. When a
//! connection ends with such requests unanswered, the whole area is retired. It cannot be made shorter,
//! so a disk that looks into it finds memory there, whatever its owner does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use protocol::{BLOCK_SIZE, CHUNK_SIZE};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::mm::ProtFlags;

use crate::mapping::Mapping;

/// How long an area is, in bytes: four writes of the largest size under way to one disk.
pub const AREA_BYTES: usize = 16 << 20;
/// What it is given out in.
const GRANULE: usize = CHUNK_SIZE as usize;

/// The front end's side. A clone is the same area.
#[derive(Clone, Debug)]
pub struct Area(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: OwnedFd,
    memory: Mapping,
    granules: Mutex<Granules>,
}

#[derive(Debug)]
struct Granules {
    taken: Vec<bool>,
    retired: bool,
}

/// A part of an area that is being filled, or that is in use.
#[derive(Debug)]
pub struct Piece {
    area: Arc<Inner>,
    first: usize,
    length: usize,
}

impl Area {
    /// New memory, nothing of it in use. It takes no pages before it is used.
    pub fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("storaged-writes", flags)?;
        rustix::fs::ftruncate(&file, AREA_BYTES as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = Mapping::new(&file, AREA_BYTES, ProtFlags::READ | ProtFlags::WRITE)?;
        let granules = Granules {
            taken: vec![false; AREA_BYTES / GRANULE],
            retired: false,
        };
        Ok(Self(Arc::new(Inner {
            file,
            memory,
            granules: Mutex::new(granules),
        })))
    }

    /// The number by which another process finds it under `/proc/PID/fd`.
    pub fn descriptor(&self) -> u32 {
        self.0.file.as_raw_fd().unsigned_abs()
    }

    /// A piece of this length, to be filled, if there is room. What is in it is left from others.
    pub fn piece(&self, length: usize) -> Option<Piece> {
        let mut granules = self.0.granules();
        if granules.retired {
            return None;
        }
        let count = length.div_ceil(GRANULE);
        let mut free = 0;
        let last = granules.taken.iter().position(|taken| {
            free = if *taken { 0 } else { free + 1 };
            free == count
        })?;
        let first = last + 1 - count;
        granules.taken[first..=last].fill(true);
        Some(Piece {
            area: Arc::clone(&self.0),
            first,
            length,
        })
    }

    /// Where bytes begin in the area, if they are of it.
    pub fn place_of(&self, bytes: &[u8]) -> Option<u64> {
        let at = bytes
            .as_ptr()
            .addr()
            .checked_sub(self.0.memory.start().addr().get())?;
        (at + bytes.len() <= AREA_BYTES).then_some(at as u64)
    }

    /// Gives no more pieces out: a disk whose connection broke may still be reading some, so nothing
    /// of this memory may be written again.
    pub fn retire(&self) {
        self.0.granules().retired = true;
    }

    /// Whether it gives no more pieces out.
    pub fn is_retired(&self) -> bool {
        self.0.granules().retired
    }
}

impl Inner {
    fn granules(&self) -> MutexGuard<'_, Granules> {
        self.granules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// How long it is, in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the granules lie inside the mapping and are given to this piece alone until it is
        // dropped; nobody else writes there, and nobody reads before a request names them.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length) }
    }

    /// Its bytes, which do not change any more. It is free again when all clones are dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the piece lies inside the mapping (`Area::piece`).
        unsafe { self.area.memory.start().as_ptr().add(self.first * GRANULE) }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`; this process writes there through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.start(), self.length) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let end = self.first + self.length.div_ceil(GRANULE);
        self.area.granules().taken[self.first..end].fill(false);
    }
}

/// The disk's side.
#[derive(Clone, Debug)]
pub struct Window(Arc<Mapping>);

/// A part of a window: keeps it mapped.
struct View {
    memory: Arc<Mapping>,
    at: usize,
    length: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the part lies inside the mapping (`Window::bytes`), which the file's seal keeps from
        // becoming shorter. The front end does not write to it before the request is answered; one that
        // does all the same spoils its own volume's data only, which the checksums then tell.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr().add(self.at), self.length) }
    }
}

impl Window {
    /// Opens the area of another process of this machine.
    pub fn open(process: i32, descriptor: u32) -> io::Result<Self> {
        let refuse = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        // Whatever the descriptor is of, opening it must not wait.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(format!("/proc/{process}/fd/{descriptor}"))?;
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(refuse("the memory could be made shorter"));
        }
        if file.metadata()?.len() != AREA_BYTES as u64 {
            return Err(refuse("the memory has another length"));
        }
        let memory = Mapping::new(&file, AREA_BYTES, ProtFlags::READ)?;
        Ok(Self(Arc::new(memory)))
    }

    /// A part of it, which must begin at a multiple of 4096; nothing if it leaves the area.
    pub fn bytes(&self, at: u64, length: usize) -> Option<Bytes> {
        let at = usize::try_from(at).ok()?;
        let inside = at.checked_add(length).is_some_and(|end| end <= self.0.length());
        (inside && at.is_multiple_of(BLOCK_SIZE as usize)).then(|| {
            Bytes::from_owner(View {
                memory: Arc::clone(&self.0),
                at,
                length,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    //! What is put in is seen from outside; what is in use is not given out again.
    use super::*;

    fn window(area: &Area) -> Window {
        let process = i32::try_from(std::process::id()).unwrap();
        Window::open(process, area.descriptor()).unwrap()
    }

    fn filled(area: &Area, value: u8, length: usize) -> Bytes {
        let mut piece = area.piece(length).unwrap();
        piece.bytes_mut().fill(value);
        piece.freeze()
    }

    #[test]
    fn what_one_side_puts_in_the_other_sees() {
        let area = Area::new().unwrap();
        let window = window(&area);
        let one = filled(&area, 1, 100_000);
        let two = filled(&area, 2, GRANULE);
        let seen = |bytes: &Bytes| {
            let at = area.place_of(bytes).unwrap();
            window.bytes(at, bytes.len()).unwrap()
        };
        assert_eq!(seen(&one), vec![1; 100_000]);
        assert_eq!(seen(&two.slice(8192..12288)), vec![2; 4096]);
        let kept = seen(&two);
        drop((area, window, one, two));
        assert_eq!(kept, vec![2; GRANULE], "a part keeps the memory");
    }

    #[test]
    fn what_is_in_use_is_not_given_out_and_what_is_dropped_is() {
        let area = Area::new().unwrap();
        let mut pieces: Vec<Bytes> = (0..4).map(|value| filled(&area, value, 4 << 20)).collect();
        assert!(area.piece(1).is_none());
        let clone = pieces[2].clone();
        drop(pieces.remove(2));
        assert!(area.piece(1).is_none(), "a clone still has it");
        drop(clone);
        assert!(area.piece((4 << 20) + 1).is_none());
        let again = filled(&area, 9, 4 << 20);
        assert_eq!(area.place_of(&again), Some(8 << 20));
        area.retire();
        drop(again);
        assert!(area.piece(1).is_none(), "it was retired");
    }

    #[test]
    fn bytes_of_elsewhere_have_no_place() {
        let area = Area::new().unwrap();
        let other = filled(&Area::new().unwrap(), 1, 100);
        assert_eq!(area.place_of(&other), None);
        assert_eq!(area.place_of(&[0; 10]), None);
    }

    #[test]
    fn parts_outside_and_between_blocks_are_refused() {
        let area = Area::new().unwrap();
        let window = window(&area);
        assert!(window.bytes(AREA_BYTES as u64, 1).is_none());
        assert!(window.bytes(u64::MAX, 1).is_none());
        assert!(window.bytes(0, AREA_BYTES + 1).is_none());
        assert!(window.bytes(100, 4096).is_none());
    }

    /// Guards: memory that its owner can cut short would kill a disk that looks at it.
    #[test]
    fn memory_that_can_be_cut_short_is_refused() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("unsealed", flags).unwrap();
        rustix::fs::ftruncate(&file, AREA_BYTES as u64).unwrap();
        let process = i32::try_from(std::process::id()).unwrap();
        let open = || Window::open(process, file.as_raw_fd().unsigned_abs());
        assert!(open().is_err());
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        assert!(open().is_ok());
    }
}
