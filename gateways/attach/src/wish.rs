//! One volume that somebody wants here, or not any more: makes it so, says so in the store, and tries again what failed.

use std::sync::Arc;
use std::time::Duration;

use coordination::attach::{HaveRecord, Host, WantRecord, Way};
use coordination::records::encode;
use coordination::{Compare, Coordination, CoordinationError, LeaseId, Revision, Transaction};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::care::{aside, blocking};
use crate::kernel::Owner;
use crate::mapping::{MapError, Mapper};
use crate::sockets::{SocketError, Sockets};

/// Between attempts at what failed.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is wanted of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The transaction that wrote the wish, and what it says; nothing if the volume is not wanted.
    pub(crate) wanted: Option<(Revision, WantRecord)>,
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
    /// Nothing if this host makes none.
    pub(crate) sockets: Option<Sockets>,
    pub(crate) store: Arc<dyn Coordination>,
}

/// Why a volume is not as it is wanted.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("this host makes no sockets for guests: start its storaged-attach with --vhost-user")]
    NoSockets,
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
            Some((revision, want)) => self.bring(wish.lease, revision, want).await,
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
        want: WantRecord,
    ) -> Result<bool, CoordinationError> {
        let brought = match want.way {
            Way::Block => self.device(want).await,
            Way::VhostUser => self.socket(want).await,
        };
        let mut record = HaveRecord {
            wish: wish.0,
            path: None,
            trouble: None,
        };
        match &brought {
            Ok(path) => {
                info!(volume = self.name, path, "the volume is here");
                record.path = Some(path.clone());
            }
            Err(error) => {
                warn!(volume = self.name, %error, "the volume does not come");
                record.trouble = Some(error.to_string());
            }
        }
        // A newer wish is answered when it is seen.
        let answer = Transaction::new()
            .when(Compare::Modified(self.host.want(&self.name), wish))
            .put_leased(self.host.have(&self.name), encode(&record)?, lease);
        self.store.commit(answer).await?;
        Ok(brought.is_ok())
    }

    async fn device(&self, want: WantRecord) -> Result<String, Trouble> {
        self.end_socket().await?;
        let name = self.name.clone();
        let mapped = blocking(&self.mapper, move |mapper| {
            mapper.map(&name, Owner::Cloud, want.read_only)
        })
        .await?;
        Ok(mapped.path.display().to_string())
    }

    async fn socket(&self, want: WantRecord) -> Result<String, Trouble> {
        self.end_device().await?;
        let sockets = self.sockets.clone().ok_or(Trouble::NoSockets)?;
        let name = self.name.clone();
        let path = aside(move || sockets.bring(&name, want)).await?;
        Ok(path.display().to_string())
    }

    async fn end_device(&self) -> Result<(), MapError> {
        let name = self.name.clone();
        let ended = blocking(&self.mapper, move |mapper| {
            mapper.unmap(&name, Owner::Cloud, false)
        });
        match ended.await {
            // One that was made by hand is none of ours.
            Ok(()) | Err(MapError::NotMapped(_) | MapError::Taken { .. } | MapError::Name(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn end_socket(&self) -> Result<(), SocketError> {
        let Some(sockets) = self.sockets.clone() else {
            return Ok(());
        };
        let name = self.name.clone();
        match aside(move || sockets.take_away(&name)).await {
            Ok(_) | Err(SocketError::Name(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends whatever there is of the volume.
    async fn end(&self) -> Result<(), Trouble> {
        self.end_socket().await?;
        Ok(self.end_device().await?)
    }

    async fn take_away(&self, lease: LeaseId) -> Result<bool, CoordinationError> {
        let ended = self.end().await;
        let key = self.host.have(&self.name);
        let unless_wanted = Transaction::new().when(Compare::Absent(self.host.want(&self.name)));
        let told = match &ended {
            Ok(()) => {
                info!(volume = self.name, "the volume is not here any more");
                unless_wanted.delete(key)
            }
            Err(error) => {
                warn!(volume = self.name, %error, "the volume does not leave");
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
