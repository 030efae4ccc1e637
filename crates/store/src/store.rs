//! The open disk: requests in, answers out, nothing blocking in between but a look at metadata.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use protocol::storage::{StorageError, StorageReply, StorageRequest, StorageView};
use protocol::{FamilyId, Generation, Interval, LayerId, ObjectId, PgId, Stamp, VolumeId};

use crate::error::OpenError;
use crate::medium::Medium;
use crate::options::{Format, Options};
use crate::statistics::Statistics;

/// An answer, with the token of its request.
pub type Answer = (u64, Result<StorageReply, StorageError>);

/// An open disk. One thread uses it; it never blocks but for a lookup in the metadata tables.
pub struct Store {
    refused: Vec<Answer>,
    _medium: Box<dyn Medium>,
}

impl Store {
    /// Makes a disk in a directory, which is created if it is not there.
    pub fn create(directory: &Path, format: &Format) -> Result<(), OpenError> {
        let _ = format;
        Err(OpenError::NotADisk(directory.to_owned()))
    }

    /// Opens the disk of a directory; recovers it first if it was not closed.
    pub fn open(directory: &Path, options: &Options) -> Result<Self, OpenError> {
        let _ = options;
        Err(OpenError::NotADisk(directory.to_owned()))
    }

    /// Makes a disk on any medium.
    pub fn create_on(medium: &mut dyn Medium, format: &Format) -> Result<(), OpenError> {
        let _ = (medium, format);
        Ok(())
    }

    /// Opens the disk of any medium.
    pub fn open_on(medium: Box<dyn Medium>, options: &Options) -> Result<Self, OpenError> {
        let _ = options;
        Ok(Self { refused: Vec::new(), _medium: medium })
    }

    /// Takes a request in. Its answer comes out of [`Store::poll`], maybe after a [`Store::kick`].
    pub fn submit(&mut self, token: u64, request: StorageRequest) {
        let _ = request;
        self.refused.push((token, Err(StorageError::Poisoned(Arc::from("not built yet")))));
    }

    /// Sends to the medium what was gathered since the last call: call it once a loop turn.
    pub fn kick(&mut self) {}

    /// Handles what the medium completed and takes out the answers. Kicks as well, if that made
    /// something ready to be sent.
    pub fn poll(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.refused);
    }

    /// Blocks until the medium completed something, if it has anything in flight: for programs
    /// without a loop of their own.
    pub fn wait(&mut self) {}

    /// Becomes readable, edge-triggered, whenever [`Store::poll`] has something to handle.
    /// A medium in memory has none: poll it.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What the superblock says.
    pub fn format(&self) -> Format {
        Format { cluster: [0; 16], disk: protocol::DiskId(0), serial: [0; 16], log_bytes: 0 }
    }

    /// The objects in doubt, ascending, with their stamps.
    pub fn doubts(&self) -> Vec<(ObjectId, Stamp)> {
        Vec::new()
    }

    /// The highest generation of each volume that was ever seen, ascending.
    pub fn generations(&self) -> Vec<(VolumeId, Generation)> {
        Vec::new()
    }

    /// The highest interval of each placement group that was ever seen, ascending.
    pub fn intervals(&self) -> Vec<(PgId, Interval)> {
        Vec::new()
    }

    /// Up to `limit` objects of one layer with an index not below `from_index`, ascending, and
    /// where to go on (nothing at the end): for those who drop or merge a layer.
    pub fn objects_of_layer(
        &mut self,
        family: FamilyId,
        layer: LayerId,
        from_index: u32,
        limit: usize,
    ) -> Result<(Vec<u32>, Option<u32>), StorageError> {
        let _ = (family, layer, from_index, limit);
        Ok((Vec::new(), None))
    }

    /// The figures of this moment.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// Whether a checkpoint would make something smaller: the log, the overlay, or the space taken.
    pub fn has_background_work(&self) -> bool {
        false
    }

    /// Starts a checkpoint if none runs: for a quiet moment, or before a close. It goes on with
    /// each [`Store::poll`].
    pub fn checkpoint(&mut self) {}

    /// Completes everything in flight, checkpoints, and closes. Answers that nobody took are lost.
    pub fn close(self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl StorageView for Store {
    fn stamp(&mut self, object: ObjectId) -> Result<Stamp, StorageError> {
        let _ = object;
        Ok(Stamp::ZERO)
    }
}
