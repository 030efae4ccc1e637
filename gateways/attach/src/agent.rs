//! Follows what others want this host to have: the keys of [`coordination::attach`]. Each volume is a task of its own, so
//! that one that does not come keeps no other one waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coordination::attach::{AgentRecord, Host, WantRecord, parse_want};
use coordination::records::{decode, encode};
use coordination::{
    Compare, Coordination, CoordinationError, Entry, Event, LeaseId, Outcome, Revision, Transaction, Watch,
};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::care::{aside, blocking};
use crate::kernel::Owner;
use crate::mapping::{MapError, Mapper};
use crate::sockets::{SocketError, Sockets};
use crate::wish::{Progress, Volume, Wish};

/// How long the agent counts as living without saying so: long enough for a restart.
const LEASE_TIME: Duration = Duration::from_secs(15);
/// Between its sayings: two may fail.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// Between attempts when the store is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the agent of another start of a machine of the same name is waited for: its lease, and some more.
const OTHER_WAIT: Duration = Duration::from_secs(40);
/// How long those who wait for the agent to be ready wait for volumes that do not come.
const READY_WAIT: Duration = Duration::from_mins(3);

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] CoordinationError),
    /// The kernel or the folder of names refuses.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The folder of sockets' options cannot be read.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Two machines of one name would both make what only one shall have.
    #[error(
        "another machine is called {0} and has an agent that lives: give this one another name, the same as its nova-compute has (--host)"
    )]
    Namesake(String),
}

/// Whose wishes are followed, and where.
pub struct Agent {
    /// This host.
    pub host: Host,
    /// What tells this start of this machine from others.
    pub boot: String,
    /// Its devices.
    pub mapper: Mapper,
    /// Its sockets for guests, if it makes some.
    pub sockets: Option<Sockets>,
    /// Where the wishes are.
    pub store: Arc<dyn Coordination>,
}

/// A volume's task.
struct Followed {
    wishes: watch::Sender<Wish>,
    progress: watch::Receiver<Progress>,
}

impl Agent {
    /// Follows wishes for ever. `ready` is called once all that was wanted at first is there, or has been waited for in
    /// vain for long enough.
    pub async fn run(self, ready: impl FnOnce() + Send + 'static) -> Result<(), AgentError> {
        blocking(&self.mapper, Mapper::settle_names).await?;
        let mut lease = self.announce().await?;
        let mut followed = HashMap::new();
        let mut following = self.list(lease, &mut followed).await?;
        info!(
            host = self.host.name(),
            volumes = followed.len(),
            "what this host shall have is followed"
        );
        let at_first: Vec<_> = followed
            .iter()
            .map(|(name, followed)| (name.clone(), followed.progress.clone()))
            .collect();
        tokio::spawn(async move {
            settle(at_first).await;
            ready();
        });
        let mut keeping = interval(KEEP_EVERY);
        loop {
            tokio::select! {
                _ = keeping.tick() => match self.store.keep_lease(lease).await {
                    Ok(()) => {}
                    Err(CoordinationError::NoLease) => {
                        lease = self.announce().await?;
                        following = self.list(lease, &mut followed).await?;
                    }
                    Err(error) => warn!(%error, "the store does not learn that this agent lives"),
                },
                batch = following.next() => match batch {
                    Ok(batch) => batch.events.iter().for_each(|event| self.apply(event, lease, &mut followed)),
                    Err(_) => following = self.list(lease, &mut followed).await?,
                },
            }
        }
    }

