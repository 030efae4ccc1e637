//! The records of a made-up cluster, as storaged would write them.

use std::collections::BTreeMap;

use anyhow::Result;
use coordination::keys::Key;
use coordination::placement::{Candidate, choose};
use coordination::records::{
    DiskRecord, FailureDomain, FamilyRecord, GroupRecord, LayerRecord, NameRecord, NewerFields, NodeRecord,
    NodeUpRecord, OwnerRecord, PoolRecord, Redundancy, SchemaRecord, SnapshotRecord, VolumeRecord, encode,
};
use coordination::{Entry, Range, Revision};
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, FamilyId, LayerId, NodeId, PgId, PoolId, VolumeId};

/// A moment of this decade, for every record that names one.
const MOMENT_MS: u64 = 1_790_000_000_000;
/// Nodes stand in so many zones.
const ZONES: u32 = 20;
/// Copies of everything.
pub(crate) const COPIES: usize = 3;

/// How large it is.
pub(crate) struct Plan {
    /// Nodes.
    pub(crate) nodes: u32,
    /// Disks of each.
    pub(crate) disks: u32,
    /// Volumes.
    pub(crate) volumes: u32,
    /// Pools: each has its share of the nodes.
    pub(crate) pools: u32,
    /// Groups of each pool.
    pub(crate) groups: u32,
}

/// What records of one kind come to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weight {
    /// How many.
    pub(crate) records: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

impl Plan {
    /// The disks of a pool, as placement sees them.
    pub(crate) fn candidates(&self, pool: u32) -> Vec<Candidate> {
        let of_pool = (1..=self.nodes).filter(|node| node % self.pools == pool);
        of_pool.flat_map(|node| self.disks_of(node)).collect()
    }

    /// The disks of a node.
    pub(crate) fn disks_of(&self, node: u32) -> impl Iterator<Item = Candidate> {
        let first = (node - 1) * self.disks + 1;
        (first..first + self.disks).map(move |disk| Candidate {
            disk: DiskId(disk),
            weight: 4000,
            share: coordination::placement::WHOLE,
            node,
            zone: format!("rack-{:02}", node % ZONES),
        })
    }

    /// A pool's identity.
    pub(crate) fn pool(pool: u32) -> PoolId {
        PoolId(pool + 1)
    }
}

/// Records as they are made, in the order of keys in the end.
#[derive(Default)]
pub(crate) struct Records {
    entries: Vec<Entry>,
    weights: BTreeMap<&'static str, Weight>,
}

impl Records {
    /// All records of a cluster.
    pub(crate) fn make(plan: &Plan) -> Result<Self> {
        let mut records = Self::default();
        let schema = SchemaRecord {
            cluster: [7; 16],
            created_ms: MOMENT_MS,
        };
        records.put("other", &Key::Schema, encode(&schema)?);
        for node in 1..=plan.nodes {
            records.put_node(plan, node)?;
        }
        for pool in 0..plan.pools {
            records.put_pool(plan, pool)?;
        }
        for volume in 1..=plan.volumes {
            records.put_volume(plan, u64::from(volume))?;
        }
        records.entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(records)
    }

