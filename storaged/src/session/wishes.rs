//! What nodes ask of each other about open volumes, through the coordination store: to let a volume go for
//! which somebody waits elsewhere, and to bring one to rest for an operation that is carried out elsewhere.
//!
//! A wish is a key that goes away with the lease of the node that has it, so nothing is held for the dead. An
//! owner that holds still is answered for by its own node, with a key too: a transaction about a volume at
//! rest is on the condition that this key is there. While the wish stands the owner's node lets nobody go
//! on; before it does, it takes its answer back; and when the owner's node is gone, so is its answer.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coordination::keys::Key;
use coordination::records::{RestRecord, RestedRecord, WantRecord, encode};
use coordination::{ClusterMap, Compare, CoordinationError, Outcome, Revision, Transaction};
use protocol::{Generation, VolumeId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::connection::WANT_AGAIN;
use super::rest::{Mark, Order};
use super::{Registered, Sessions};
use crate::volumes::rest::RestError;

/// How much longer than the owner its node is waited for.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// Between attempts to take a wish back while the store is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// As many attempts: by then the node's lease has lapsed, and the wish with it.
const ATTEMPTS_MAX: usize = 60;

/// A volume at rest whose owner is on another node. The wish is taken back when it is dropped.
pub(super) struct RestElsewhere {
    sessions: Arc<Sessions>,
    volume: VolumeId,
    /// The owner that was asked.
    generation: Generation,
    /// The transaction that asked.
    asked: Revision,
    /// The transaction that answered.
    rested: Option<Revision>,
    taken_back: bool,
}

/// What became of an owner that was asked to hold still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stillness {
    /// It does, by this transaction of its node.
    Holds(Revision),
    /// It is not the owner any more: its lease lapsed, or it closed the volume.
    OwnerLeft,
    /// It did not in time.
    NotInTime,
}

impl RestElsewhere {
    /// Asks the node of a volume's owner to bring it to rest.
    pub(super) async fn ask(
        sessions: &Arc<Sessions>,
        volume: VolumeId,
        generation: Generation,
        limit: Duration,
    ) -> Result<Self, RestError> {
        let key = Key::Rest(volume).to_text();
        let record = RestRecord {
            node: sessions.settings.node,
            generation: generation.0,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let transaction = Transaction::new().when(Compare::Absent(key.clone())).put_leased(
            key,
            encode(&record).map_err(|error| away(&error))?,
            sessions.settings.presence.lease(),
        );
        match sessions
            .store
            .commit(transaction)
            .await
            .map_err(|error| away(&error))?
        {
            Outcome::Committed(asked) => Ok(Self {
                sessions: Arc::clone(sessions),
                volume,
                generation,
                asked,
                rested: None,
                taken_back: false,
            }),
            Outcome::Conflict(_) => Err(RestError::NotInTime(format!(
                "{volume} is held still for an operation of another node: try again"
            ))),
        }
    }

    /// Waits until the owner holds still.
    pub(super) async fn holds_still(&mut self, deadline: Instant) -> Stillness {
        let mut map = self.sessions.map.clone();
        map.at_least(self.asked).await;
        let answered = async {
            loop {
                let current = map.current_and_seen();
                let wishes = current.wishes();
                // Its lease may have lapsed: then nobody holds still for it.
                if wishes.rests().get(&self.volume).map(|rest| rest.created) != Some(self.asked) {
                    return Stillness::NotInTime;
                }
                if current.generation(self.volume) != Some(self.generation) {
                    return Stillness::OwnerLeft;
                }
                let rested = wishes.rested().get(&self.volume);
                if let Some(rested) = rested.filter(|rested| rested.record.asked == self.asked.0) {
                    return Stillness::Holds(rested.modified);
                }
                if !map.changed().await {
                    return Stillness::NotInTime;
                }
            }
        };
        let answered = timeout_at(deadline + ANSWER_GRACE, answered).await;
        let stillness = answered.unwrap_or(Stillness::NotInTime);
        if let Stillness::Holds(rested) = stillness {
            self.rested = Some(rested);
        }
        stillness
    }

    /// On what condition the volume still holds still.
    pub(super) fn condition(&self) -> Compare {
        let rested = self.rested.unwrap_or(Revision(0));
        Compare::Modified(Key::Rested(self.volume).to_text(), rested)
    }

    pub(super) fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Takes the wish back; when it returns, nobody on the owner's node waits for it any more.
    pub(super) async fn take_back(mut self) {
        self.taken_back = true;
        take_back(&self.sessions, self.volume, self.asked).await;
    }
}

impl Drop for RestElsewhere {
    fn drop(&mut self) {
        if !self.taken_back {
            let (sessions, volume, asked) = (Arc::clone(&self.sessions), self.volume, self.asked);
            tokio::spawn(async move { take_back(&sessions, volume, asked).await });
        }
    }
}

async fn take_back(sessions: &Sessions, volume: VolumeId, asked: Revision) {
    let key = Key::Rest(volume).to_text();
    sessions.delete_ours(&key, asked).await;
}

fn away(error: &CoordinationError) -> RestError {
    RestError::NotInTime(error.to_string())
}

impl Sessions {
    /// Does what other nodes ask of the owners of this one, for ever: run it as a task.
    pub async fn follow_wishes(self: Arc<Self>) {
        let mut map = self.map.clone();
        let busy = Arc::new(Mutex::new(HashSet::new()));
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let current = map.current_and_seen();
            let wishes = current.wishes();
            for volume in wishes.wants().keys() {
                self.tell_wanted(*volume);
            }
            for (volume, rest) in wishes.rests() {
                let asked = Asked {
                    volume: *volume,
                    at: rest.created,
                    record: rest.record,
                };
                self.begin_rest(asked, &busy);
            }
            let pressing = !(wishes.wants().is_empty() && wishes.rests().is_empty());
            tokio::select! {
                more = map.changed() => {
                    if !more {
                        return;
                    }
                }
                // An owner may have connected to this node only now, or was being told other things.
                () = arrived, if pressing => {}
                () = sleep(WANT_AGAIN), if pressing => {}
            }
        }
    }

