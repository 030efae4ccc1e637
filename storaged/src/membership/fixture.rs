//! A small pool as the map shows it, for tests of those who look at sets.

use coordination::keys::Key;
use coordination::records::{
    DiskRecord, FailureDomain, FamilyRecord, GroupRecord, LayerRecord, NewerFields, NodeRecord, NodeUpRecord,
    OwnerRecord, PoolRecord, ReclaimedRecord, Redundancy, SlowRecord, VolumeRecord, encode,
};
use coordination::store::{Entry, Range};
use coordination::{ClusterMap, Revision};
use protocol::profile::Profile;
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, FamilyId, Interval, LayerId, NodeId, PgId, PoolId, VolumeId};
use serde::Serialize;

pub(crate) const POOL: PoolId = PoolId(1);
pub(crate) const VOLUME: VolumeId = VolumeId(7);
pub(crate) const FAMILY: FamilyId = FamilyId(8);
pub(crate) const OWNED_AT: u64 = 40;
/// The interval of all groups.
pub(crate) const GROUPS_AT: u64 = 3;

fn entry(key: &Key, record: &impl Serialize, revision: u64) -> Entry {
    Entry {
        key: key.to_text(),
        value: encode(record).unwrap(),
        created: Revision(revision),
        modified: Revision(revision),
        lease: None,
    }
}

/// Two groups on three disks, the third of which is in this state.
pub(crate) fn map_with(state: SlotState, min_in_sync: u8) -> ClusterMap {
    shown(entries(2, min_in_sync, state))
}

/// A pool of groups on three disks in sync, with a volume that is open.
pub(crate) fn map(groups: u32, min_in_sync: u8) -> ClusterMap {
    shown(entries(groups, min_in_sync, SlotState::InSync))
}

/// The third disk, in this state, on a second node, which may have said that it is done with a layer.
pub(crate) fn map_on_two_nodes(third: SlotState, note: Option<(LayerId, NodeId, Revision)>) -> ClusterMap {
    let mut entries = entries(2, 2, third);
    for disk_id in 1..=3 {
        let record = disk(NodeId(if disk_id == 3 { 2 } else { 1 }));
        entries.push(entry(&Key::Disk(DiskId(disk_id)), &record, 2));
    }
    if let Some((layer, node, since)) = note {
        let record = ReclaimedRecord {
            done_ms: 0,
            since: since.0,
        };
        entries.push(entry(&Key::Reclaimed(FAMILY, layer, node), &record, 41));
    }
    shown(entries)
}

/// Eight groups of three copies on distinct nodes, each with one disk of its number: on the first three, of which
/// the third is in this state. Those that are named are up.
pub(crate) fn map_of_nodes(nodes: u32, up: &[u32], third: SlotState) -> ClusterMap {
    shown(entries_of_nodes(nodes, up, third))
}

/// The same, all in sync and up, of rows 2+1: disk n has shard n - 1.
pub(crate) fn map_of_rows(nodes: u32) -> ClusterMap {
    let up: Vec<u32> = (1..=nodes).collect();
    let mut entries = entries_of_nodes(nodes, &up, SlotState::InSync);
    let pool = PoolRecord {
        redundancy: Redundancy::Encoded {
            profile: Profile::new(2, 1).unwrap(),
        },
        failure_domain: FailureDomain::Node,
        ..pool(8, 2)
    };
    entries.push(entry(&Key::Pool(POOL), &pool, 1));
    let slots = [0, 1, 2].map(|shard| Slot {
        disk: DiskId(u32::from(shard) + 1),
        state: SlotState::InSync,
        shard,
        arrived: Interval::default(),
    });
    let group = GroupRecord {
        slots: slots.to_vec(),
    };
    for number in 0..8 {
        entries.push(entry(&Key::Group(PgId { pool: POOL, number }), &group, GROUPS_AT));
    }
    shown(entries)
}

