//! An attachment that has lapsed comes back, if its front end was the last owner of the volume: then nobody else has
//! carried anything out since, and what it had under way is done before anything else is
//! ([decision 80](../../../docs/decisions/0080-attachments-that-come-back.md)).
//!
//! Knows nothing of connections, nor of who owns the volume next: that is found out as ever.

use std::time::Duration;

use coordination::keys::Key;
use coordination::records::{AttachedRecord, encode};
use coordination::{Compare, Coordination, LeaseId, Revision, Transaction};
use protocol::session::SessionRefusal;
use protocol::{Generation, VolumeId};

use super::ownership::{self, Refused};

/// Which attachment of which volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lapsed<'a> {
    pub(super) volume: VolumeId,
    /// Its name, for people.
    pub(super) name: &'a str,
    pub(super) attachment: u64,
    /// What its front end owned the volume with last.
    pub(super) owned: Generation,
}

/// Puts its record back, with a new lease, which has another number than the attachment. Refuses as lost if somebody else has
/// owned the volume since, as unavailable if that cannot be told now or somebody has the volume for a moment.
///
/// The note of the last owner is written again, with its generation. Whoever has read it to open the volume without sharing
/// it, and has seen nobody attached, does not get it then.
pub(super) async fn come_back(
    store: &dyn Coordination,
    lapsed: Lapsed<'_>,
    record: &AttachedRecord,
    time_to_live: Duration,
) -> Result<(LeaseId, Revision), Refused> {
    let Lapsed {
        volume,
        name,
        attachment,
        owned,
    } = lapsed;
    let (mut note, written) = ownership::refuse_successors(store, volume, name, owned).await?;
    note.generation.get_or_insert(Generation(written.0));
    let not_now = |why: &str| {
        let message = format!("the attachment to volume {name:?} cannot come back yet: {why}");
        Refused::new(SessionRefusal::Unavailable, message)
    };
    let owner = Key::Owner(volume).to_text();
    let owner = match store.get(&owner).await? {
        None => Compare::Absent(owner),
        // Its own lease is younger than that of the attachment.
        Some(entry) if entry.created.0 == owned.0 => Compare::Created(owner, entry.created),
        Some(_) => return Err(not_now("somebody has the volume for a moment")),
    };
    let key = Key::Attached(volume, attachment).to_text();
    let last = Key::LastOwner(volume).to_text();
    let lease = store.grant_lease(time_to_live).await?;
    let transaction = Transaction::new()
        .when(Compare::Present(Key::Volume(volume).to_text()))
        .when(Compare::Absent(key.clone()))
        .when(Compare::Modified(last.clone(), written))
        .when(owner)
        .put(last, encode(&note)?)
        .put_leased(key, encode(record)?, lease);
    // If it was done and nobody can say so, the next attempt makes it, with the same generation.
    let committed = ownership::commit_leased(store, volume, lease, transaction).await?;
    let revision = committed.ok_or_else(|| not_now("something has changed meanwhile"))?;
    Ok((lease, revision))
}

#[cfg(test)]
mod tests {
    //! Only what the last owner had comes back, and whoever counted on its being gone is refused.
    use std::sync::Arc;

    use coordination::map::MapWatch;
    use coordination::records::OwnerRecord;
    use coordination::{Embedded, Outcome};
    use protocol::NodeId;

    use super::super::ownership::tests::{LEASE, VOLUME, give_back, owner, until_unowned, world};
    use super::super::ownership::{Owned, Purpose, acquire, end};
    use super::*;

    /// A volume that an attachment has owned, which has lapsed.
    struct World {
        store: Arc<Embedded>,
        map: MapWatch,
        attachment: u64,
        owned: Generation,
    }

    fn record() -> AttachedRecord {
        AttachedRecord {
            node: NodeId(1),
            program: "test".into(),
            pid: 1,
            addresses: vec!["unix:/nowhere".into()],
            attached_ms: 0,
        }
    }

    impl World {
        async fn new() -> Self {
            let (store, map) = world().await;
            let mut world = Self {
                store,
                map,
                attachment: 0,
                owned: Generation(0),
            };
            world.attachment = world.attach().await;
            world.owned = world.own(world.attachment).await.unwrap().generation;
            world.give_back().await;
            world.detach(world.attachment).await;
            world
        }

        async fn attach(&self) -> u64 {
            let lease = self.store.grant_lease(LEASE).await.unwrap();
            let key = Key::Attached(VOLUME, lease.0).to_text();
            let made = Transaction::new().put_leased(key, encode(&record()).unwrap(), lease);
            self.store.commit(made).await.unwrap();
            lease.0
        }