    /// What each kind comes to.
    pub(crate) fn weights(&self) -> &BTreeMap<&'static str, Weight> {
        &self.weights
    }

    /// As a look at the whole store tells them.
    pub(crate) fn into_range(self) -> Range {
        let last = self.entries.iter().map(|entry| entry.modified).max();
        Range {
            entries: self.entries,
            revision: last.unwrap_or(Revision(0)),
        }
    }

    fn put(&mut self, kind: &'static str, key: &Key, value: std::sync::Arc<[u8]>) {
        let key = key.to_text();
        let revision = Revision(self.entries.len() as u64 + 1);
        let weight = self.weights.entry(kind).or_default();
        weight.records += 1;
        weight.bytes += (key.len() + value.len()) as u64;
        self.entries.push(Entry {
            key,
            value,
            created: revision,
            modified: revision,
            lease: None,
        });
    }

    fn put_node(&mut self, plan: &Plan, node: u32) -> Result<()> {
        let id = NodeId(node);
        let record = NodeRecord {
            name: format!("node-{node:04}.example.net"),
            zone: format!("rack-{:02}", node % ZONES),
            serial: [9; 16],
            addresses: vec![format!("tcp:10.1.{}.{}:7400", node / 250, node % 250)],
            created_ms: MOMENT_MS,
            newer: NewerFields::default(),
        };
        self.put("node", &Key::Node(id), encode(&record)?);
        let up = NodeUpRecord {
            world: "b2f1c0de-5a5a-4f4f-9c9c-0123456789ab:4026531836".into(),
            pid: 1234,
            lease_ms: 5000,
            version: "0.1.0".into(),
            since_ms: MOMENT_MS,
            speaks: None,
        };
        self.put("node-up", &Key::NodeUp(id), encode(&up)?);
        for (disk, number) in plan.disks_of(node).zip(0..) {
            let record = DiskRecord {
                node: id,
                path: format!("/var/lib/storaged/disks/{number}"),
                weight: disk.weight,
                share: None,
                draining: false,
                addresses: vec![
                    format!("unix:/run/storaged/disks/{}.sock", disk.disk.0),
                    format!("tcp:10.1.{}.{}:{}", node / 250, node % 250, 7500 + number),
                ],
                capacity: Some(4_000_000_000_000),
                created_ms: MOMENT_MS,
                newer: NewerFields::default(),
            };
            self.put("disk", &Key::Disk(disk.disk), encode(&record)?);
        }
        Ok(())
    }

    fn put_pool(&mut self, plan: &Plan, pool: u32) -> Result<()> {
        let candidates = plan.candidates(pool);
        let id = Plan::pool(pool);
        let record = PoolRecord {
            name: format!("pool-{pool:03}"),
            redundancy: Redundancy::Replicated { copies: 3 },
            min_in_sync: 2,
            groups: plan.groups,
            failure_domain: FailureDomain::Node,
            disks: (plan.pools > 1).then(|| candidates.iter().map(|disk| disk.disk).collect()),
            closing: false,
            created_ms: MOMENT_MS,
            newer: NewerFields::default(),
        };
        self.put("pool", &Key::Pool(id), encode(&record)?);
        let pointer = NameRecord { id: u64::from(id.0) };
        self.put("pool", &Key::PoolName(record.name.clone()), encode(&pointer)?);
        for number in 0..plan.groups {
            let pg = PgId { pool: id, number };
            let disks = choose(pg, COPIES, FailureDomain::Node, &candidates);
            let slots = disks
                .into_iter()
                .map(|disk| Slot::of_copy(disk, SlotState::InSync));
            let record = GroupRecord {
                slots: slots.collect(),
            };
            self.put("group", &Key::Group(pg), encode(&record)?);
        }
        Ok(())
    }

    fn put_volume(&mut self, plan: &Plan, number: u64) -> Result<()> {
        let (volume, family) = (VolumeId(3 * number), FamilyId(3 * number));
        let (sealed, head) = (LayerId(3 * number + 1), LayerId(3 * number + 2));
        let name = format!("vm-{number:06}-root");
        let pool = Plan::pool(u32::try_from(number)? % plan.pools);
        self.put("family", &Key::Family(family), encode(&FamilyRecord { pool })?);
        for (layer, parent) in [(sealed, None), (head, Some(sealed))] {
            let record = LayerRecord {
                parent,
                created_ms: MOMENT_MS,
            };
            self.put("layer", &Key::Layer(family, layer), encode(&record)?);
        }
        let record = VolumeRecord {
            name: name.clone(),
            family,
            head,
            size: 40 << 30,
            discard_to: None,
            origin: None,
            labels: std::collections::BTreeMap::new(),
            limits: protocol::limits::VolumeLimits::default(),
            created_ms: MOMENT_MS,
            newer: NewerFields::default(),
        };
        self.put("volume", &Key::Volume(volume), encode(&record)?);
        self.put(
            "volume name",
            &Key::VolumeName(name),
            encode(&NameRecord { id: volume.0 })?,
        );
        let record = SnapshotRecord {
            layer: sealed,
            size: 40 << 30,
            group: None,
            created_ms: MOMENT_MS,
        };
        let key = Key::Snapshot(family, volume, "daily-2026-11-26".into());
        self.put("snapshot", &key, encode(&record)?);
        self.put("owner", &Key::Owner(volume), encode(&owner(plan, number))?);
        Ok(())
    }
}

/// The owner of a volume: some node's front end.
pub(crate) fn owner(plan: &Plan, number: u64) -> OwnerRecord {
    OwnerRecord {
        node: NodeId(u32::try_from(number).unwrap_or(0) % plan.nodes + 1),
        program: "vhost-blk".into(),
        pid: 4321,
        read_only: false,
        opened_ms: MOMENT_MS,
        attachment: None,
        moves: true,
    }
}
