//! How a `storaged` becomes a node of a cluster and stays it: the cluster's first records, the node's own
//! record, and which work directory is whose. What the node does then is not known here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coordination::keys::{Counter, Key};
use coordination::map::Versioned;
use coordination::records::{NewerFields, NodeRecord, RecordError, SchemaRecord, encode};
use coordination::{
    ClusterMap, Compare, Coordination, CoordinationError, Outcome, Transaction, map::MapWatch,
};
use protocol::NodeId;
use rand::Rng;
use tracing::info;

use crate::identities::Identities;
use crate::moment::wall_clock_ms;
use crate::volumes::OperationError;

pub mod authority;
pub mod door;
pub mod handover;
pub mod identity;
pub mod memory;
pub mod port;
pub mod presence;
pub mod recall;
pub mod removal;
mod replacement;
pub mod seal;
pub mod tokens;

use identity::{Identity, IdentityError, hexadecimal};
use presence::PresenceKeeper;

/// The node of an embedded coordination store, which has no other.
const ONLY_NODE: NodeId = NodeId(1);
/// Attempts against others that change the same records at the same moment.
const ATTEMPTS_MAX: usize = 32;

/// What a node is told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its work directory.
    pub work_dir: PathBuf,
    /// For people.
    pub name: String,
    /// The failure zone that it is in.
    pub zone: String,
    /// How long it counts as up after its last renewal.
    pub lease: Duration,
    /// Whether the coordination store is its own: then there is no other node.
    pub alone: bool,
    /// Nodes that are lost for good: lost records are put back without waiting for what they remember.
    pub recall_without: BTreeSet<NodeId>,
}

/// Why a `storaged` does not become a node.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The work directory does not say which node it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The coordination store refuses.
    #[error(transparent)]
    Store(#[from] CoordinationError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No number can be had.
    #[error(transparent)]
    Number(#[from] OperationError),
    /// The work directory belongs to another cluster.
    #[error(
        "the work directory {path} belongs to {node} of cluster {own}, and the coordination store is that of \
         {other}: use the coordination store of its cluster, or an empty work directory"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Which node it is.
        node: NodeId,
        /// Of which cluster.
        own: String,
        /// Whose store it is.
        other: String,
    },
    /// The number is somebody else's.
    #[error(
        "the work directory {path} says that it is {node}, and the cluster knows another node by that number: \
         was the coordination store or the directory restored from a backup?"
    )]
    Impostor {
        /// The directory.
        path: PathBuf,
        /// Which node it says that it is.
        node: NodeId,
    },
    /// The node is no member any more.
    #[error(
        "{node} was removed from the cluster: to use this machine again, give it an empty work directory"
    )]
    Removed {
        /// Which node.
        node: NodeId,
    },
    /// There is one already.
    #[error(
        "{node} runs already, as process {pid} {}: is this work directory a copy of that node's? Give \
         each node one of its own", if *here { "on this machine" } else { "on another machine" }
    )]
    Running {
        /// Which node.
        node: NodeId,
        /// Its process.
        pid: u32,
        /// Whether that is a process of this machine.
        here: bool,
    },
}

/// Makes this `storaged` a node of the cluster, the first one or another one; gives the keeper of its being up,
/// and the map that shows it.
pub async fn enter(
    store: &Arc<dyn Coordination>,
    map: &MapWatch,
    identities: &Identities,
    settings: &Settings,
) -> Result<(PresenceKeeper, Arc<ClusterMap>), EnterError> {
    let own = Identity::read(&settings.work_dir)?;
    let current = cluster(store, map, own.as_ref(), &settings.work_dir).await?;
    let node = match own {
        Some(own) => check(&current, &own, settings)?,
        None => register(store, map, identities, settings).await?,
    };
    refresh(store, map, node, settings, None).await?;
    let keeper = PresenceKeeper::start(store.clone(), map.clone(), node, settings.lease).await?;
    Ok((keeper, map.current()))
}

/// A map with a cluster in it. There is a new one if the store is empty.
async fn cluster(
    store: &Arc<dyn Coordination>,
    map: &MapWatch,
    own: Option<&Identity>,
    work_dir: &Path,
) -> Result<Arc<ClusterMap>, EnterError> {
    let current = map.current();
    if current.cluster() != [0; 16] {
        return Ok(current);
    }
    if let Some(own) = own {
        return Err(foreign(own, work_dir, "no cluster".to_owned()));
    }
    let schema = SchemaRecord {
        cluster: rand::rng().random(),
        created_ms: wall_clock_ms(),
    };
    let transaction = Transaction::new()
        .when(Compare::Absent(Key::Schema.to_text()))
        .put(Key::Schema.to_text(), encode(&schema)?);
    let (Outcome::Committed(revision) | Outcome::Conflict(revision)) = store.commit(transaction).await?;
    Ok(map.at_least(revision).await)
}

