//! Owner keys: taken, kept and given back by transactions, with the lease that they go away with.
//!
//! The generation of an owner is the revision of the transaction that made its key.

use std::time::Duration;

use coordination::keys::{Key, attachments_of};
use coordination::map::MapWatch;
use coordination::records::{LastOwnerRecord, OwnerRecord, decode, encode};
use coordination::{Compare, Coordination, CoordinationError, LeaseId, Outcome, Revision, Transaction};
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

/// What a volume is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be used.
    Use,
    /// To be used by a guest that had it with this generation until its lease lapsed: nobody else may have had it
    /// since.
    GoOn(Generation),
    /// To be brought to rest: for those who had it before, it is as if nobody had.
    Visit,
    /// To do what can wait, while nobody has a use for it. Whoever had it last must have given it back:
    /// one that may come again, for its node was only cut off, must find as much moved as it knows of.
    Care,
}

/// Takes a volume that nobody owns. Nothing if somebody does.
pub(super) async fn acquire(
    store: &dyn Coordination,
    map: &MapWatch,
    volume: VolumeId,
    owner: &OwnerRecord,
    time_to_live: Duration,
    purpose: Purpose,
) -> Result<Option<Owned>, Refused> {
    let now = map.current();
    // Nothing is granted on the ground of records that are being put back.
    if now.owner(volume).is_some() || now.recalls() {
        return Ok(None);
    }
    let key = Key::Owner(volume).to_text();
    let last = Key::LastOwner(volume).to_text();
    let mut conditions = match owner.attachment {
        Some(number) => vec![Compare::Present(Key::Attached(volume, number).to_text())],
        None if purpose == Purpose::Visit => Vec::new(),
        None if purpose == Purpose::Care => match unused(store, volume, &last).await? {
            Some(unchanged) => vec![unchanged],
            None => return Ok(None),
        },
        None => match unshared(store, volume, &last).await? {
            Some(unchanged) => vec![unchanged],
            None => return Ok(None),
        },
    };
    if let Purpose::GoOn(before) = purpose {
        match note_of(store, volume, before).await? {
            Some((_, written)) => conditions.push(Compare::Modified(last.clone(), written)),
            None => return Ok(None),
        }
    }
    let lease = store.grant_lease(time_to_live).await?;
    let mut transaction = Transaction::new()
        .when(Compare::Absent(key.clone()))
        .when(Compare::Present(Key::Volume(volume).to_text()))
        .put_leased(key, encode(owner)?, lease);
    transaction.compares.extend(conditions);
    if !matches!(purpose, Purpose::Visit | Purpose::Care) {
        let went_on_from = match purpose {
            Purpose::GoOn(before) => Some(before),
            Purpose::Use | Purpose::Visit | Purpose::Care => None,
        };
        let note = LastOwnerRecord {
            went_on_from,
            ..last_owner(owner, false)
        };
        transaction = transaction.put(last, encode(&note)?);
    }
    let Some(revision) = commit_leased(store, volume, lease, transaction).await? else {
        return Ok(None);
    };
    // Only with a map that knows the key may anything be derived for this owner (rule 7 a).
    map.at_least(revision).await;
    Ok(Some(Owned {
        generation: Generation(revision.0),
        lease,
    }))
}

/// Commits what puts a key with a new lease. Unless that is known to be done the lease is given back: it must not keep a key
/// that nobody serves.
pub(super) async fn commit_leased(
    store: &dyn Coordination,
    volume: VolumeId,
    lease: LeaseId,
    transaction: Transaction,
) -> Result<Option<Revision>, CoordinationError> {
    let outcome = store.commit(transaction).await;
    if let Ok(Outcome::Committed(revision)) = outcome {
        return Ok(Some(revision));
    }
    if let Err(error) = store.revoke_lease(lease).await {
        warn!(%volume, %error, "a lease could not be given back; it will lapse");
    }
    outcome?;
    Ok(None)
}

