//! The coordination store of many nodes: etcd 3.4 or newer, one member or several.
//!
//! It does for the trait what etcd alone does not: revisions never go back, not even when etcd is
//! restored from a backup ([`numbering`]); a transaction is made once at most, and how it ended is found
//! out when its answer was lost ([`mark`]). It knows nothing of what the records mean.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;

use crate::store::{
    Coordination, CoordinationError, Entry, LeaseId, Outcome, Range, Revision, Transaction, Watch,
};

mod commit;
mod core;
mod layout;
mod lease;
mod mark;
mod members;
mod messages;
mod numbering;
mod options;
mod range;
mod watch;

pub use self::core::MARGIN as RAISE_MARGIN;
pub use options::{
    ClientIdentity, ConnectError, Credentials, ENDPOINTS_MAX, HalfGiven, Options, TIMEOUT_DEFAULT,
};

use core::Core;
use layout::Layout;
use members::Members;

/// Between renewals of the marks' lease: three may fail before it lapses.
const KEEP_INTERVAL: Duration = Duration::from_secs(mark::MARKS_TIME_TO_LIVE_S / 4);

/// A coordination store in an etcd. Cheap to clone. What it does in the background ends with the last
/// clone.
#[derive(Clone)]
pub struct Etcd(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.closed.send_replace(true);
    }
}

impl Etcd {
    /// Finds a member, says who we are, and looks how far etcd is.
    pub async fn connect(options: &Options) -> Result<Self, ConnectError> {
        let core = Arc::new(Core::new(Members::new(options)?, Layout::new(&options.prefix)));
        core.look(&[]).await.map_err(|source| ConnectError::Store {
            endpoints: options.endpoints.join(", "),
            source,
        })?;
        tokio::spawn(keep_marks(core.clone()));
        Ok(Self(Arc::new(Handle { core })))
    }
}

/// Keeps the marks' lease until nobody needs it any more.
async fn keep_marks(core: Arc<Core>) {
    let mut closed = core.closed.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(KEEP_INTERVAL) => {}
            _ = closed.wait_for(|closed| *closed) => return,
        }
        if let Err(error) = core.keep_marks_lease().await {
            warn!(%error, "etcd is away: the lease of marks is not kept");
        }
    }
}

#[async_trait]
impl Coordination for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Entry>, CoordinationError> {
        self.0.core.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, CoordinationError> {
        self.0.core.range(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, CoordinationError> {
        commit::commit(&self.0.core, transaction).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, CoordinationError> {
        watch::watch(&self.0.core, prefix, after).await
    }

    async fn raise_revision(&self, floor: Revision) -> Result<(), CoordinationError> {
        self.0.core.raise(floor).await
    }

    async fn grant_lease(&self, time_to_live: Duration) -> Result<LeaseId, CoordinationError> {
        let id = self.0.core.grant(lease::seconds(time_to_live)).await?;
        Ok(LeaseId(id.cast_unsigned()))
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<(), CoordinationError> {
        self.0.core.keep(lease.0.cast_signed()).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CoordinationError> {
        self.0.core.revoke(lease.0.cast_signed()).await
    }
}

/// An error with all its causes: transports say little in the first line.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}
