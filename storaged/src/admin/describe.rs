//! Records in the words of the API. Pure: a map in, answers out.

use std::collections::{BTreeMap, BTreeSet};

use admin_api::snapshots::Snapshot;
use admin_api::volumes::{Moving, Origin, Owner, Tree, TreeNode, TreeNodeKind, Volume};
use coordination::ClusterMap;
use coordination::map::{Family, Versioned};
use coordination::records::SnapshotRecord;
use protocol::{LayerId, VolumeId};

use crate::volumes::limits;

/// A volume.
pub(super) fn volume(map: &ClusterMap, id: VolumeId) -> Option<Volume> {
    let (family, volume) = map.volume(id)?;
    let record = &volume.record;
    let pool = family.pool().and_then(|pool| map.pool(pool));
    Some(Volume {
        id: id.0,
        name: record.name.clone(),
        pool: pool.map_or_else(String::new, |pool| pool.record.name.clone()),
        moving: moving(map, id),
        size: record.size,
        labels: record.labels.clone(),
        limits: limits::told(&record.limits),
        family: record.family.0,
        created_ms: record.created_ms,
        snapshots: family.snapshots_of(id).count() as u64,
        origin: record.origin.as_ref().map(|origin| Origin {
            volume: origin.volume_name.clone(),
            snapshot: origin.snapshot.clone(),
        }),
        owner: map.owner(id).map(|owner| Owner {
            client: format!(
                "{} (process {} on {})",
                owner.record.program, owner.record.pid, owner.record.node
            ),
            generation: owner.created.0,
        }),
        serial: serial(id),
        space: None,
    })
}

/// How far a volume is on its way to another pool.
fn moving(map: &ClusterMap, id: VolumeId) -> Option<Moving> {
    let moving = &map.moving(id)?.record;
    let source = map.volume(moving.source).and_then(|(family, _)| family.pool());
    let from = source.and_then(|pool| map.pool(pool));
    Some(Moving {
        from: from.map_or_else(String::new, |pool| pool.record.name.clone()),
        moved: moving.moved,
        rate: moving.rate,
        started_ms: moving.started_ms,
    })
}

/// The serial number that guests see: at most 20 characters, for ever the volume's.
fn serial(id: VolumeId) -> String {
    format!("{:016x}", id.0)
}

/// A snapshot.
pub(super) fn snapshot(volume: &str, name: &str, snapshot: &Versioned<SnapshotRecord>) -> Snapshot {
    Snapshot {
        id: snapshot.record.layer.0,
        volume: volume.to_owned(),
        name: name.to_owned(),
        size: snapshot.record.size,
        created_ms: snapshot.record.created_ms,
    }
}

/// A volume's snapshots, oldest first.
pub(super) fn snapshots_of(map: &ClusterMap, id: VolumeId) -> Vec<Snapshot> {
    let Some((family, volume)) = map.volume(id) else {
        return Vec::new();
    };
    let mut all: Vec<_> = family.snapshots_of(id).collect();
    all.sort_by_key(|(_, record)| record.created);
    all.into_iter()
        .map(|(name, record)| snapshot(&volume.record.name, name, record))
        .collect()
}

/// All that shares data with a volume: one node for each layer.
pub(super) fn tree(map: &ClusterMap, id: VolumeId) -> Option<Tree> {
    let (family, volume) = map.volume(id)?;
    let number = volume.record.family.0;
    let labels = labels(map, family);
    let children = family.children();
    let mut nodes = Vec::with_capacity(family.layers().len());
    let mut waiting: Vec<LayerId> = family
        .layers()
        .iter()
        .filter(|(_, record)| record.parent.is_none())
        .map(|(id, _)| *id)
        .collect();
    waiting.reverse();
    let mut seen = BTreeSet::new();
    while let Some(layer) = waiting.pop() {
        if !seen.insert(layer) {
            continue;
        }
        nodes.push(node(family, layer, &labels));
        // The youngest first onto the stack, so that the oldest comes off it first.
        waiting.extend(children.get(&layer).into_iter().flatten().rev());
    }
    Some(Tree {
        family: number,
        nodes,
        unknown: Vec::new(),
    })
}

/// What a layer shows: the volume's name, and the snapshot's if it is one.
type Labels = BTreeMap<LayerId, (String, Option<String>)>;

fn labels(map: &ClusterMap, family: &Family) -> Labels {
    let mut labels = Labels::new();
    for volume in family.volumes().values() {
        labels.insert(volume.record.head, (volume.record.name.clone(), None));
    }
    for ((volume, name), snapshot) in family.snapshots() {
        let volume = map
            .volume(*volume)
            .map_or_else(String::new, |(_, volume)| volume.record.name.clone());
        labels.insert(snapshot.record.layer, (volume, Some(name.to_string())));
    }
    labels
}

fn node(family: &Family, layer: LayerId, labels: &Labels) -> TreeNode {
    let record = family.layers().get(&layer);
    let label = labels.get(&layer);
    TreeNode {
        id: layer.0,
        parent: record.and_then(|record| record.parent).map(|parent| parent.0),
        kind: match label {
            Some((_, Some(_))) => TreeNodeKind::Snapshot,
            Some((_, None)) => TreeNodeKind::Volume,
            None => TreeNodeKind::Deleted,
        },
        volume: label.map(|(volume, _)| volume.clone()),
        snapshot: label.and_then(|(_, snapshot)| snapshot.clone()),
        created_ms: record.map_or(0, |record| record.created_ms),
        bytes: 0,
    }
}
