//! Keeps the leases of this node's attachments while no connection does: between the end of one `storaged`'s sessions and the
//! first word of its front ends to the next one. A front end whose attachment lapses has to fail all that it has under way
//! ([decision 41](../../../docs/decisions/0041-shared-opens.md)), and what `storaged` does when it stops (its disks' logs) and
//! starts may take longer than a lease.
//!
//! Owners need none of it: they resume by their generation. Whoever's process is gone is not kept.

use std::time::Duration;

use coordination::CoordinationError;
use coordination::keys::Key;
use coordination::map::Versioned;
use coordination::records::AttachedRecord;
use protocol::VolumeId;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::Sessions;
use crate::process;

/// Part of the lease time after which leases are kept anew: the same as front ends'.
const KEEP_PART: u32 = 5;

impl Sessions {
    /// Keeps those that there are now, for as long as it is polled. Those that come later have sessions of their own.
    pub async fn keep_vigil(&self) {
        let orphans = self.orphans();
        let mut ticks = interval((self.settings.lease / KEEP_PART).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.keep(&orphans).await;
        }
    }

    /// Keeps them once.
    pub async fn keep_attachments(&self) {
        self.keep(&self.orphans()).await;
    }

    /// The attachments of this node.
    fn orphans(&self) -> Vec<Orphan> {
        let map = self.map.current();
        let ours = map
            .all_attached()
            .filter(|(_, _, attached)| attached.record.node == self.settings.node);
        let orphan = |(volume, number, attached): (VolumeId, u64, &Versioned<AttachedRecord>)| Orphan {
            volume,
            number,
            pid: attached.record.pid,
        };
        ours.map(orphan).collect()
    }

    /// What fails is tried by whoever comes next: the next round, or the front end itself.
    async fn keep(&self, orphans: &[Orphan]) {
        for orphan in orphans.iter().filter(|orphan| !process::is_gone(orphan.pid)) {
            if let Err(error) = self.keep_one(orphan).await {
                debug!(%error, attachment = orphan.number, "an attachment's lease is not kept");
            }
        }
    }

    /// One that came back has another lease than the one that it was numbered by.
    async fn keep_one(&self, orphan: &Orphan) -> Result<(), CoordinationError> {
        let key = Key::Attached(orphan.volume, orphan.number).to_text();
        let lease = self.store.get(&key).await?.and_then(|entry| entry.lease);
        self.store
            .keep_lease(lease.ok_or(CoordinationError::NoLease)?)
            .await
    }
}

/// An attachment that no connection speaks for.
struct Orphan {
    volume: VolumeId,
    number: u64,
    pid: u32,
}

#[cfg(test)]
mod tests {
    //! An attachment outlives the time in which nobody can speak for it, if it has somebody.
    use std::process::Command;

    use coordination::records::encode;
    use coordination::{Coordination as _, Transaction};
    use protocol::NodeId;

    use super::super::ownership::tests::{VOLUME, world};
    use super::super::tests::settings;
    use super::*;
    use crate::session::Settings;

    const LEASE: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn attachments_outlive_a_storaged_that_stops_slowly_unless_their_process_is_gone() {
        // Defect guarded: a host's block devices got I/O errors when `storaged` took longer than a lease to be there again.
        let (store, map) = world().await;
        let settings = Settings {
            lease: LEASE,
            ..settings()
        };
        let sessions = Sessions::new(settings, store.clone(), map.clone());
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let attach = async |node: u32, pid: u32| {
            let record = AttachedRecord {
                node: NodeId(node),
                program: "test".into(),
                pid,
                addresses: vec!["unix:/nowhere".into()],
                attached_ms: 0,
            };
            let lease = store.grant_lease(LEASE).await.unwrap();
            let key = Key::Attached(VOLUME, lease.0).to_text();
            let made = Transaction::new().put_leased(key, encode(&record).unwrap(), lease);
            store.commit(made).await.unwrap();
            lease.0
        };
        let lives = attach(1, std::process::id()).await;
        let gone = attach(1, child.id()).await;
        let elsewhere = attach(2, std::process::id()).await;
        let mut map = map;
        let mut until = async |wanted: &[u64]| {
            let all = |map: &coordination::ClusterMap| {
                map.all_attached()
                    .map(|(_, number, _)| number)
                    .collect::<Vec<_>>()
            };
            while all(&map.current_and_seen()) != wanted {
                assert!(map.changed().await, "the map ended");
            }
        };
        until(&[lives, gone, elsewhere]).await;
        let vigil = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.keep_vigil().await }
        });
        until(&[lives]).await;
        // It comes later and says nothing, like a front end that stands still: that is not the vigil's business.
        let late = attach(1, std::process::id()).await;
        until(&[lives, late]).await;
        until(&[lives]).await;
        tokio::time::sleep(LEASE_LIMIT).await;
        until(&[lives]).await;
        vigil.abort();
        until(&[]).await;
    }

    /// By then it would have lapsed.
    const LEASE_LIMIT: Duration = Duration::from_millis(1500);
}
