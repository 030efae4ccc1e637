//! The first records of a cluster: its identity, and this node.

use std::sync::Arc;

use coordination::keys::Key;
use coordination::records::{NodeRecord, SchemaRecord, encode};
use coordination::{
    ClusterMap, Compare, Coordination, CoordinationError, Outcome, Transaction, map::MapWatch,
};
use protocol::NodeId;
use rand::Rng;

use crate::moment::wall_clock_ms;

/// The node of an embedded coordination store, which has no other.
const ONLY_NODE: NodeId = NodeId(1);

/// Makes the cluster's first records if there are none; gives this node and the map that shows it.
pub async fn enter(
    store: &Arc<dyn Coordination>,
    map: &MapWatch,
) -> Result<(NodeId, Arc<ClusterMap>), CoordinationError> {
    let current = map.current();
    if current.cluster() != [0; 16] {
        return Ok((ONLY_NODE, current));
    }
    let schema = SchemaRecord {
        cluster: rand::rng().random(),
        created_ms: wall_clock_ms(),
    };
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = NodeRecord {
        name,
        zone: String::new(),
    };
    let transaction = Transaction::new()
        .when(Compare::Absent(Key::Schema.to_text()))
        .put(Key::Schema.to_text(), encode(&schema)?)
        .put(Key::Node(ONLY_NODE).to_text(), encode(&node)?);
    let (Outcome::Committed(revision) | Outcome::Conflict(revision)) = store.commit(transaction).await?;
    Ok((ONLY_NODE, map.at_least(revision).await))
}
