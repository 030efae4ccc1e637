//! What a disk is made with (for ever), and what it is opened with (this time).

use protocol::DiskId;

/// The smallest log that a disk is made with, in bytes: a few of the largest batches.
pub const LOG_BYTES_MIN: u64 = 1 << 20;
/// The largest log, in bytes: more would only make a start after a crash slow.
pub const LOG_BYTES_MAX: u64 = 4 << 30;
/// The log that a disk is made with unless told otherwise: about a tenth of a second of a fast
/// disk's bandwidth, and little enough to be read in less than a second at a start.
pub const LOG_BYTES_DEFAULT: u64 = 128 << 20;

/// What is written into a new disk's superblock and never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The cluster that the disk belongs to; all zero before there is one.
    pub cluster: [u8; 16],
    /// Which disk of the cluster.
    pub disk: DiskId,
    /// Random, new for each disk that is made: a log batch of another disk is never taken for ours.
    pub serial: [u8; 16],
    /// Length of the log, in bytes: a multiple of 4096 in [`LOG_BYTES_MIN`]..=[`LOG_BYTES_MAX`].
    pub log_bytes: u64,
}

/// How a disk is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The most that chunks may take, in bytes, whatever the file system has.
    pub capacity_bytes: u64,
    /// Left free on the file system for metadata and for others, in bytes: new data is refused
    /// while less is free.
    pub reserve_bytes: u64,
    /// How memory is shared out.
    pub memory: MemoryBudget,
    /// How the kernel is asked.
    pub engine: Engine,
    /// Whether other processes of this machine may read the disk's file themselves
    /// (`docs/decisions/0031-direct-reads.md`): then this is the name of this opening, drawn at random.
    pub share: Option<[u8; 16]>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity_bytes: u64::MAX,
            reserve_bytes: 256 << 20,
            memory: MemoryBudget::of(320 << 20),
            engine: Engine::Automatic,
            share: None,
        }
    }
}

/// The parts of a disk's memory, in bytes. Each is a bound that the store keeps by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Written blocks that are in the log and not yet in their chunks.
    pub overlay: u64,
    /// Objects' metadata that were read or written lately.
    pub metadata: u64,
    /// Blocks that were read lately.
    pub blocks: u64,
    /// The metadata tables' own pages.
    pub tables: u64,
}

impl MemoryBudget {
    /// Shares `total` bytes out: half for the overlay, a quarter for blocks, the rest for metadata.
    pub fn of(total: u64) -> Self {
        Self {
            overlay: total / 2,
            blocks: total / 4,
            metadata: total * 3 / 16,
            tables: total / 16,
        }
    }
}

/// How the kernel is asked for I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// `io_uring`, or threads where the kernel forbids it.
    #[default]
    Automatic,
    /// `io_uring`, or an error.
    IoUring,
    /// A few threads with `pread` and `pwrite`.
    Threads,
}
