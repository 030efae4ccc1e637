//! An open volume of the cluster: the block device that `vhost-blk` and the gateways stand on.
//!
//! One volume lives on one thread, inside a tokio `LocalSet`. The owner state machine decides
//! everything; the parts here carry its actions out: [`connection`] keeps the sockets to the disks,
//! [`direct`] reads the files of those on this machine,
//! [`session`] the one to `storaged`, [`driver`] hands events and actions between them, [`limited`] holds back what comes too
//! fast for the volume's limits. While the volume moves to another
//! pool it has two owners, and [`transit`] leads operations to the right one.

mod again;
mod comparison;
mod connection;
pub(crate) mod credentials;
mod direct;
mod driver;
mod limited;
mod open;
pub(crate) mod session;
mod shared_writes;
mod timer;
mod transit;

use std::rc::Rc;
use std::time::Duration;

use aligned_vec::{AVec, ConstAlign};
use bytes::Bytes;
use protocol::session::{ExportEntry, SessionRefusal, VolumeView};
use protocol::{Generation, VolumeId};
use replication::owner;

use crate::device::{BlockDevice, Continuation, DeviceError, DeviceInfo, Listener, Operation, WriteBuffer};
use crate::throttle::Throttled;
use crate::transport::Address;
pub use ::direct::cache::Cache;
pub use direct::ReadRing;
use open::{Open, device_info};
use session::Opening;

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What kind of front end opens it, for people: `vhost-blk`, `nbd`.
    pub program: String,
    /// Where `storaged` can be reached, best first.
    pub storaged: Vec<Address>,
    /// The volume's name.
    pub volume: String,
    /// A snapshot's name: then the device is read only, and nothing is owned.
    pub snapshot: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How long to wait for the present owner to leave, and for `storaged` to answer.
    pub wait: Duration,
    /// Where what is read from disks of this machine is kept; nothing where whoever reads keeps it himself, as guests do.
    pub read_cache: Option<Cache>,
}

/// What may be opened at a `storaged`.
pub async fn list(program: &str, storaged: &[Address]) -> Result<Vec<ExportEntry>, OpenError> {
    session::list(program, storaged).await
}

/// What a volume is as a device, without opening it, whoever has it open.
pub async fn look(program: &str, storaged: &[Address], volume: &str) -> Result<DeviceInfo, OpenError> {
    let view = session::look(program, storaged, volume).await?;
    Ok(device_info(&view))
}

/// Why a volume was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `storaged` answered, and refused.
    #[error("{message}")]
    Refused {
        /// What kind of refusal.
        kind: SessionRefusal,
        /// A sentence of `storaged`'s.
        message: String,
    },
    /// `storaged` cannot be reached.
    #[error("storaged does not answer at {address}: {source}; is it running?")]
    Unreachable {
        /// The address that was tried last.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The volume's pool encodes rows, and that cannot be computed here.
    #[error("volume {volume} is in a pool with erasure coding, which this machine cannot compute: {source}")]
    Encoding {
        /// Its name.
        volume: String,
        /// What the arithmetic lacks.
        source: erasure::CodeError,
    },
    /// No address was given.
    #[error("no address of storaged was given")]
    NoAddress,
}

/// An open volume. Dropping it ends all I/O at once and leaves the lease to lapse: call
/// [`Volume::close`] first, to finish what was submitted and to give the volume back.
pub struct Volume {
    open: Rc<Open>,
}

