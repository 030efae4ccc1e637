//! The block device that front ends program against, whatever stands behind it: an open volume of
//! the cluster, or the in-memory reference model of the tests.
//!
//! A device lives on one thread. A call never blocks: it takes an operation and a continuation, and
//! the continuation runs once, on the same thread, maybe before the call returns.

use aligned_vec::{AVec, ConstAlign};
use bytes::Bytes;
use direct::area::Piece;
use protocol::storage::MapKind;

/// The most bytes in the blocks that a [`Operation::CompareAndWrite`] touches. The longest that SCSI can ask for are 255
/// sectors of 512 bytes (SBC-3, 5.3), wherever they begin in a block.
pub const COMPARE_MAX: u32 = protocol::shared::COMPARE_MAX;

/// One request. Offsets and lengths are in bytes and are multiples of
/// [`DeviceInfo::alignment`]; a length is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read; answered with [`Outcome::Data`].
    Read {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Write. On stable storage, on all replicas in sync, when it is answered.
    Write {
        /// Where to.
        offset: u64,
        /// What, in order; the pieces' lengths add up to the request's.
        data: Vec<Bytes>,
    },
    /// Make the range read as zeros; its space is given back.
    WriteZeroes {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Give the range's space back. It reads as zeros afterwards, always.
    Discard {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// Write `data` if the range holds `expected`, with nothing of anybody's in between: every other request that
    /// overlaps it comes before or after as a whole. Answered with [`Outcome::Done`] or [`Outcome::Differs`].
    CompareAndWrite {
        /// Where to. The blocks of 4 KiB that the range touches lie in one object of 4 MiB, and have at most
        /// [`COMPARE_MAX`] bytes.
        offset: u64,
        /// What must be there; as many bytes as `data`.
        expected: Bytes,
        /// What is there afterwards.
        data: Bytes,
    },
    /// Answered when all writes that were submitted before are answered. Costs no round trip.
    Flush,
    /// Which parts of a range hold data; answered with [`Outcome::Map`].
    Map {
        /// From where.
        offset: u64,
        /// How much.
        length: u64,
    },
}

/// The answer to an [`Operation`] that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write, a discard, a compare-and-write or a flush is done.
    Done,
    /// A compare-and-write found something else; nothing was written.
    Differs {
        /// The volume's byte that differs first.
        offset: u64,
    },
    /// What was read, in order; the pieces' lengths add up to the request's.
    Data(Vec<Bytes>),
    /// Runs that touch and cover the range, in order: length in bytes, and what is there.
    Map(Vec<(u64, MapKind)>),
}

/// Why an [`Operation`] was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Beyond the end, not aligned, or empty. Nothing was done.
    #[error("the request is not aligned or leaves the volume, which has {size} bytes")]
    Invalid {
        /// The volume's size in bytes.
        size: u64,
    },
    /// A compare-and-write that no device takes. Nothing was done.
    #[error(
        "a compare-and-write has as many bytes to compare as to write, in at most {} KiB of whole blocks within one object",
        COMPARE_MAX / 1024
    )]
    NotComparable,
    /// A compare-and-write was under way when the owner of a shared volume died, and the range holds what it was to
    /// write: that may be its own doing, or have been so before. It will not be done any more.
    #[error("it is not known whether the compare-and-write was done: read what is there")]
    NotKnown,
    /// Who owns the shared volume cannot do this. Nothing was done.
    #[error("the shared volume is owned by an older program, which has no compare-and-write: upgrade it")]
    OlderOwner,
    /// Others who share the volume changed the same block again and again. Of a write that is longer than a part of one
    /// block, the rest may have been done.
    #[error("others who share the volume changed the same 4 KiB block {rounds} times meanwhile")]
    Contended {
        /// How often it was tried.
        rounds: u32,
    },
    /// The device is open for reading only.
    #[error("the volume is open for reading only")]
    ReadOnly,
    /// No disk has a good copy of a block. Other blocks are not affected.
    #[error("no disk has a good copy of the 4 KiB block at byte {offset}")]
    Damaged {
        /// The block's offset in bytes.
        offset: u64,
    },
    /// No room for new data. Reads, discards and overwrites of present data may still work.
    #[error("the pool is full: discard or delete something, or add a disk")]
    Full,
    /// Somebody else owns the volume now. Every further request ends like this.
    #[error("the volume was taken over by another process")]
    Lost,
    /// The device was closed. Every further request ends like this.
    #[error("the volume is closed")]
    Closed,
}

/// Runs once, with the answer.
pub type Continuation = Box<dyn FnOnce(Result<Outcome, DeviceError>)>;

/// What a front end may ask about a device at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The volume's name, or `volume@snapshot`.
    pub name: String,
    /// A stable identity of at most 20 printable ASCII characters: the serial number that guests see.
    pub serial: String,
    /// The present size in bytes: it may grow while the device is open.
    pub size: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What offsets and lengths must be a multiple of, in bytes: 4096, or 512 or 1 through
    /// the sector layer of this crate.
    pub alignment: u32,
}

/// A change that a front end may want to tell its user of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// The size in bytes is another one now.
    Resized(u64),
    /// The volume belongs to somebody else: [`DeviceError::Lost`] from now on.
    Lost,
    /// The volume, which is shared, has its owner on another node now.
    OwnerMoved,
    /// Somebody waits for the volume: whoever has no use for it just now may close it.
    Wanted,
}

/// Runs at every [`DeviceEvent`].
pub type Listener = Box<dyn Fn(DeviceEvent)>;

/// A block device on the current thread.
pub trait BlockDevice {
    /// What it is, now.
    fn info(&self) -> DeviceInfo;

    /// Starts an operation. At most a bounded number is carried out at once; the rest waits in order.
    fn submit(&self, operation: Operation, done: Continuation);

    /// Calls `listener` at every [`DeviceEvent`] from now on, in place of any former listener.
    fn listen(&self, listener: Listener);

    /// Begins at once what the device itself holds back, for the volume has limits: somebody waits until everything is
    /// answered. What is begun so counts against what comes later.
    fn hurry(&self) {}

    /// Where to put the data of a write of this length, best for this device: large ones need not be
    /// copied again then. Any other bytes do as well.
    fn buffer(&self, length: usize) -> WriteBuffer {
        WriteBuffer::new(length)
    }
}

/// Room for the data of a write, at an address that is a multiple of 4096.
#[derive(Debug)]
pub struct WriteBuffer(Room);

#[derive(Debug)]
enum Room {
    Own(AVec<u8, ConstAlign<4096>>),
    Shared(Piece),
}

impl WriteBuffer {
    /// Room in this process's own memory.
    pub fn new(length: usize) -> Self {
        let mut room = AVec::with_capacity(4096, length);
        room.resize(length, 0);
        Self(Room::Own(room))
    }

    /// Room that disks of this machine see.
    pub(crate) fn shared(piece: Piece) -> Self {
        Self(Room::Shared(piece))
    }

    /// All of it, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Room::Own(room) => room,
            Room::Shared(piece) => piece.bytes_mut(),
        }
    }

    /// How much goes in, in bytes.
    pub fn length(&self) -> usize {
        match &self.0 {
            Room::Own(room) => room.len(),
            Room::Shared(piece) => piece.length(),
        }
    }

    /// What was put in.
    pub fn freeze(self) -> Bytes {
        match self.0 {
            Room::Own(room) => Bytes::from_owner(room),
            Room::Shared(piece) => piece.freeze(),
        }
    }
}