fn entries_of_nodes(nodes: u32, up: &[u32], third: SlotState) -> Vec<Entry> {
    let mut entries = entries(8, 2, third);
    let pool = PoolRecord {
        failure_domain: FailureDomain::Node,
        ..pool(8, 2)
    };
    entries.push(entry(&Key::Pool(POOL), &pool, 1));
    for number in 1..=nodes {
        entries.push(entry(&Key::Disk(DiskId(number)), &disk(NodeId(number)), 2));
        let node = NodeRecord {
            name: format!("node-{number}"),
            zone: String::new(),
            serial: [0; 16],
            addresses: Vec::new(),
            created_ms: 0,
            newer: NewerFields::default(),
        };
        entries.push(entry(&Key::Node(NodeId(number)), &node, 2));
    }
    for number in up {
        let up = NodeUpRecord {
            world: String::new(),
            pid: 1,
            lease_ms: 5000,
            version: String::new(),
            since_ms: 0,
            speaks: None,
        };
        entries.push(entry(&Key::NodeUp(NodeId(*number)), &up, 2));
    }
    entries
}

/// A map with a layer that nobody needs.
pub(crate) fn map_with_waste() -> ClusterMap {
    let mut entries = entries(2, 2, SlotState::InSync);
    let layer = LayerRecord {
        parent: None,
        created_ms: 0,
    };
    entries.push(entry(&Key::Family(FamilyId(10)), &FamilyRecord { pool: POOL }, 2));
    entries.push(entry(&Key::Layer(FamilyId(10), LayerId(11)), &layer, 2));
    shown(entries)
}

fn disk(node: NodeId) -> DiskRecord {
    DiskRecord {
        node,
        path: String::new(),
        weight: 1,
        share: None,
        draining: false,
        addresses: Vec::new(),
        capacity: None,
        created_ms: 0,
        newer: NewerFields::default(),
    }
}

fn pool(groups: u32, min_in_sync: u8) -> PoolRecord {
    PoolRecord {
        name: "fast".into(),
        redundancy: Redundancy::Replicated { copies: 3 },
        min_in_sync,
        groups,
        failure_domain: FailureDomain::Disk,
        disks: None,
        closing: false,
        created_ms: 0,
        newer: NewerFields::default(),
    }
}

/// Two groups on three disks, the third of which is in this state and was put out because it is slow.
pub(crate) fn with_slow(third: SlotState, since_ms: u64) -> ClusterMap {
    let record = SlowRecord {
        since_ms,
        times: 1,
        reason: "it takes long".into(),
    };
    let mut entries = entries(2, 2, third);
    entries.push(entry(&Key::Slow(DiskId(3)), &record, 45));
    shown(entries)
}

fn shown(entries: Vec<Entry>) -> ClusterMap {
    ClusterMap::build(&Range {
        entries,
        revision: Revision(50),
    })
    .unwrap()
}

fn entries(groups: u32, min_in_sync: u8, third: SlotState) -> Vec<Entry> {
    let pool = pool(groups, min_in_sync);
    let volume = VolumeRecord {
        name: "alpha".into(),
        family: FAMILY,
        head: LayerId(9),
        size: 4096,
        discard_to: None,
        origin: None,
        labels: std::collections::BTreeMap::new(),
        limits: protocol::limits::VolumeLimits::default(),
        created_ms: 0,
        newer: NewerFields::default(),
    };
    let owner = OwnerRecord {
        node: NodeId(1),
        program: "test".into(),
        pid: 1,
        read_only: false,
        opened_ms: 0,
        attachment: None,
        moves: true,
    };
    let slots =
        [1, 2, 3].map(|disk| Slot::of_copy(DiskId(disk), if disk == 3 { third } else { SlotState::InSync }));
    let group = GroupRecord {
        slots: slots.to_vec(),
    };
    let mut entries = vec![
        entry(&Key::Pool(POOL), &pool, 1),
        entry(&Key::Family(FAMILY), &FamilyRecord { pool: POOL }, 2),
        entry(&Key::Volume(VOLUME), &volume, 2),
        entry(&Key::Owner(VOLUME), &owner, OWNED_AT),
    ];
    for number in 0..groups {
        entries.push(entry(&Key::Group(PgId { pool: POOL, number }), &group, GROUPS_AT));
    }
    entries
}
