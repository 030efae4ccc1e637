//! Owner keys: taken, kept and given back by transactions, with the lease that they go away with.
//!
//! The generation of an owner is the revision of the transaction that made its key.

use std::time::Duration;

use coordination::keys::Key;
use coordination::map::MapWatch;
use coordination::records::{OwnerRecord, encode};
use coordination::{Compare, Coordination, CoordinationError, LeaseId, Outcome, Transaction};
use protocol::session::SessionRefusal;
use protocol::{Generation, VolumeId};
use tracing::warn;

/// Why a front end does not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    pub(super) kind: SessionRefusal,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(kind: SessionRefusal, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl From<CoordinationError> for Refused {
    fn from(error: CoordinationError) -> Self {
        let kind = match error {
            CoordinationError::NoLease => SessionRefusal::Lost,
            CoordinationError::Invalid(_) => SessionRefusal::Invalid,
            CoordinationError::Unavailable(_)
            | CoordinationError::Unknown(_)
            | CoordinationError::Failed(_)
            | CoordinationError::Compacted(_) => SessionRefusal::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

/// A volume that is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) generation: Generation,
    pub(super) lease: LeaseId,
}

/// Takes a volume that nobody owns. Nothing if somebody does.
pub(super) async fn acquire(
    store: &dyn Coordination,
    map: &MapWatch,
    volume: VolumeId,
    owner: &OwnerRecord,
    time_to_live: Duration,
) -> Result<Option<Owned>, Refused> {
    let now = map.current();
    // Nothing is granted on the ground of records that are being put back.
    if now.owner(volume).is_some() || now.recalls() {
        return Ok(None);
    }
    let key = Key::Owner(volume).to_text();
    let lease = store.grant_lease(time_to_live).await?;
    let transaction = Transaction::new()
        .when(Compare::Absent(key.clone()))
        .when(Compare::Present(Key::Volume(volume).to_text()))
        .put_leased(key, encode(owner)?, lease);
    let outcome = store.commit(transaction).await;
    if let Ok(Outcome::Committed(revision)) = outcome {
        // Only with a map that knows the key may anything be derived for this owner (rule 7 a).
        map.at_least(revision).await;
        return Ok(Some(Owned {
            generation: Generation(revision.0),
            lease,
        }));
    }
    // Not ours, or not known to be: the lease must not keep a key that nobody serves.
    if let Err(error) = store.revoke_lease(lease).await {
        warn!(%volume, %error, "a lease could not be given back; it will lapse");
    }
    outcome?;
    Ok(None)
}

/// Goes on with a volume that was owned before the connection was lost.
pub(super) async fn resume(
    store: &dyn Coordination,
    map: &MapWatch,
    volume: VolumeId,
    generation: Generation,
) -> Result<Owned, Refused> {
    let entry = store.get(&Key::Owner(volume).to_text()).await?;
    let entry = entry.filter(|entry| entry.created.0 == generation.0);
    let Some((entry, lease)) = entry.and_then(|entry| entry.lease.map(|lease| (entry, lease))) else {
        let message = format!("{volume} was taken over, or its lease has lapsed");
        return Err(Refused::new(SessionRefusal::Lost, message));
    };
    store.keep_lease(lease).await?;
    map.at_least(entry.modified).await;
    Ok(Owned { generation, lease })
}

/// Gives a volume back, if it is still owned with this generation. An error is logged only: the
/// lease lapses by itself then.
pub(super) async fn release(store: &dyn Coordination, volume: VolumeId, generation: Generation) {
    let released = async {
        let entry = store.get(&Key::Owner(volume).to_text()).await?;
        let ours = entry.filter(|entry| entry.created.0 == generation.0);
        match ours.and_then(|entry| entry.lease) {
            Some(lease) => store.revoke_lease(lease).await,
            None => Ok(()),
        }
    };
    if let Err(error) = released.await {
        warn!(%volume, %error, "a volume could not be given back; its lease will lapse");
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! One owner at a time; what was lost cannot be resumed; each owner has a generation of its own.
    use std::sync::Arc;

    use coordination::Embedded;
    use coordination::map::MapKeeper;
    use coordination::records::VolumeRecord;
    use protocol::{FamilyId, LayerId, NodeId};

    use super::*;

    pub(in crate::session) const VOLUME: VolumeId = VolumeId(7);
    pub(in crate::session) const LEASE: Duration = Duration::from_hours(1);

    pub(in crate::session) fn owner() -> OwnerRecord {
        OwnerRecord {
            node: NodeId(1),
            program: "test".into(),
            pid: 1,
            read_only: false,
            opened_ms: 0,
        }
    }

    /// A store with one volume, and a map that follows it.
    pub(in crate::session) async fn world() -> (Arc<Embedded>, MapWatch) {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let volume = VolumeRecord {
            name: "alpha".into(),
            family: FamilyId(8),
            head: LayerId(9),
            size: 4096,
            discard_to: None,
            origin: None,
            created_ms: 0,
        };
        let key = Key::Volume(VOLUME).to_text();
        let made = store
            .commit(Transaction::new().put(key, encode(&volume).unwrap()))
            .await;
        assert!(matches!(made, Ok(Outcome::Committed(_))));
        let (keeper, map) = MapKeeper::start(store.clone()).await.unwrap();
        tokio::spawn(keeper.run());
        (store, map)
    }

    #[tokio::test]
    async fn a_volume_that_does_not_exist_cannot_be_taken() {
        let (store, map) = world().await;
        let taken = acquire(store.as_ref(), &map, VolumeId(99), &owner(), LEASE).await;
        assert_eq!(taken, Ok(None));
    }

    #[tokio::test]
    async fn a_volume_has_one_owner_at_a_time_and_each_has_a_higher_generation() {
        let (store, map) = world().await;
        let take = async || acquire(store.as_ref(), &map, VOLUME, &owner(), LEASE).await;
        let first = take().await.unwrap().unwrap();
        assert_eq!(take().await, Ok(None));
        release(store.as_ref(), VOLUME, first.generation).await;
        let mut seen = map.clone();
        while seen.current_and_seen().owner(VOLUME).is_some() {
            assert!(seen.changed().await);
        }
        let second = take().await.unwrap().unwrap();
        assert!(second.generation > first.generation);
    }

    #[tokio::test]
    async fn only_the_present_owner_resumes_and_gives_back() {
        let (store, map) = world().await;
        let owned = acquire(store.as_ref(), &map, VOLUME, &owner(), LEASE)
            .await
            .unwrap()
            .unwrap();
        let former = Generation(owned.generation.0 - 1);
        let refused = resume(store.as_ref(), &map, VOLUME, former).await.unwrap_err();
        assert_eq!(refused.kind, SessionRefusal::Lost);
        release(store.as_ref(), VOLUME, former).await;
        assert_eq!(
            resume(store.as_ref(), &map, VOLUME, owned.generation).await,
            Ok(owned)
        );
        release(store.as_ref(), VOLUME, owned.generation).await;
        let refused = resume(store.as_ref(), &map, VOLUME, owned.generation)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, SessionRefusal::Lost);
    }
}