    fn begin_rest(self: &Arc<Self>, asked: Asked, busy: &Arc<Mutex<HashSet<Revision>>>) {
        let owner = self.owner_here(asked.volume);
        let Some(owner) = owner.filter(|owner| owner.generation.0 == asked.record.generation) else {
            return;
        };
        let lock = |busy: &Mutex<HashSet<Revision>>, change: &dyn Fn(&mut HashSet<Revision>) -> bool| {
            change(&mut busy.lock().unwrap_or_else(PoisonError::into_inner))
        };
        if !lock(busy, &|busy| busy.insert(asked.at)) {
            return;
        }
        let (sessions, busy) = (Arc::clone(self), Arc::clone(busy));
        tokio::spawn(async move {
            sessions.rest_for_another(&asked, &owner).await;
            lock(&busy, &|busy| busy.remove(&asked.at));
        });
    }

    /// Brings a volume of this node to rest for as long as another node's wish stands.
    async fn rest_for_another(self: &Arc<Self>, asked: &Asked, owner: &Registered) {
        let Ok(mark) = Mark::set(self, &[asked.volume]) else {
            debug!(volume = %asked.volume, "held still already: asked again soon");
            return;
        };
        mark.close();
        let limit = Duration::from_millis(asked.record.limit_ms);
        let (drained, drain) = oneshot::channel();
        let (hold, held) = oneshot::channel();
        let order = Order::Quiesce {
            limit,
            drained,
            hold: held,
        };
        // A connection that ended drops the order, which is seen below.
        let _ = owner.orders.send(order).await;
        if !matches!(tokio::time::timeout(limit, drain).await, Ok(Ok(()))) {
            return;
        }
        match self.answer(asked, owner.generation).await {
            Ok(Some(rested)) => {
                let over = self.until_taken_back(asked).await;
                self.delete_ours(&Key::Rested(asked.volume).to_text(), rested)
                    .await;
                drop(mark);
                // A connection that ended needs no telling: it resumes with the map as it is.
                let _ = hold.send(over);
            }
            // The wish was taken back, or the owner left.
            Ok(None) => {}
            Err(error) => warn!(volume = %asked.volume, %error, "cannot say that a volume is at rest"),
        }
    }