impl Volume {
    /// Opens a volume. Operations may be submitted as soon as this returns; they wait until the
    /// former owner is fenced and its last writes are level on all disks.
    ///
    /// Must be called on a `LocalSet`.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, &mut None).await
    }

    /// As [`Volume::open`], reading directly with a ring that was made before. It is taken only if the volume is
    /// opened.
    pub async fn open_with(options: Options, ring: &mut Option<ReadRing>) -> Result<Self, OpenError> {
        let session = session::open(options, Opening::Plain).await?;
        Ok(Self {
            open: Open::start(session, ring)?,
        })
    }

    /// As [`Volume::open_with`], for a guest that stood still elsewhere and goes on here: whoever has the volume and no
    /// use for it any more is asked to give it back.
    pub async fn succeed(options: Options, ring: &mut Option<ReadRing>) -> Result<Self, OpenError> {
        let session = session::open(options, Opening::Succeeds).await?;
        Ok(Self {
            open: Open::start(session, ring)?,
        })
    }

    /// Opens a volume as its owner for all who share it, by an attachment of this front end.
    pub(crate) async fn open_attached(options: Options, attachment: u64) -> Result<Self, OpenError> {
        let session = session::open(options, Opening::Attached(attachment)).await?;
        Ok(Self {
            open: Open::start(session, &mut None)?,
        })
    }

    /// Takes the ring for direct reads out, when the volume is closed, for the next one.
    pub fn take_read_ring(&self) -> Option<ReadRing> {
        self.open.take_ring()
    }

    /// Waits until the take-over is done and operations are carried out.
    pub async fn opened(&self) {
        self.open.opened().await;
    }

    /// Asks `storaged` for what the volume is now: size, disks, layers. True when the answer is taken in;
    /// false if there is no connection, or if it breaks before.
    pub async fn refresh(&self) -> bool {
        self.open.refresh().await
    }

    /// The generation that it is owned with; 0 for a snapshot.
    pub fn generation(&self) -> Generation {
        self.open.generation()
    }

    /// Whether it is somebody else's by now.
    pub(crate) fn is_lost(&self) -> bool {
        self.open.is_lost()
    }

    /// Which volume it is.
    pub(crate) fn identity(&self) -> VolumeId {
        self.open.volume()
    }

    /// Finishes what was submitted, and gives the volume back.
    pub async fn close(&self) {
        self.open.close().await;
    }

    /// How many reads were done without asking a disk, since the volume was opened.
    pub fn direct_reads(&self) -> u64 {
        self.open.sum(|half| half.direct.count())
    }

    /// How many writes to disks had their data in shared memory, since the volume was opened.
    pub fn shared_writes(&self) -> u64 {
        self.open.sum(|half| half.shared_writes.get())
    }

    /// Whether all that lies in copies in a pool of rows, and is worth it, was found and encoded. True in pools of copies.
    pub fn is_encoded(&self) -> bool {
        self.open.with_head(|head| head.is_encoded()).unwrap_or(true)
    }

    /// How many requests waited for their turn by the volume's limits, since it was opened, and for how long.
    pub fn throttled(&self) -> Throttled {
        self.open.limited.throttled()
    }

    /// What operations wait for, in sentences, for people; empty when nothing waits.
    pub fn waiting(&self) -> Vec<String> {
        self.open.waiting()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.open.stop();
        self.open.forget();
    }
}

impl BlockDevice for Volume {
    fn info(&self) -> DeviceInfo {
        self.open.info()
    }

    fn submit(&self, operation: Operation, done: Continuation) {
        match self.open.check(&operation) {
            Ok(()) => self.open.submit(operation, done),
            Err(error) => done(Err(error)),
        }
    }

    fn listen(&self, listener: Listener) {
        self.open.listen(listener);
    }

    fn hurry(&self) {
        self.open.let_through();
    }

    fn buffer(&self, length: usize) -> WriteBuffer {
        let buffer = self.open.with_head(|head| head.buffer(length));
        buffer.unwrap_or_else(|| WriteBuffer::new(length))
    }
}

/// The owner's words for a device operation. Checksums are made here, once, before anything else
/// touches the bytes. An owner has no compare-and-write.
fn owner_operation(operation: Operation) -> Result<owner::Operation, DeviceError> {
    Ok(match operation {
        Operation::Read { offset, length } => owner::Operation::Read { offset, length },
        Operation::Write { offset, data } => {
            let bytes = aligned(data);
            owner::Operation::Write {
                offset,
                checksums: protocol::checksum::of_blocks(&bytes),
                bytes,
            }
        }
        Operation::WriteZeroes { offset, length } | Operation::Discard { offset, length } => {
            owner::Operation::Zero { offset, length }
        }
        Operation::CompareAndWrite { .. } => return Err(DeviceError::NotComparable),
        Operation::Flush => owner::Operation::Flush,
        Operation::Map { offset, length } => owner::Operation::Map { offset, length },
    })
}

/// The pieces of a write as one. A copy only if there are several; its address is then a multiple
/// of 4096, as a disk on this machine likes it.
fn aligned(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let length = pieces.iter().map(Bytes::len).sum();
    let mut whole: AVec<u8, ConstAlign<4096>> = AVec::with_capacity(4096, length);
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    Bytes::from_owner(whole)
}

/// The answer to an operation in the device's words.
fn device_error(failure: owner::Failure, view: &VolumeView) -> DeviceError {
    match failure {
        owner::Failure::Invalid => DeviceError::Invalid { size: view.size },
        owner::Failure::ReadOnly => DeviceError::ReadOnly,
        owner::Failure::Damaged { offset } => DeviceError::Damaged { offset },
        owner::Failure::Full => DeviceError::Full,
        owner::Failure::Lost => DeviceError::Lost,
        owner::Failure::Closed => DeviceError::Closed,
    }
}
