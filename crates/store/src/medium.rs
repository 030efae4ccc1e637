//! The seam between a store and what it is kept on: a few files, asked asynchronously.
//!
//! In production a directory's files through `io_uring` or threads; in tests memory that records,
//! crashes and fails. A medium knows nothing of what is in the files.

pub mod directory;
pub mod memory;
mod pool;
mod threads;
mod uring;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

/// The files of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// Identity and format version.
    Superblock,
    /// The write-ahead log.
    Log,
    /// The chunks.
    Data,
    /// The metadata tables.
    Meta,
}

/// Where a read puts a part of what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From where in the file, in bytes, a multiple of 4096.
    pub offset: u64,
    /// How much, in bytes, a multiple of 4096.
    pub length: usize,
    /// To where in the buffer, in bytes, a multiple of 4096.
    pub at: usize,
}

pub use direct::buffers::Buffer;

/// Work that may block, done on a thread of the medium.
pub type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// What a medium is asked for.
pub enum Operation {
    /// Fill parts of a buffer from a file. What lies past the file's end reads as zeros.
    Read {
        /// Which file.
        file: File,
        /// From where to where; not empty.
        runs: Vec<Run>,
        /// What is filled, and comes back.
        buffer: Buffer,
    },
    /// Write pieces one after the other. Each is a multiple of 4096 long and at an aligned address.
    Write {
        /// Which file.
        file: File,
        /// To where, in bytes, a multiple of 4096.
        offset: u64,
        /// What.
        pieces: Vec<Bytes>,
        /// Whether it must be on stable storage when it completes.
        durable: bool,
    },
    /// Bring all completed writes of a file to stable storage.
    Flush(File),
    /// Give a range's space back; it reads as zeros afterwards, or as before after a crash.
    Punch {
        /// Which file.
        file: File,
        /// From where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// Do something that blocks.
    Job(Job),
}

/// What became of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// The buffer of a read, filled.
    Read(Buffer),
    /// A read failed: which of its runs, and how.
    ReadFailed(usize, io::Error),
    /// Anything else.
    Done(io::Result<()>),
}

/// A completed operation, with the token that it was submitted with.
#[derive(Debug)]
pub struct Completion {
    /// The token.
    pub token: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a store is kept on.
pub trait Medium {
    /// Takes an operation in. Operations in flight together are done in any order.
    fn submit(&mut self, token: u64, operation: Operation);

    /// Begins what was submitted.
    fn kick(&mut self);

    /// Takes out what is completed, in any order.
    fn poll(&mut self, completions: &mut Vec<Completion>);

    /// Blocks until something is completed, if anything is in flight.
    fn wait(&mut self);

    /// Becomes readable, edge-triggered, when something is completed.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>>;

    /// A file's length in bytes.
    fn length(&self, file: File) -> io::Result<u64>;

    /// Reads at once, blocking. What lies past the end reads as zeros.
    fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes and makes durable at once, blocking.
    fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Brings all completed writes of a file to stable storage at once, blocking.
    fn flush_now(&self, file: File) -> io::Result<()>;

    /// What the file system has free, in bytes.
    fn free_bytes(&self) -> io::Result<u64>;

    /// What people call this way of reaching a disk. Media of tests need no name of their own.
    fn name(&self) -> &'static str {
        "memory"
    }

    /// The file that the metadata tables are kept in.
    fn meta(&self) -> Arc<dyn MetaFile>;
}

/// The metadata tables' file: blocking, and usable from the thread that a [`Job`] runs on.
pub trait MetaFile: Debug + Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills the buffer. What lies past the end reads as zeros.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all the bytes.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts it or lengthens it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Brings all that was written to stable storage.
    fn flush(&self) -> io::Result<()>;
}