fn foreign(own: &Identity, work_dir: &Path, other: String) -> EnterError {
    EnterError::Foreign {
        path: work_dir.to_owned(),
        node: own.node,
        own: hexadecimal(&own.cluster),
        other,
    }
}

/// Whether the node that the work directory names is the one that the cluster knows.
fn check(map: &ClusterMap, own: &Identity, settings: &Settings) -> Result<NodeId, EnterError> {
    if own.cluster != map.cluster() {
        let other = format!("cluster {}", hexadecimal(&map.cluster()));
        return Err(foreign(own, &settings.work_dir, other));
    }
    let known = map.nodes().get(&own.node);
    let known = known.ok_or(EnterError::Removed { node: own.node })?;
    if known.record.serial != own.serial {
        return Err(EnterError::Impostor {
            path: settings.work_dir.clone(),
            node: own.node,
        });
    }
    Ok(own.node)
}

/// Gives a work directory that was no node's so far a node's identity.
async fn register(
    store: &Arc<dyn Coordination>,
    map: &MapWatch,
    identities: &Identities,
    settings: &Settings,
) -> Result<NodeId, EnterError> {
    let serial = rand::rng().random();
    for _ in 0..ATTEMPTS_MAX {
        let current = map.current();
        let (node, condition) = if let Some(former) = inherited(&current, settings) {
            let key = Key::Node(ONLY_NODE).to_text();
            (ONLY_NODE, Compare::Modified(key, former.modified))
        } else {
            let node = NodeId(identities.next_short(Counter::Node).await?);
            (node, Compare::Absent(Key::Node(node).to_text()))
        };
        let record = NodeRecord {
            name: settings.name.clone(),
            zone: settings.zone.clone(),
            serial,
            addresses: Vec::new(),
            created_ms: wall_clock_ms(),
            newer: NewerFields::default(),
        };
        let transaction = Transaction::new()
            .when(condition)
            .put(Key::Node(node).to_text(), encode(&record)?);
        match store.commit(transaction).await? {
            Outcome::Committed(revision) => {
                let cluster = map.at_least(revision).await.cluster();
                // Cut short here, the record is that of a node without disks, which can be removed.
                Identity {
                    cluster,
                    node,
                    serial,
                }
                .write(&settings.work_dir)?;
                info!(%node, cluster = hexadecimal(&cluster), "this machine is a node of the cluster now");
                return Ok(node);
            }
            Outcome::Conflict(revision) => {
                map.at_least(revision).await;
            }
        }
    }
    Err(OperationError::contended().into())
}

/// The record of a node that is ours though the work directory does not say so: the only one of a store of
/// our own, and the one from before nodes had identities, which was the only one too.
fn inherited<'a>(map: &'a ClusterMap, settings: &Settings) -> Option<&'a Versioned<NodeRecord>> {
    let former = map.nodes().get(&ONLY_NODE)?;
    (settings.alone || former.record.serial == [0; 16]).then_some(former)
}

/// Tells where other machines reach a node; with nothing, that they do not.
pub async fn announce(
    store: &Arc<dyn Coordination>,
    map: &MapWatch,
    node: NodeId,
    settings: &Settings,
    address: Option<String>,
) -> Result<(), EnterError> {
    let addresses = address.map(|address| format!("tcp:{address}"));
    refresh(store, map, node, settings, Some(addresses.into_iter().collect())).await
}

/// Writes into the node's record what it is told now, if that is news. Its addresses stay if none are given.
async fn refresh(
    store: &Arc<dyn Coordination>,
    map: &MapWatch,
    node: NodeId,
    settings: &Settings,
    addresses: Option<Vec<String>>,
) -> Result<(), EnterError> {
    for _ in 0..ATTEMPTS_MAX {
        let current = map.current();
        let known = current.nodes().get(&node).ok_or(EnterError::Removed { node })?;
        let record = NodeRecord {
            name: settings.name.clone(),
            zone: settings.zone.clone(),
            addresses: addresses
                .clone()
                .unwrap_or_else(|| known.record.addresses.clone()),
            ..known.record.clone()
        };
        if record == known.record {
            return Ok(());
        }
        let key = Key::Node(node).to_text();
        let transaction = Transaction::new()
            .when(Compare::Modified(key.clone(), known.modified))
            .put(key, encode(&record)?);
        let (Outcome::Committed(revision) | Outcome::Conflict(revision)) = store.commit(transaction).await?;
        map.at_least(revision).await;
    }
    Err(OperationError::contended().into())
}

#[cfg(test)]
mod tests {
    //! A node stays the node that it was; nobody becomes another one by a copy or a mistake.
    use coordination::Embedded;
    use coordination::map::MapKeeper;
    use tempfile::TempDir;

    use super::*;

    struct World {
        store: Arc<dyn Coordination>,
        map: MapWatch,
        identities: Identities,
    }