    /// Says that this agent lives. An earlier one's word is taken over.
    async fn announce(&self) -> Result<LeaseId, AgentError> {
        let record = encode(&AgentRecord {
            boot: self.boot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vhost_user: self.sockets.is_some(),
        })?;
        let key = self.host.agent();
        let deadline = Instant::now() + OTHER_WAIT;
        loop {
            match self.try_to_announce(&key, record.clone()).await {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) if Instant::now() >= deadline => {
                    return Err(AgentError::Namesake(self.host.name().to_owned()));
                }
                Ok(None) => {}
                Err(error @ CoordinationError::Invalid(_)) => return Err(error.into()),
                Err(error) => warn!(%error, "the store is away: what this host shall have is not known yet"),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn try_to_announce(
        &self,
        key: &str,
        record: Arc<[u8]>,
    ) -> Result<Option<LeaseId>, CoordinationError> {
        let found = self.store.get(key).await?;
        let is_other =
            |entry: &Entry| decode::<AgentRecord>(entry).is_ok_and(|record| record.boot != self.boot);
        let compare = match &found {
            Some(entry) if is_other(entry) => return Ok(None),
            Some(entry) => Compare::Modified(key.to_owned(), entry.modified),
            None => Compare::Absent(key.to_owned()),
        };
        let lease = self.store.grant_lease(LEASE_TIME).await?;
        let taken = Transaction::new().when(compare).put_leased(key, record, lease);
        match self.store.commit(taken).await? {
            Outcome::Committed(_) => Ok(Some(lease)),
            Outcome::Conflict(_) => Ok(None),
        }
    }

    /// Reads all wishes, and what follows them.
    async fn list(
        &self,
        lease: LeaseId,
        followed: &mut HashMap<String, Followed>,
    ) -> Result<Watch, AgentError> {
        loop {
            match self.try_to_list().await {
                Ok((wishes, following)) => {
                    self.take_over(wishes, lease, followed).await?;
                    return Ok(following);
                }
                Err(error @ CoordinationError::Invalid(_)) => return Err(error.into()),
                Err(error) => warn!(%error, "the store is away: what this host shall have is not known"),
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn try_to_list(
        &self,
    ) -> Result<(BTreeMap<String, (Revision, WantRecord)>, Watch), CoordinationError> {
        let range = self.store.range(&self.host.wants()).await?;
        let following = self.store.watch(&self.host.wants(), range.revision).await?;
        Ok((range.entries.iter().filter_map(wish_of).collect(), following))
    }

    /// Everything that is wanted, and everything that is here and is not: both are looked after.
    async fn take_over(
        &self,
        wishes: BTreeMap<String, (Revision, WantRecord)>,
        lease: LeaseId,
        followed: &mut HashMap<String, Followed>,
    ) -> Result<(), AgentError> {
        let here = blocking(&self.mapper, Mapper::list).await?;
        let sockets = match self.sockets.clone() {
            Some(sockets) => aside(move || sockets.list()).await?,
            None => Vec::new(),
        };
        let ours = here.into_iter().map(|mapped| mapped.device.tag);
        let ours = ours.filter(|tag| tag.owner == Owner::Cloud);
        let mut volumes: BTreeMap<String, Option<(Revision, WantRecord)>> =
            ours.map(|tag| (tag.export.to_string(), None)).collect();
        volumes.extend(sockets.into_iter().map(|name| (name, None)));
        volumes.extend(followed.keys().map(|name| (name.clone(), None)));
        volumes.extend(wishes.into_iter().map(|(name, wish)| (name, Some(wish))));
        for (name, wanted) in volumes {
            self.say(&name, Wish { wanted, lease }, followed);
        }
        Ok(())
    }

    fn apply(&self, event: &Event, lease: LeaseId, followed: &mut HashMap<String, Followed>) {
        let (name, wanted) = match event {
            Event::Put(entry) => match wish_of(entry) {
                Some((name, wish)) => (name, Some(wish)),
                None => return,
            },
            Event::Deleted(key) => match parse_want(key) {
                Some((_, name)) => (name.to_owned(), None),
                None => return,
            },
        };
        self.say(&name, Wish { wanted, lease }, followed);
    }

    /// Tells a volume's task what is wanted, and starts it if there is none.
    fn say(&self, name: &str, wish: Wish, followed: &mut HashMap<String, Followed>) {
        // Nothing here and nothing wanted.
        followed.retain(|_, followed| {
            let wish = *followed.wishes.borrow();
            wish.wanted.is_some() || *followed.progress.borrow() != Some((wish, true))
        });
        if let Some(followed) = followed.get(name)
            && followed.wishes.send(wish).is_ok()
        {
            return;
        }
        let (wishes, told) = watch::channel(wish);
        let (report, progress) = watch::channel(None);
        let volume = Volume {
            name: name.to_owned(),
            host: self.host.clone(),
            mapper: self.mapper.clone(),
            sockets: self.sockets.clone(),
            store: self.store.clone(),
        };
        tokio::spawn(volume.follow(told, report));
        followed.insert(name.to_owned(), Followed { wishes, progress });
    }
}

/// The volume of a wish, the transaction that wrote it, and what it says.
fn wish_of(entry: &Entry) -> Option<(String, (Revision, WantRecord))> {
    let (_, name) = parse_want(&entry.key)?;
    match decode::<WantRecord>(entry) {
        Ok(record) => Some((name.to_owned(), (entry.modified, record))),
        Err(error) => {
            error!(%error, "a wish is passed over");
            None
        }
    }
}

/// Waits until every volume is as it is wanted.
async fn settle(volumes: Vec<(String, watch::Receiver<Progress>)>) {
    let deadline = Instant::now() + READY_WAIT;
    for (name, mut progress) in volumes {
        let done = progress.wait_for(|progress| matches!(progress, Some((_, true))));
        if timeout_at(deadline, done).await.is_err() {
            warn!(
                volume = name,
                "the volume has not come in time: what needs it starts without it"
            );
        }
    }
}