    async fn answer(
        &self,
        asked: &Asked,
        generation: Generation,
    ) -> Result<Option<Revision>, CoordinationError> {
        let record = RestedRecord {
            generation: generation.0,
            asked: asked.at.0,
        };
        let key = Key::Rested(asked.volume).to_text();
        let transaction = Transaction::new()
            .when(Compare::Created(Key::Rest(asked.volume).to_text(), asked.at))
            .when(Compare::Created(
                Key::Owner(asked.volume).to_text(),
                Revision(generation.0),
            ))
            .put_leased(key, encode(&record)?, self.settings.presence.lease());
        match self.store.commit(transaction).await? {
            Outcome::Committed(revision) => Ok(Some(revision)),
            Outcome::Conflict(_) => Ok(None),
        }
    }

    /// Waits until the wish is gone; gives the revision from which on the map shows what came of it.
    async fn until_taken_back(&self, asked: &Asked) -> Revision {
        let mut map = self.map.clone();
        let stands = |map: &ClusterMap| {
            let rest = map.wishes().rests().get(&asked.volume);
            rest.is_some_and(|rest| rest.created == asked.at)
        };
        loop {
            let current = map.current_and_seen();
            if !stands(&current) || !map.changed().await {
                return current.revision();
            }
        }
    }

    /// Deletes a key that goes away with our lease anyway.
    async fn delete_ours(&self, key: &str, written: Revision) {
        for _ in 0..ATTEMPTS_MAX {
            let transaction = Transaction::new()
                .when(Compare::Modified(key.to_owned(), written))
                .delete(key);
            match self.store.commit(transaction).await {
                Ok(_) => return,
                Err(error) => warn!(key, %error, "a wish cannot be taken back, trying again"),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// Lets the owner of a volume know that somebody waits for it, wherever it is. It is told again and
    /// again, so one that connects later hears of it too.
    pub(super) async fn want(&self, volume: VolumeId) {
        if self.tell_wanted(volume) {
            return;
        }
        let map = self.map.current();
        let ours = self.settings.node;
        let elsewhere = map.owner(volume).is_some_and(|owner| owner.record.node != ours);
        if !elsewhere || map.wishes().wants().contains_key(&volume) {
            return;
        }
        if let Err(error) = self.put_want(volume).await {
            warn!(%volume, %error, "the owner's node cannot be told that somebody waits");
        }
    }

    async fn put_want(&self, volume: VolumeId) -> Result<(), CoordinationError> {
        let key = Key::Want(volume).to_text();
        let record = WantRecord {
            node: self.settings.node,
        };
        let transaction = Transaction::new().when(Compare::Absent(key.clone())).put_leased(
            key,
            encode(&record)?,
            self.settings.presence.lease(),
        );
        let (Outcome::Committed(revision) | Outcome::Conflict(revision)) =
            self.store.commit(transaction).await?;
        self.map.at_least(revision).await;
        Ok(())
    }

    /// Nobody of this node waits any more. Who does, says so again.
    pub(super) async fn want_no_more(&self, volume: VolumeId) {
        let map = self.map.current();
        let want = map.wishes().wants().get(&volume);
        if let Some(want) = want.filter(|want| want.record.node == self.settings.node) {
            self.delete_ours(&Key::Want(volume).to_text(), want.created).await;
        }
    }

    /// False if the owner has no connection here.
    fn tell_wanted(&self, volume: VolumeId) -> bool {
        let Some(owner) = self.owner_here(volume) else {
            return false;
        };
        // A full queue means that it is being told other things: the wish comes again.
        let _ = owner.orders.try_send(Order::Yield);
        true
    }
}

/// A volume that another node wants to have at rest.
struct Asked {
    volume: VolumeId,
    /// The transaction that asked.
    at: Revision,
    record: RestRecord,
}
