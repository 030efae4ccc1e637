//! The words that all processes of storaged share: identities, stamps, block geometry, the requests
//! that a replica makes of its disk, and the frames that travel between processes.
//!
//! This crate is the only one that knows bytes on the wire. It performs no I/O, reads no clock and
//! knows nothing of tokio, of files, or of how a message is acted upon.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod codec;
pub mod frame;
pub mod geometry;
pub mod id;
pub mod inbox;
pub mod layer;
pub mod limits;
pub mod map;
pub mod message;
pub mod outbox;
pub mod place;
pub mod placement;
pub mod profile;
pub mod ranges;
pub mod recovery;
pub mod rows;
pub mod session;
pub mod shared;
pub mod stamp;
pub mod storage;

pub use geometry::{BLOCK_SIZE, BlockRange, CHUNK_SIZE, OBJECT_SIZE};
pub use id::{
    DiskId, FamilyId, Generation, Interval, LayerId, NodeId, ObjectId, PgId, PoolId, TreeRevision, VolumeId,
};
pub use layer::LayerChain;
pub use ranges::BlockRanges;
pub use stamp::Stamp;
