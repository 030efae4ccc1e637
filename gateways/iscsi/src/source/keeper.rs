//! Where the reservations of one volume are kept, so that all portals agree on them: in the cluster, or in this process.
//!
//! Records are replaced as a whole. Refuses to know what they mean.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Weak;
use std::time::Duration;

use admin_api::iscsi::{Reservations, WAIT_MS_MAX};
use admin_client::{AskError, IscsiDirectory};
use client::backoff::Backoff;
use client::shared::{NotTold, SharedVolume};
use tokio::time::timeout;

use crate::source::SourceError;

/// How long it may take until all other portals have taken notice. One that is gone is off the roster sooner; initiators
/// wait for 30 s.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);

/// See the module.
pub enum Keeper {
    /// With the cluster's other records.
    Cluster {
        /// Whom to ask.
        directory: IscsiDirectory,
        /// The volume.
        volume: u64,
        /// The volume, by which other portals are told.
        shared: Weak<SharedVolume>,
    },
    /// In this process, gone with it.
    Memory(RefCell<Reservations>),
}

impl Keeper {
    /// The present record.
    pub async fn load(&self) -> Result<Reservations, SourceError> {
        match self {
            Self::Cluster {
                directory, volume, ..
            } => Ok(directory.reservations(*volume, None, Duration::ZERO).await?),
            Self::Memory(record) => Ok(record.borrow().clone()),
        }
    }

    /// Puts a record in place of the one that it was made from. Gives the record as it is kept, or the newer one that is
    /// there instead. After an error it may have been kept.
    pub async fn swap(&self, next: &Reservations) -> Result<Result<Reservations, Reservations>, SourceError> {
        match self {
            Self::Cluster {
                directory, volume, ..
            } => match directory.set_reservations(*volume, next).await {
                Ok(kept) => Ok(Ok(kept)),
                Err(error) if error.is_conflict() => Ok(Err(self.load().await?)),
                Err(error) => Err(error.into()),
            },
            Self::Memory(record) => {
                let mut present = record.borrow_mut();
                if present.revision != next.revision {
                    return Ok(Err(present.clone()));
                }
                *present = Reservations {
                    revision: next.revision + 1,
                    ..next.clone()
                };
                Ok(Ok(present.clone()))
            }
        }
    }

    /// Has all other portals take notice of a new record. When this returns they go by it, and nothing is under way there
    /// that it ended.
    pub async fn give_notice(&self) -> Result<(), SourceError> {
        let Self::Cluster { shared, volume, .. } = self else {
            return Ok(());
        };
        let untold = |why: String| SourceError::Untold { volume: *volume, why };
        let shared = shared.upgrade().ok_or_else(|| untold(NotTold.to_string()))?;
        match timeout(NOTICE_LIMIT, shared.give_notice()).await {
            Ok(told) => told.map_err(|error| untold(error.to_string())),
            Err(_) => Err(untold(format!(
                "somebody had not answered after {} s",
                NOTICE_LIMIT.as_secs()
            ))),
        }
    }

    /// The present record, as soon as it can be had.
    pub async fn reload(&self) -> Reservations {
        let mut backoff = Backoff::default();
        loop {
            match self.load().await {
                Ok(record) => return record,
                Err(error) => {
                    tracing::debug!(%error, "reservations cannot be had");
                    backoff.pause().await;
                }
            }
        }
    }

    /// Waits until the record is another one than that of a revision. What this process keeps changes by its own hand
    /// only.
    pub async fn changed(&self, revision: u64) -> Reservations {
        let Self::Cluster {
            directory, volume, ..
        } = self
        else {
            return pending().await;
        };
        let wait = Duration::from_millis(WAIT_MS_MAX);
        let mut backoff = Backoff::default();
        loop {
            match directory.reservations(*volume, Some(revision), wait).await {
                Ok(record) if record.revision != revision => return record,
                Ok(_) => backoff = Backoff::default(),
                // Whoever follows the configuration says so, once for all units. A LUN that was removed is closed soon.
                Err(error) => {
                    tracing::debug!(%error, volume, "reservations cannot be followed");
                    backoff.pause().await;
                }
            }
        }
    }
}

impl From<AskError> for SourceError {
    fn from(error: AskError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