    async fn world() -> World {
        let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
        let (keeper, map) = MapKeeper::start(store.clone()).await.unwrap();
        tokio::spawn(keeper.run());
        let identities = Identities::new(store.clone());
        World {
            store,
            map,
            identities,
        }
    }

    fn settings(directory: &TempDir, name: &str) -> Settings {
        Settings {
            work_dir: directory.path().to_owned(),
            name: name.to_owned(),
            zone: String::new(),
            lease: Duration::from_secs(1),
            alone: false,
            recall_without: BTreeSet::new(),
        }
    }

    async fn entered(world: &World, settings: &Settings) -> Result<NodeId, EnterError> {
        let (keeper, map) = enter(&world.store, &world.map, &world.identities, settings).await?;
        let presence = keeper.presence();
        assert!(map.up().contains_key(&presence.node()));
        world.store.revoke_lease(presence.lease()).await.unwrap();
        Ok(presence.node())
    }

    #[tokio::test]
    async fn a_node_that_starts_again_is_the_same_and_another_directory_is_another_node() {
        let world = world().await;
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(entered(&world, &settings(&a, "a")).await.unwrap(), NodeId(1));
        assert_eq!(entered(&world, &settings(&b, "b")).await.unwrap(), NodeId(2));
        let moved = Settings {
            zone: "east".to_owned(),
            ..settings(&a, "a2")
        };
        assert_eq!(entered(&world, &moved).await.unwrap(), NodeId(1));
        let map = world.map.current();
        let record = &map.nodes()[&NodeId(1)].record;
        assert_eq!((record.name.as_str(), record.zone.as_str()), ("a2", "east"));
    }

    #[tokio::test]
    async fn where_a_node_is_reached_is_told_and_stays_until_it_is_told_anew() {
        let world = world().await;
        let a = tempfile::tempdir().unwrap();
        let settings = settings(&a, "a");
        let node = entered(&world, &settings).await.unwrap();
        let addresses = || world.map.current().nodes()[&node].record.addresses.clone();
        let told = async |address: Option<&str>| {
            let address = address.map(str::to_owned);
            announce(&world.store, &world.map, node, &settings, address)
                .await
                .unwrap();
        };
        assert!(addresses().is_empty());
        told(Some("10.0.0.1:7470")).await;
        assert_eq!(addresses(), ["tcp:10.0.0.1:7470"]);
        entered(&world, &settings).await.unwrap();
        assert_eq!(addresses(), ["tcp:10.0.0.1:7470"]);
        told(None).await;
        assert!(addresses().is_empty());
    }

    #[tokio::test]
    async fn a_directory_of_another_cluster_is_refused_also_by_an_empty_store() {
        let (one, other, empty) = (world().await, world().await, world().await);
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        entered(&one, &settings(&a, "a")).await.unwrap();
        entered(&other, &settings(&b, "b")).await.unwrap();
        for world in [other, empty] {
            let refused = entered(&world, &settings(&a, "a")).await.unwrap_err();
            assert!(matches!(refused, EnterError::Foreign { .. }), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_node_that_was_removed_or_replaced_does_not_come_back() {
        let world = world().await;
        let a = tempfile::tempdir().unwrap();
        let node = entered(&world, &settings(&a, "a")).await.unwrap();
        let key = Key::Node(node).to_text();
        let mut record = world.map.current().nodes()[&node].record.clone();
        record.serial = [9; 16];
        for (transaction, says) in [
            (
                Transaction::new().put(key.clone(), encode(&record).unwrap()),
                "another node",
            ),
            (Transaction::new().delete(key), "removed"),
        ] {
            let Outcome::Committed(revision) = world.store.commit(transaction).await.unwrap() else {
                panic!("a change without a condition");
            };
            world.map.at_least(revision).await;
            let refused = entered(&world, &settings(&a, "a")).await.unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_record_from_before_nodes_had_identities_is_taken_up_once() {
        let world = world().await;
        let former = NodeRecord {
            name: "old".to_owned(),
            zone: String::new(),
            serial: [0; 16],
            addresses: Vec::new(),
            created_ms: 0,
            newer: NewerFields::default(),
        };
        let schema = SchemaRecord {
            cluster: [7; 16],
            created_ms: 0,
        };
        let made = Transaction::new()
            .put(Key::Schema.to_text(), encode(&schema).unwrap())
            .put(Key::Node(ONLY_NODE).to_text(), encode(&former).unwrap());
        let Outcome::Committed(revision) = world.store.commit(made).await.unwrap() else {
            panic!("a change without a condition");
        };
        world.map.at_least(revision).await;
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(entered(&world, &settings(&a, "a")).await.unwrap(), ONLY_NODE);
        // The counter never gave out the number 1.
        assert_eq!(entered(&world, &settings(&b, "b")).await.unwrap(), NodeId(2));
    }
}
