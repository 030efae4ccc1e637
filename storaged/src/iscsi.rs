//! What there is to manage of iSCSI: targets with their LUNs, who may log in, where gateways serve, and persistent
//! reservations. Gateways read it from here, and keep here what they must agree upon.
//!
//! Every change is one transaction on the condition that what was read still stands, as with volumes. What initiators
//! and gateways say to each other is not known here; nor is any data touched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use admin_api::iscsi::{Configuration, WaitQuery};
use coordination::keys::Key;
use coordination::map::Versioned;
use coordination::records::TargetRecord;
use coordination::store::LeaseId;
use coordination::{ClusterMap, Compare, Coordination, Transaction};
use protocol::NodeId;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

use crate::volumes::{OperationError, Volumes};

mod access;
pub mod describe;
mod luns;
mod portals;
mod reservations;
pub mod secrets;
mod targets;

use secrets::Secrets;

/// See the module.
pub struct Iscsi {
    volumes: Arc<Volumes>,
    store: Arc<dyn Coordination>,
    node: NodeId,
    secrets: Secrets,
    /// The leases of the gateways of this node, by the tags of their portal groups.
    gateways: Mutex<BTreeMap<u16, LeaseId>>,
    /// Whether whoever waits is answered at once.
    stopping: watch::Sender<bool>,
}

impl Iscsi {
    /// What this node knows and does of iSCSI.
    pub fn new(volumes: Arc<Volumes>, store: Arc<dyn Coordination>, node: NodeId, secrets: Secrets) -> Self {
        Self {
            volumes,
            store,
            node,
            secrets,
            gateways: Mutex::new(BTreeMap::new()),
            stopping: watch::channel(false).0,
        }
    }

    /// Nobody waits for a change any more: `storaged` stops.
    pub fn stop_waiting(&self) {
        self.stopping.send_replace(true);
    }

    /// The newest map that may be believed.
    pub fn map(&self) -> Result<Arc<ClusterMap>, OperationError> {
        self.believed()?;
        Ok(self.volumes.map())
    }

    /// With what secrets of targets are kept.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What gateways serve: at once if it is not what they know already, otherwise when it changes or `wait` is over.
    pub async fn configuration(&self, query: WaitQuery) -> Result<Configuration, OperationError> {
        let map = self.waited(query, |map| Some(map.iscsi().revision().0)).await?;
        Ok(describe::configuration(&map, &self.secrets))
    }

    /// A map in which `revision` is not what the asker knows; or the newest one when the time is over, or the asker
    /// knows nothing. What has no revision is not waited for.
    async fn waited(
        &self,
        query: WaitQuery,
        revision: impl Fn(&ClusterMap) -> Option<u64>,
    ) -> Result<Arc<ClusterMap>, OperationError> {
        self.believed()?;
        let Some(after) = query.after else {
            return self.volumes.fresh_map().await;
        };
        let end = Instant::now() + Duration::from_millis(query.wait_ms.unwrap_or(0));
        let mut watch = self.volumes.watch();
        let mut stopping = self.stopping.subscribe();
        while revision(&watch.current_and_seen()) == Some(after) {
            tokio::select! {
                // If no map will come any more, the store is gone, and this process with it.
                more = watch.changed() => if !more { break },
                () = sleep_until(end) => break,
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        self.map()
    }

    fn believed(&self) -> Result<(), OperationError> {
        if self.volumes.recalls() {
            return Err(OperationError::Unavailable(
                "the coordination store went back to an older state, and its records are being put back: ask again in \
                 a few seconds"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// A target's record.
fn find_target<'a>(map: &'a ClusterMap, name: &str) -> Result<&'a Versioned<TargetRecord>, OperationError> {
    let target = map.iscsi().target(name);
    target.ok_or_else(|| OperationError::NotFound(format!("there is no iSCSI target {name:?}")))
}

/// A transaction that replaces a target's record, if it is still the one that was read. Its secrets are sealed, if they may be.
fn replacing(
    map: &ClusterMap,
    secrets: &Secrets,
    name: &str,
    read: &Versioned<TargetRecord>,
    mut record: TargetRecord,
) -> Result<Transaction, OperationError> {
    let sealed = secrets.seal(map, name, &mut record);
    sealed.map_err(|error| OperationError::Unavailable(error.to_string()))?;
    let key = Key::IscsiTarget(name.to_owned()).to_text();
    let transaction = Transaction::new().when(Compare::Modified(key.clone(), read.modified));
    Ok(transaction.put(key, record.encode()?))
}

#[cfg(test)]
mod tests;
