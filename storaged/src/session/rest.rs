//! Volumes at rest: owners hold still while a transaction seals their heads.
//!
//! A front end that has the volume open is asked to drain. A volume that nobody has open is taken
//! over by a visitor of our own first, so that all its copies are level (rule 7), and is then asked
//! like any other.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordination::keys::Key;
use coordination::{Compare, Revision};
use protocol::{Generation, VolumeId};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ownership;
use super::visit::Visitor;
use super::wishes::{RestElsewhere, Stillness};
use super::{Registered, Sessions};
use crate::volumes::rest::{AtRest, Owners, RestError};

/// How long owners may take to drain. Guests wait that long at most for a snapshot that does not
/// come about; a disk that is away holds a drain up for longer, and then there is no snapshot.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a volume that nobody has open may take to be taken over.
pub(super) const VISIT_LIMIT: Duration = Duration::from_secs(30);
/// Owners of a volume that may leave while they are asked to hold still.
const ATTEMPTS_MAX: usize = 3;
/// How much longer than its lease an owner without a connection is waited for: then it is known
/// whether it comes again or has lost the volume.
const OWNER_GRACE: Duration = Duration::from_secs(2);

/// What a session's connection is told to do.
pub(super) enum Order {
    /// Tell the front end that somebody waits for its volume.
    Yield,
    /// Ask the front end to hold its volume still.
    Quiesce {
        limit: Duration,
        /// Told when it holds still; dropped if it does not.
        drained: oneshot::Sender<()>,
        /// Held still until this ends; with a revision, the front end goes on as the map is then.
        hold: oneshot::Receiver<Revision>,
    },
}

/// Marks volumes as ours to bring to rest, for as long as it lives.
pub(super) struct Mark {
    volumes: Vec<VolumeId>,
    sessions: Arc<Sessions>,
}

impl Mark {
    pub(super) fn set(sessions: &Arc<Sessions>, volumes: &[VolumeId]) -> Result<Self, RestError> {
        let mut resting = sessions.resting();
        if let Some(volume) = volumes.iter().find(|volume| resting.contains_key(volume)) {
            let message = format!("{volume} is held still for another operation: try again");
            return Err(RestError::NotInTime(message));
        }
        resting.extend(volumes.iter().map(|volume| (*volume, false)));
        drop(resting);
        Ok(Self {
            volumes: volumes.to_vec(),
            sessions: Arc::clone(sessions),
        })
    }
}

impl Mark {
    /// From now on none of them is resumed: an owner that goes on now could write while its head is
    /// being sealed.
    pub(super) fn close(&self) {
        let mut resting = self.sessions.resting();
        resting.extend(self.volumes.iter().map(|volume| (*volume, true)));
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut resting = self.sessions.resting();
        for volume in &self.volumes {
            resting.remove(volume);
        }
    }
}

/// Volumes that hold still. Dropping it lets them go on.
struct Resting {
    volumes: Vec<(VolumeId, Generation)>,
    holds: Vec<oneshot::Sender<Revision>>,
    visitors: Vec<Visitor>,
    elsewhere: Vec<RestElsewhere>,
    mark: Mark,
}

impl Resting {
    /// Lets all owners go on as they were; nothing is left of it afterwards, so that they may be asked again.
    async fn abandon(self) {
        let Self {
            holds,
            visitors,
            elsewhere,
            mark,
            ..
        } = self;
        drop(holds);
        for rest in elsewhere {
            rest.take_back().await;
        }
        for visitor in visitors {
            visitor.leave(&mark.sessions).await;
        }
    }
}

/// Where the owner of a volume was found.
enum Found {
    /// It has a connection here, maybe as a visitor that was sent for this.
    Here(Registered, Option<Visitor>),
    /// On another node.
    Elsewhere(Generation),
}

#[async_trait]
impl AtRest for Resting {
    fn conditions(&self, volume: VolumeId) -> Option<Vec<Compare>> {
        let (_, generation) = self.volumes.iter().find(|(id, _)| *id == volume)?;
        let owner = Compare::Created(Key::Owner(volume).to_text(), Revision(generation.0));
        let elsewhere = self.elsewhere.iter().find(|rest| rest.volume() == volume);
        let holds = elsewhere.map(RestElsewhere::condition);
        Some(std::iter::once(owner).chain(holds).collect())
    }

