//! One volume that somebody wants here, or not any more: makes it so, says so in the store, and tries again what failed.

use std::sync::Arc;
use std::time::Duration;

use coordination::attach::{HaveRecord, Host};
use coordination::records::encode;
use coordination::{Compare, Coordination, CoordinationError, LeaseId, Revision, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::care::blocking;
use crate::kernel::Owner;
use crate::mapping::{MapError, Mapper};

/// Between attempts at what failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is wanted of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The transaction that wrote the wish, and whether it is for reading only; nothing if the volume is not wanted.
    pub(crate) wanted: Option<(Revision, bool)>,
    /// What the answer goes away with. Another lease means that the answer is to be written again.
    pub(crate) lease: LeaseId,
}

/// What was tried last, and whether it is so; nothing before the first attempt.
pub(crate) type Progress = Option<(Wish, bool)>;

/// A volume.
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) host: Host,
    pub(crate) mapper: Mapper,
    pub(crate) store: Arc<dyn Coordination>,
}

impl Volume {
    /// Follows what is wanted until nobody says any more what is wanted.
    pub(crate) async fn follow(self, mut wishes: watch::Receiver<Wish>, progress: watch::Sender<Progress>) {
        loop {
            let wish = *wishes.borrow_and_update();
            let reached = self.fulfil(&wish).await;
            progress.send_replace(Some((wish, reached)));
            let again = async {
                if reached {
                    std::future::pending::<()>().await;
                }
                sleep(AGAIN_AFTER).await;
            };
            tokio::select! {
                () = again => {}
                changed = wishes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether it is as it is wanted, and the store says so.
    async fn fulfil(&self, wish: &Wish) -> bool {
        let told = match wish.wanted {
            Some((revision, read_only)) => self.bring(wish.lease, revision, read_only).await,
            None => self.take_away(wish.lease).await,
        };
        told.unwrap_or_else(|error| {
            warn!(volume = self.name, %error, "what became of the volume cannot be told");
            false
        })
    }

    async fn bring(
        &self,
        lease: LeaseId,
        wish: Revision,
        read_only: bool,
    ) -> Result<bool, CoordinationError> {
        let name = self.name.clone();
        let mapped = blocking(&self.mapper, move |mapper| {
            mapper.map(&name, Owner::Cloud, read_only)
        })
        .await;
        let record = match &mapped {
            Ok(mapped) => {
                info!(
                    volume = self.name,
                    node = mapped.device.node(),
                    "the volume is here"
                );
                HaveRecord {
                    wish: wish.0,
                    path: Some(mapped.path.display().to_string()),
                    trouble: None,
                }
            }
            Err(error) => {
                warn!(volume = self.name, %error, "the volume cannot be made a block device");
                HaveRecord {
                    wish: wish.0,
                    path: None,
                    trouble: Some(error.to_string()),
                }
            }
        };
        // A newer wish is answered when it is seen.
        let answer = Transaction::new()
            .when(Compare::Modified(self.host.want(&self.name), wish))
            .put_leased(self.host.have(&self.name), encode(&record)?, lease);
        self.store.commit(answer).await?;
        Ok(mapped.is_ok())
    }

    async fn take_away(&self, lease: LeaseId) -> Result<bool, CoordinationError> {
        let name = self.name.clone();
        let ended = blocking(&self.mapper, move |mapper| {
            mapper.unmap(&name, Owner::Cloud, false)
        })
        .await;
        let key = self.host.have(&self.name);
        let unless_wanted = Transaction::new().when(Compare::Absent(self.host.want(&self.name)));
        let told = match &ended {
            // One that was made by hand is none of ours.
            Ok(()) | Err(MapError::NotMapped(_) | MapError::Taken { .. } | MapError::Name(_)) => {
                info!(volume = self.name, "the volume is not here any more");
                unless_wanted.delete(key)
            }
            Err(error) => {
                warn!(volume = self.name, %error, "the block device of the volume does not end");
                let record = HaveRecord {
                    wish: 0,
                    path: None,
                    trouble: Some(error.to_string()),
                };
                unless_wanted.put_leased(key, encode(&record)?, lease)
            }
        };
        let is_gone = matches!(told.changes.first(), Some(coordination::Change::Delete(_)));
        self.store.commit(told).await?;
        Ok(is_gone)
    }
}
