//! What the compute host's own agent makes, `storaged-attach`, of a wish in the store that both follow
//! ([`coordination::attach`]): a block device of its kernel for any Nova, or a socket for guests whose Nova knows our driver
//! (`cinder-api/nova`). Nova and os-brick connect nothing: they use the path.
//!
//! How a path comes to be is the agent's business. This module says what is wanted, and waits until it is so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordination::attach::{AgentRecord, HaveRecord, Host, WANTS, WantRecord, Way, parse_want};
use coordination::records::{decode, encode};
use coordination::{Compare, Coordination, CoordinationError, Event, Outcome, Revision, Transaction};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{ConnectionError, Connector, Kind};
use crate::records::Volume;
use crate::storage::Storage;

/// What the kind of block devices is called: by Nova, and by types that ask for it.
pub const LOCAL: &str = "local";
/// What the kind of guests' sockets is called likewise.
pub const VHOST_USER: &str = "vhostuser";

/// How long a host may take to make a device. Load balancers give up after a minute, often after half of one.
const OPEN_WAIT: Duration = Duration::from_secs(20);
/// How long it may take to end one that nobody uses any more.
const CLOSE_WAIT: Duration = Duration::from_secs(20);
/// How often a wish is written anew because somebody else wrote it at the same moment.
const ATTEMPTS_MAX: usize = 8;

/// A kind for hosts that have the agent.
pub struct ByAgent {
    store: Arc<dyn Coordination>,
    way: Way,
}

impl From<CoordinationError> for ConnectionError {
    fn from(error: CoordinationError) -> Self {
        Self::Away(format!("What hosts shall have cannot be said or seen: {error}"))
    }
}

impl ByAgent {
    /// Wishes are in this store, for volumes in this way.
    pub fn new(store: Arc<dyn Coordination>, way: Way) -> Self {
        Self { store, way }
    }

    /// Whether an agent lives there that knows the way.
    async fn agent_lives(&self, host: &Host) -> Result<bool, CoordinationError> {
        let Some(entry) = self.store.get(&host.agent()).await? else {
            return Ok(false);
        };
        Ok(match self.way {
            Way::Block => true,
            Way::VhostUser => decode::<AgentRecord>(&entry).is_ok_and(|agent| agent.vhost_user),
        })
    }

    /// What it is that a host is to have, for people.
    fn thing(&self) -> &'static str {
        match self.way {
            Way::Block => "a block device",
            Way::VhostUser => "a guest's socket",
        }
    }

    /// Writes a wish, unless it is there; the transaction that wrote it, and whether this call did.
    async fn want(&self, key: &str) -> Result<(Revision, bool), ConnectionError> {
        let record = encode(&WantRecord {
            way: self.way,
            ..WantRecord::default()
        })?;
        for _ in 0..ATTEMPTS_MAX {
            let found = self.store.get(key).await?;
            let compare = match &found {
                Some(entry) if entry.value == record => return Ok((entry.modified, false)),
                Some(entry) => Compare::Modified(key.to_owned(), entry.modified),
                None => Compare::Absent(key.to_owned()),
            };
            let wish = Transaction::new().when(compare).put(key, record.clone());
            if let Outcome::Committed(revision) = self.store.commit(wish).await? {
                return Ok((revision, true));
            }
        }
        Err(ConnectionError::Away(
            "Others attach and detach the volume on this host all the time; try again.".to_owned(),
        ))
    }

    /// Follows what a host says of a volume until `good` finds it good, or until the time is over: then the last that was
    /// said.
    async fn follow<T>(
        &self,
        key: &str,
        wait: Duration,
        good: impl Fn(Option<&HaveRecord>) -> Option<T>,
    ) -> Result<Result<T, Option<HaveRecord>>, ConnectionError> {
        let deadline = Instant::now() + wait;
        loop {
            let range = self.store.range(key).await?;
            let entry = range.entries.iter().find(|entry| entry.key == key);
            let mut said: Option<HaveRecord> = entry.and_then(|entry| decode(entry).ok());
            let mut watch = self.store.watch(key, range.revision).await?;
            loop {
                if let Some(found) = good(said.as_ref()) {
                    return Ok(Ok(found));
                }
                match timeout_at(deadline, watch.next()).await {
                    Ok(Ok(batch)) => {
                        for event in &batch.events {
                            match event {
                                Event::Put(entry) if entry.key == key => said = decode(entry).ok(),
                                Event::Deleted(gone) if gone == key => said = None,
                                _ => {}
                            }
                        }
                    }
                    // The watch has ended: what is so now is read again.
                    Ok(Err(_)) => break,
                    Err(_) => return Ok(Err(said)),
                }
            }
        }
    }

    async fn open_on(&self, host: &Host, volume: &Volume) -> Result<String, ConnectionError> {
        let key = host.want(&volume.storage_name);
        let (wish, is_new) = self.want(&key).await?;
        let answer = |said: Option<&HaveRecord>| said.filter(|said| said.wish == wish.0)?.path.clone();
        let why = match self
            .follow(&host.have(&volume.storage_name), OPEN_WAIT, answer)
            .await
        {
            Ok(Ok(path)) => return Ok(path),
            Ok(Err(said)) => {
                let trouble = said.and_then(|said| said.trouble);
                let trouble =
                    trouble.unwrap_or_else(|| format!("it has not answered for {} s", OPEN_WAIT.as_secs()));
                ConnectionError::Away(format!(
                    "The host {} cannot make {} of volume {}: {trouble}",
                    host.name(),
                    self.thing(),
                    volume.id
                ))
            }
            Err(error) => error,
        };
        if is_new {
            // Nobody will take it back who does not know of it.
            let forgotten = Transaction::new()
                .when(Compare::Modified(key.clone(), wish))
                .delete(key);
            self.store.commit(forgotten).await?;
        }
        Err(why)
    }
}