    async fn end(self: Box<Self>, at: Revision) {
        let Self {
            holds,
            visitors,
            elsewhere,
            mark,
            ..
        } = *self;
        let sessions = Arc::clone(&mark.sessions);
        // From here on whoever resumes sees the map at this revision.
        sessions.map.at_least(at).await;
        drop(mark);
        for hold in holds {
            // A connection that ended needs no telling: it resumes with the map as it is.
            let _ = hold.send(at);
        }
        for rest in elsewhere {
            rest.take_back().await;
        }
        for visitor in visitors {
            visitor.leave(&sessions).await;
        }
    }
}

/// Why volumes did not come to rest this time.
enum Failed {
    /// An owner was gone before it held still: whoever owns the volume now is asked.
    OwnerLeft(RestError),
    /// For good.
    Rest(RestError),
}

impl From<RestError> for Failed {
    fn from(error: RestError) -> Self {
        Self::Rest(error)
    }
}

#[async_trait]
impl Owners for Arc<Sessions> {
    async fn bring_to_rest(&self, volumes: &[VolumeId]) -> Result<Box<dyn AtRest>, RestError> {
        let mut attempts = 0..ATTEMPTS_MAX;
        loop {
            attempts.next();
            match self.try_rest(volumes).await {
                Ok(resting) => return Ok(Box::new(resting)),
                Err(Failed::OwnerLeft(_)) if !attempts.is_empty() => {}
                Err(Failed::OwnerLeft(error) | Failed::Rest(error)) => return Err(error),
            }
        }
    }

    async fn dismiss_caretaker(&self, volume: VolumeId) {
        Sessions::dismiss_caretaker(self, volume).await;
    }

    async fn move_on(&self, volume: VolumeId) -> Result<bool, RestError> {
        let mut map = self.map.clone();
        let over = async |_: &Visitor| {
            while map.current_and_seen().moving(volume).is_some() && map.changed().await {}
        };
        self.attend(volume, over).await
    }

    async fn encode(&self, volume: VolumeId) -> Result<bool, RestError> {
        self.attend(volume, Visitor::encoded).await
    }

    async fn zero_beyond(
        &self,
        volume: VolumeId,
        from: u64,
        to: u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RestError> {
        self.stretched().insert(volume, to);
        let zeroed = self.zero_by_visit(volume, from, to, progress).await;
        self.stretched().remove(&volume);
        zeroed
    }
}

impl Sessions {
    async fn try_rest(self: &Arc<Self>, volumes: &[VolumeId]) -> Result<Resting, Failed> {
        let mut resting = Resting {
            volumes: Vec::with_capacity(volumes.len()),
            holds: Vec::with_capacity(volumes.len()),
            visitors: Vec::new(),
            elsewhere: Vec::new(),
            mark: Mark::set(self, volumes)?,
        };
        for volume in volumes {
            match self.find_or_visit(*volume).await? {
                Found::Here(owner, visitor) => {
                    resting.volumes.push((*volume, owner.generation));
                    resting.visitors.extend(visitor);
                }
                Found::Elsewhere(generation) => {
                    resting.volumes.push((*volume, generation));
                    let asked = RestElsewhere::ask(self, *volume, generation, DRAIN_LIMIT).await?;
                    resting.elsewhere.push(asked);
                }
            }
        }
        resting.mark.close();
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut drains = Vec::with_capacity(volumes.len());
        // All are asked before the first is waited for. The connection is looked up once more: one
        // that was resumed in between is asked itself.
        let here = |volume| !resting.elsewhere.iter().any(|rest| rest.volume() == volume);
        let all = resting.volumes.iter().copied();
        let ours: Vec<_> = all.filter(|(volume, _)| here(*volume)).collect();
        for (volume, generation) in ours {
            let (drained, drain) = oneshot::channel();
            let (hold, held) = oneshot::channel();
            let order = Order::Quiesce {
                limit: DRAIN_LIMIT,
                drained,
                hold: held,
            };
            let owner = self.owner_here(volume);
            if let Some(owner) = owner.filter(|owner| owner.generation == generation) {
                // A connection that ended drops the order, which is seen below.
                let _ = owner.orders.send(order).await;
            }
            resting.holds.push(hold);
            drains.push((drain, volume));
        }
        for (drain, volume) in drains {
            match timeout_at(deadline, drain).await {
                Ok(Ok(())) => {}
                // It closed the volume just now, or its connection ended.
                Ok(Err(_)) => {
                    resting.abandon().await;
                    return Err(Failed::OwnerLeft(RestError::NotInTime(self.not_at_rest(volume))));
                }
                Err(_) => return Err(RestError::NotInTime(self.not_at_rest(volume)).into()),
            }
        }
        let mut left = None;
        for rest in &mut resting.elsewhere {
            match rest.holds_still(deadline).await {
                Stillness::Holds(_) => {}
                Stillness::OwnerLeft => left = Some(rest.volume()),
                Stillness::NotInTime => {
                    return Err(RestError::NotInTime(self.not_at_rest(rest.volume())).into());
                }
            }
        }
        match left {
            None => Ok(resting),
            Some(volume) => {
                resting.abandon().await;
                Err(Failed::OwnerLeft(RestError::NotInTime(self.not_at_rest(volume))))
            }
        }
    }