/// On what condition nobody else has a volume open that is shared and has no owner just now; nothing if somebody has.
/// What those have not had answered must come before anything that a new owner does.
async fn unshared(
    store: &dyn Coordination,
    volume: VolumeId,
    last: &str,
) -> Result<Option<Compare>, Refused> {
    let Some(entry) = store.get(last).await? else {
        return Ok(Some(Compare::Absent(last.to_owned())));
    };
    let shared = decode::<LastOwnerRecord>(&entry).is_ok_and(|record| record.shared);
    if shared && !store.range(&attachments_of(volume)).await?.entries.is_empty() {
        return Ok(None);
    }
    Ok(Some(Compare::Modified(last.to_owned(), entry.modified)))
}

/// On what condition nobody may come to a volume that had it before; nothing if somebody may.
async fn unused(store: &dyn Coordination, volume: VolumeId, last: &str) -> Result<Option<Compare>, Refused> {
    if !store.range(&attachments_of(volume)).await?.entries.is_empty() {
        return Ok(None);
    }
    let Some(entry) = store.get(last).await? else {
        return Ok(Some(Compare::Absent(last.to_owned())));
    };
    let closed = decode::<LastOwnerRecord>(&entry).is_ok_and(|record| record.closed);
    Ok(closed.then(|| Compare::Modified(last.to_owned(), entry.modified)))
}

/// What is remembered of an owner.
fn last_owner(owner: &OwnerRecord, closed: bool) -> LastOwnerRecord {
    LastOwnerRecord {
        by: name_of(owner),
        shared: owner.attachment.is_some(),
        closed,
        opened_ms: owner.opened_ms,
        generation: None,
        went_on_from: None,
    }
}

/// An owner, for people.
pub(super) fn name_of(owner: &OwnerRecord) -> String {
    format!("{} (process {} on {})", owner.program, owner.pid, owner.node)
}

/// The note of who opened the volume last, and when it was written, if that was the owner with this generation.
async fn note_of(
    store: &dyn Coordination,
    volume: VolumeId,
    generation: Generation,
) -> Result<Option<(LastOwnerRecord, Revision)>, CoordinationError> {
    let entry = store.get(&Key::LastOwner(volume).to_text()).await?;
    // Who cannot read it does not know that nobody came since.
    let note = entry.and_then(|entry| Some((decode::<LastOwnerRecord>(&entry).ok()?, entry.modified)));
    Ok(note.filter(|(record, written)| record.is_of(generation, *written)))
}

/// Refuses, in words, if somebody has had a volume open since a former generation of it. Otherwise gives the note of that
/// generation, and when it was written.
pub(super) async fn refuse_successors(
    store: &dyn Coordination,
    volume: VolumeId,
    name: &str,
    before: Generation,
) -> Result<(LastOwnerRecord, Revision), Refused> {
    let last = store.get(&Key::LastOwner(volume).to_text()).await?;
    let what = match last.map(|entry| (decode::<LastOwnerRecord>(&entry), entry.modified)) {
        Some((Ok(note), written)) if note.is_of(before, written) => return Ok((note, written)),
        Some((Ok(note), _)) => format!("was taken over by {}", note.by),
        Some((Err(error), _)) => format!("was taken over ({error})"),
        None => "was put back to a snapshot".to_owned(),
    };
    let message = format!("volume {name:?} {what}: this front end, which had it before, may not go on");
    Err(Refused::new(SessionRefusal::Lost, message))
}

/// The lease of an owner, and when its key was changed last; nothing if the volume is not owned with this generation any
/// more.
async fn held(
    store: &dyn Coordination,
    volume: VolumeId,
    generation: Generation,
) -> Result<Option<(LeaseId, Revision)>, CoordinationError> {
    let entry = store.get(&Key::Owner(volume).to_text()).await?;
    let ours = entry.filter(|entry| entry.created.0 == generation.0);
    Ok(ours.and_then(|entry| Some((entry.lease?, entry.modified))))
}