#[async_trait]
impl Kind for ByAgent {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Block => LOCAL,
            Way::VhostUser => VHOST_USER,
        }
    }

    async fn serves(&self, connector: &Connector) -> Result<bool, ConnectionError> {
        match host_of(connector) {
            Some(host) => Ok(self.agent_lives(&host).await?),
            None => Ok(false),
        }
    }

    async fn open(
        &self,
        _: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<Map<String, Value>, ConnectionError> {
        let host = host_of(connector).ok_or_else(|| {
            ConnectionError::Connector("Connector doesn't have required information: host".to_owned())
        })?;
        if !self.agent_lives(&host).await? {
            return Err(ConnectionError::Away(format!(
                "No storaged-attach runs on the host {} that makes {}: start it there, with --host {0} if the system is called otherwise{}.",
                host.name(),
                self.thing(),
                if self.way == Way::VhostUser {
                    ", and with --vhost-user"
                } else {
                    ""
                }
            )));
        }
        let path = self.open_on(&host, volume).await?;
        let mut info = Map::new();
        let mut set = |key: &str, value: Value| {
            info.insert(key.to_owned(), value);
        };
        set("driver_volume_type", json!(self.name()));
        set("volume_id", json!(volume.id));
        match self.way {
            Way::Block => {
                set("device_path", json!(path));
                set("discard", json!(true));
                set("logical_block_size", json!("512"));
                set("physical_block_size", json!("4096"));
            }
            Way::VhostUser => set("socket_path", json!(path)),
        }
        Ok(info)
    }

    async fn close(
        &self,
        _: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<bool, ConnectionError> {
        let Some(host) = host_of(connector) else {
            return Ok(false);
        };
        let (want, have) = (host.want(&volume.storage_name), host.have(&volume.storage_name));
        let was_wanted = self.store.get(&want).await?.is_some();
        if !was_wanted && self.store.get(&have).await?.is_none() {
            return Ok(false);
        }
        self.store.commit(Transaction::new().delete(want)).await?;
        // Without an agent there is no word, either: it ends what is not wanted when it is back.
        let gone = |said: Option<&HaveRecord>| said.is_none().then_some(());
        match self.follow(&have, CLOSE_WAIT, gone).await? {
            Ok(()) => Ok(true),
            Err(said) => {
                let trouble = said.and_then(|said| said.trouble);
                Err(ConnectionError::Away(format!(
                    "The host {} still has volume {} as {}: {}",
                    host.name(),
                    volume.id,
                    self.thing(),
                    trouble.unwrap_or_else(|| format!("it has not answered for {} s", CLOSE_WAIT.as_secs()))
                )))
            }
        }
    }

    async fn withdraw(&self, _: &Storage, volume: &Volume) -> Result<(), ConnectionError> {
        let wishes = self.store.range(WANTS).await?.entries;
        for wish in wishes {
            if parse_want(&wish.key).is_some_and(|(_, name)| name == volume.storage_name) {
                self.store.commit(Transaction::new().delete(wish.key)).await?;
            }
        }
        Ok(())
    }
}

/// The host that asks.
fn host_of(connector: &Connector) -> Option<Host> {
    connector.get("host").and_then(Value::as_str).and_then(Host::new)
}