    /// The owner of a volume, maybe a visitor that was sent for this. An owner that nobody can speak with is waited
    /// for until its lease has lapsed: one of this node that has no connection just now (this `storaged` was
    /// restarted a moment ago), or one of a node that is down.
    async fn find_or_visit(self: &Arc<Self>, volume: VolumeId) -> Result<Found, RestError> {
        let deadline = Instant::now() + self.settings.lease + OWNER_GRACE;
        let mut map = self.map.clone();
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(owner) = self.owner_here(volume) {
                return Ok(Found::Here(owner, None));
            }
            let current = map.current_and_seen();
            let owner = current.owner(volume);
            let elsewhere = owner.filter(|owner| owner.record.node != self.settings.node);
            if let Some(owner) = elsewhere
                && current.up().contains_key(&owner.record.node)
            {
                return Ok(Found::Elsewhere(Generation(owner.created.0)));
            }
            if owner.is_none() {
                match Visitor::enter(self, volume).await {
                    Ok(visitor) => {
                        if let Some(owner) = self.owner_here(volume) {
                            return Ok(Found::Here(owner, Some(visitor)));
                        }
                        visitor.leave(self).await;
                    }
                    // Somebody was faster: then that one is asked.
                    Err(RestError::InUse(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            tokio::select! {
                () = arrived => {}
                _ = map.changed() => {}
                () = sleep_until(deadline) => {
                    return Err(RestError::NotInTime(self.does_not_answer(volume)));
                }
            }
        }
    }

    /// The owner of a volume, if it has a connection here that takes orders. One that has ended stays registered until it is
    /// known whether its process is dead, and is not here meanwhile.
    pub(super) fn owner_here(&self, volume: VolumeId) -> Option<Registered> {
        let owner = self.registered().get(&volume).cloned();
        owner.filter(|owner| !owner.orders.is_closed())
    }

    fn not_at_rest(&self, volume: VolumeId) -> String {
        let (name, owner) = self.name_and_owner(volume);
        format!(
            "volume {name:?} did not come to rest in {} s; {owner}",
            DRAIN_LIMIT.as_secs()
        )
    }

    fn does_not_answer(&self, volume: VolumeId) -> String {
        let (name, owner) = self.name_and_owner(volume);
        format!(
            "volume {name:?} cannot be brought to rest: {owner}, who could not be asked in {} s, and whose lease has \
             not lapsed in that time: try again",
            (self.settings.lease + OWNER_GRACE).as_secs()
        )
    }

    fn name_and_owner(&self, volume: VolumeId) -> (String, String) {
        let map = self.map.current();
        let name = map
            .volume(volume)
            .map_or_else(|| volume.to_string(), |(_, v)| v.record.name.clone());
        let owner = map.owner(volume).map_or_else(
            || "its owner left".to_owned(),
            |owner| format!("its owner is {}", ownership::name_of(&owner.record)),
        );
        (name, owner)
    }

    /// Waits until the map does not show this owner any more.
    pub(super) async fn until_not_owned(&self, volume: VolumeId, generation: Generation) {
        let mut map = self.map.clone();
        while map.current_and_seen().generation(volume) == Some(generation) {
            if !map.changed().await {
                return;
            }
        }
    }

    async fn zero_by_visit(
        self: &Arc<Self>,
        volume: VolumeId,
        from: u64,
        to: u64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RestError> {
        let mut visitor = Visitor::enter(self, volume).await?;
        let zeroed = visitor.zero(from, to, progress).await;
        visitor.leave(self).await;
        zeroed
    }
}