/// Goes on with a volume that was owned before the connection was lost.
pub(super) async fn resume(
    store: &dyn Coordination,
    map: &MapWatch,
    volume: VolumeId,
    generation: Generation,
) -> Result<Owned, Refused> {
    let Some((lease, modified)) = held(store, volume, generation).await? else {
        let message = format!("{volume} was taken over, or its lease has lapsed");
        return Err(Refused::new(SessionRefusal::Lost, message));
    };
    store.keep_lease(lease).await?;
    map.at_least(modified).await;
    Ok(Owned { generation, lease })
}

/// Gives a volume back whose owner does not come again, and lets others know that.
pub(super) async fn end(
    store: &dyn Coordination,
    map: &MapWatch,
    volume: VolumeId,
    owned: Owned,
) -> Result<(), CoordinationError> {
    let current = map.current();
    let owner = current.owner(volume);
    let ours = owner.filter(|owner| owner.created.0 == owned.generation.0);
    if let Some(owner) = ours {
        let last = Key::LastOwner(volume).to_text();
        let generation = Revision(owned.generation.0);
        // A visitor has left no note.
        if let Some((_, written)) = note_of(store, volume, owned.generation).await? {
            let transaction = Transaction::new()
                .when(Compare::Created(Key::Owner(volume).to_text(), generation))
                .when(Compare::Modified(last.clone(), written))
                .put(last, encode(&last_owner(&owner.record, true))?)
                .delete(Key::Owner(volume).to_text());
            store.commit(transaction).await?;
        }
    }
    store.revoke_lease(owned.lease).await
}

/// The same for an owner that is known to be dead. An error is logged only: the lease lapses by itself then.
pub(super) async fn end_dead(
    store: &dyn Coordination,
    map: &MapWatch,
    volume: VolumeId,
    generation: Generation,
) {
    let ended = async {
        match held(store, volume, generation).await? {
            Some((lease, _)) => end(store, map, volume, Owned { generation, lease }).await,
            None => Ok(()),
        }
    };
    if let Err(error) = ended.await {
        warn!(%volume, %error, "a volume could not be given back; its lease will lapse");
    }
}

