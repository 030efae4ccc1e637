//! Figures of one disk, for metrics and status. Counters grow from the moment of opening.

/// A moment's figures. Bytes are bytes; nothing here is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How the disk is reached: `io_uring` or `pread`; nothing before it was opened.
    pub medium: &'static str,
    /// The most that chunks may take.
    pub capacity_bytes: u64,
    /// What chunks take, those included that wait to be given back.
    pub used_bytes: u64,
    /// What new data may still take before requests are refused.
    pub free_bytes: u64,
    /// Length of the log.
    pub log_bytes: u64,
    /// What of the log waits for a checkpoint.
    pub log_used_bytes: u64,
    /// Written blocks in memory that are not yet in their chunks.
    pub overlay_bytes: u64,
    /// Objects' metadata in memory.
    pub metadata_bytes: u64,
    /// Blocks in the read cache.
    pub cached_bytes: u64,
    /// Requests that wait for an answer.
    pub in_flight: u64,
    /// Objects in doubt.
    pub objects_in_doubt: u64,
    /// Reads answered with bytes.
    pub reads: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Blocks that the read cache had.
    pub cache_hits: u64,
    /// Blocks that it had not.
    pub cache_misses: u64,
    /// Writes accepted.
    pub writes: u64,
    /// Bytes of these, zeroed ones not counted.
    pub write_bytes: u64,
    /// Batches written to the log: one device write with its flush each.
    pub log_batches: u64,
    /// Bytes of these.
    pub log_batch_bytes: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Blocks found damaged by reads.
    pub damaged_blocks: u64,
}