        async fn detach(&self, attachment: u64) {
            let key = Key::Attached(VOLUME, attachment).to_text();
            let entry = self.store.get(&key).await.unwrap().unwrap();
            self.store.revoke_lease(entry.lease.unwrap()).await.unwrap();
        }

        async fn own(&self, attachment: u64) -> Option<Owned> {
            let owner = OwnerRecord {
                attachment: Some(attachment),
                ..owner()
            };
            self.acquire(&owner, Purpose::Use).await
        }

        async fn acquire(&self, owner: &OwnerRecord, purpose: Purpose) -> Option<Owned> {
            let store = self.store.as_ref();
            acquire(store, &self.map, VOLUME, owner, LEASE, purpose)
                .await
                .unwrap()
        }

        /// The owner's lease lapses.
        async fn give_back(&self) {
            let entry = self.store.get(&Key::Owner(VOLUME).to_text()).await.unwrap();
            let generation = Generation(entry.unwrap().created.0);
            give_back(&self.store, &self.map, generation).await;
        }

        async fn come_back(&self) -> Result<LeaseId, Refused> {
            let lapsed = Lapsed {
                volume: VOLUME,
                name: "alpha",
                attachment: self.attachment,
                owned: self.owned,
            };
            let came = come_back(self.store.as_ref(), lapsed, &record(), LEASE).await;
            came.map(|(lease, _)| lease)
        }
    }

    #[tokio::test]
    async fn the_last_owner_s_attachment_comes_back_as_often_as_it_lapses() {
        // Defect guarded: a `storaged` that was away for longer than a lease ended what shared volumes on its node.
        let world = World::new().await;
        let lease = world.come_back().await.unwrap();
        assert_ne!(lease.0, world.attachment, "a number is given once");
        world.detach(world.attachment).await;
        // A snapshot that was made meanwhile is nothing to a guest that goes on.
        world.acquire(&owner(), Purpose::Visit).await.unwrap();
        let refused = world.come_back().await.unwrap_err();
        assert_eq!(
            refused.kind,
            SessionRefusal::Unavailable,
            "its head is being sealed: {refused}"
        );
        world.give_back().await;
        world.come_back().await.unwrap();
        // It takes the volume again with the generation that it had, or anew.
        let again = OwnerRecord {
            attachment: Some(world.attachment),
            ..owner()
        };
        let taken = world.acquire(&again, Purpose::GoOn(world.owned)).await;
        assert!(taken.unwrap().generation > world.owned);
    }

    #[tokio::test]
    async fn it_comes_back_while_its_own_lease_as_the_owner_lasts() {
        let mut world = World::new().await;
        world.attachment = world.attach().await;
        let owned = world.own(world.attachment).await.unwrap();
        world.owned = owned.generation;
        world.detach(world.attachment).await;
        world.come_back().await.unwrap();
        // What it leaves says that it does not come again, as ever.
        end(world.store.as_ref(), &world.map, VOLUME, owned)
            .await
            .unwrap();
        until_unowned(&world.map).await;
        world.detach(world.attachment).await;
        let refused = world.come_back().await.unwrap_err();
        assert_eq!(refused.kind, SessionRefusal::Lost);
    }

    #[tokio::test]
    async fn it_does_not_come_back_after_another_owner_nor_after_a_roll_back() {
        let world = World::new().await;
        let other = world.attach().await;
        world.own(other).await.unwrap();
        world.give_back().await;
        world.detach(other).await;
        let refused = world.come_back().await.unwrap_err();
        assert_eq!(refused.kind, SessionRefusal::Lost);
        assert!(refused.message.contains("was taken over by test"), "{refused}");

        let world = World::new().await;
        let last = Key::LastOwner(VOLUME).to_text();
        world.store.commit(Transaction::new().delete(last)).await.unwrap();
        assert_eq!(world.come_back().await.unwrap_err().kind, SessionRefusal::Lost);
    }

    #[tokio::test]
    async fn who_does_not_share_and_saw_nobody_attached_does_not_get_the_volume_after_a_come_back() {
        // Its writes would come before those that are done again.
        let world = World::new().await;
        let last = Key::LastOwner(VOLUME).to_text();
        let seen = world.store.get(&last).await.unwrap().unwrap();
        world.come_back().await.unwrap();
        assert_eq!(
            world.acquire(&owner(), Purpose::Use).await,
            None,
            "somebody is attached"
        );
        let too_late = Transaction::new()
            .when(Compare::Modified(last, seen.modified))
            .put("x", *b"x");
        let outcome = world.store.commit(too_late).await.unwrap();
        assert!(matches!(outcome, Outcome::Conflict(_)), "{outcome:?}");
    }
}