/// Gives a volume back, if it is still owned with this generation. An error is logged only: the
/// lease lapses by itself then.
pub(super) async fn release(store: &dyn Coordination, volume: VolumeId, generation: Generation) {
    let released = async {
        match held(store, volume, generation).await? {
            Some((lease, _)) => store.revoke_lease(lease).await,
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
    use coordination::records::{NewerFields, VolumeRecord};
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
            attachment: None,
            moves: true,
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
            labels: std::collections::BTreeMap::new(),
            limits: protocol::limits::VolumeLimits::default(),
            created_ms: 0,
            newer: NewerFields::default(),
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

    async fn take(
        store: &Arc<Embedded>,
        map: &MapWatch,
        volume: VolumeId,
        purpose: Purpose,
    ) -> Result<Option<Owned>, Refused> {
        acquire(store.as_ref(), map, volume, &owner(), LEASE, purpose).await
    }

    /// Gives the volume back, and waits until the map shows it.
    pub(in crate::session) async fn give_back(store: &Arc<Embedded>, map: &MapWatch, generation: Generation) {
        release(store.as_ref(), VOLUME, generation).await;
        until_unowned(map).await;
    }

    /// Waits until the map shows no owner.
    pub(in crate::session) async fn until_unowned(map: &MapWatch) {
        let mut seen = map.clone();
        while seen.current_and_seen().owner(VOLUME).is_some() {
            assert!(seen.changed().await);
        }
    }

    #[tokio::test]
    async fn a_volume_that_does_not_exist_cannot_be_taken() {
        let (store, map) = world().await;
        let taken = take(&store, &map, VolumeId(99), Purpose::Use).await;
        assert_eq!(taken, Ok(None));
    }

    #[tokio::test]
    async fn a_volume_has_one_owner_at_a_time_and_each_has_a_higher_generation() {
        let (store, map) = world().await;
        let first = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        assert_eq!(take(&store, &map, VOLUME, Purpose::Use).await, Ok(None));
        give_back(&store, &map, first.generation).await;
        let second = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        assert!(second.generation > first.generation);
    }

    #[tokio::test]
    async fn who_had_a_volume_gets_it_again_only_if_nobody_used_it_since() {
        let (store, map) = world().await;
        let first = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        give_back(&store, &map, first.generation).await;
        // A snapshot that was made meanwhile is nothing to a guest that goes on.
        let visit = take(&store, &map, VOLUME, Purpose::Visit).await.unwrap().unwrap();
        give_back(&store, &map, visit.generation).await;
        let go_on = Purpose::GoOn(first.generation);
        let again = take(&store, &map, VOLUME, go_on).await.unwrap().unwrap();
        assert!(again.generation > visit.generation);
        give_back(&store, &map, again.generation).await;

        let other = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        give_back(&store, &map, other.generation).await;
        let go_on = Purpose::GoOn(again.generation);
        assert_eq!(take(&store, &map, VOLUME, go_on).await, Ok(None));
        let refused = refuse_successors(store.as_ref(), VOLUME, "alpha", again.generation).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, SessionRefusal::Lost);
        assert!(
            refused
                .message
                .contains("taken over by test (process 1 on node-1)"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_front_end_that_never_heard_that_it_has_the_volume_again_gets_it_all_the_same() {
        // Defect guarded: `storaged` was killed between the transaction and its answer, and the guest's disk was lost.
        let (store, map) = world().await;
        let first = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        give_back(&store, &map, first.generation).await;
        let go_on = Purpose::GoOn(first.generation);
        let unheard = take(&store, &map, VOLUME, go_on).await.unwrap().unwrap();
        assert_eq!(
            take(&store, &map, VOLUME, go_on).await,
            Ok(None),
            "its lease lasts"
        );
        give_back(&store, &map, unheard.generation).await;
        let again = take(&store, &map, VOLUME, go_on).await.unwrap().unwrap();
        assert!(again.generation > unheard.generation);
        give_back(&store, &map, again.generation).await;
        let other = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        give_back(&store, &map, other.generation).await;
        assert_eq!(take(&store, &map, VOLUME, go_on).await, Ok(None));
    }

    #[tokio::test]
    async fn a_volume_is_moved_for_nobody_who_may_come_again() {
        // Defect guarded: a guest whose node was cut off for a while lost its volume, for more of it was moved by then than
        // its front end knew of.
        let (store, map) = world().await;
        let fresh = take(&store, &map, VOLUME, Purpose::Care).await.unwrap().unwrap();
        give_back(&store, &map, fresh.generation).await;
        let owned = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
        give_back(&store, &map, owned.generation).await;
        assert_eq!(
            take(&store, &map, VOLUME, Purpose::Care).await,
            Ok(None),
            "its lease lapsed"
        );
        let go_on = Purpose::GoOn(owned.generation);
        let again = take(&store, &map, VOLUME, go_on).await.unwrap().unwrap();
        end(store.as_ref(), &map, VOLUME, again).await.unwrap();
        until_unowned(&map).await;
        assert_eq!(
            take(&store, &map, VOLUME, go_on).await,
            Ok(None),
            "it said that it does not come"
        );
        let moved = take(&store, &map, VOLUME, Purpose::Care).await.unwrap();
        assert!(moved.is_some());
    }

    #[tokio::test]
    async fn only_the_present_owner_resumes_and_gives_back() {
        let (store, map) = world().await;
        let owned = take(&store, &map, VOLUME, Purpose::Use).await.unwrap().unwrap();
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
