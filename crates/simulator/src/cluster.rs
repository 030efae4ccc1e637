//! The coordination store of a world, and the transactions that people and storaged make in it.
//!
//! The real rules (`coordination::engine`) and the real map; only storage and network are left out:
//! a transaction takes no time, but everybody hears of it later.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordination::engine::Engine;
use coordination::keys::{Key, ROOT};
use coordination::map::ClusterMap;
use coordination::map::family::Reclaim;
use coordination::records::{
    DiskRecord, FailureDomain, FamilyRecord, GroupRecord, LayerRecord, NewerFields, OwnerRecord, PoolRecord,
    Redundancy, SchemaRecord, SnapshotRecord, VolumeRecord, encode,
};
use coordination::store::{Compare, LeaseId, Outcome, Transaction};
use protocol::profile::Profile;
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, FamilyId, Generation, Interval, LayerId, NodeId, PgId, PoolId, VolumeId};
use serde::Serialize;

use crate::chance::Chance;
use crate::schedule::Time;

pub(crate) const POOL: PoolId = PoolId(1);
pub(crate) const NODE: NodeId = NodeId(1);
/// The lease time of owners.
pub(crate) const LEASE_MS: u64 = 5_000;

/// The store and the map made of it.
#[derive(Debug)]
pub(crate) struct Cluster {
    engine: Engine,
    pub(crate) map: Arc<ClusterMap>,
    /// Who opened each volume last, as the key beside the owner's tells.
    last_owners: BTreeMap<VolumeId, Generation>,
    next_id: u64,
}

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) disks: u32,
    pub(crate) redundancy: Redundancy,
    pub(crate) min_in_sync: u8,
    pub(crate) groups: u32,
}

impl Shape {
    /// Of a pool of copies, or of one that encodes rows.
    pub(crate) fn drawn(chance: &mut Chance, encoded: bool) -> Self {
        let (disks, redundancy) = if encoded {
            let (data, parity) = chance.pick(&[(2, 1), (2, 2), (3, 2)]).unwrap_or((2, 1));
            let profile = Profile::new(data, parity);
            let redundancy = profile.map(|profile| Redundancy::Encoded { profile });
            let redundancy = redundancy.unwrap_or(Redundancy::Replicated { copies: 1 });
            let spare = u32::try_from(chance.between(0, 1)).unwrap_or(0);
            (u32::from(redundancy.width()) + spare, redundancy)
        } else {
            let disks = u32::try_from(chance.between(1, 4)).unwrap_or(3);
            let copies = u8::try_from(chance.between(1, u64::from(disks.min(3)))).unwrap_or(1);
            (disks, Redundancy::Replicated { copies })
        };
        let (least, most) = (u64::from(redundancy.readable()), u64::from(redundancy.width()));
        Self {
            disks,
            redundancy,
            min_in_sync: u8::try_from(chance.between(least, most)).unwrap_or(1),
            groups: u32::try_from(chance.between(1, 4)).unwrap_or(1),
        }
    }

    /// How many disks a group has.
    pub(crate) fn width(&self) -> u8 {
        self.redundancy.width()
    }
}

fn put<T: Serialize>(transaction: Transaction, key: &Key, record: &T) -> Transaction {
    match encode(record) {
        Ok(value) => transaction.put(key.to_text(), value),
        Err(_) => transaction,
    }
}

impl Cluster {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut cluster = Self {
            engine: Engine::default(),
            map: Arc::default(),
            last_owners: BTreeMap::new(),
            next_id: 1,
        };
        let mut transaction = Transaction::new();
        transaction = put(
            transaction,
            &Key::Schema,
            &SchemaRecord {
                cluster: [7; 16],
                created_ms: 0,
            },
        );
        for disk in 1..=shape.disks {
            let record = DiskRecord {
                node: NODE,
                path: format!("/disk-{disk}"),
                weight: 1,
                share: None,
                draining: false,
                addresses: vec![format!("unix:/disk-{disk}")],
                capacity: None,
                created_ms: 0,
                newer: NewerFields::default(),
            };
            transaction = put(transaction, &Key::Disk(DiskId(disk)), &record);
        }
        let pool = PoolRecord {
            name: "pool".to_owned(),
            redundancy: shape.redundancy,
            min_in_sync: shape.min_in_sync,
            groups: shape.groups,
            failure_domain: FailureDomain::Disk,
            disks: None,
            closing: false,
            created_ms: 0,
            newer: NewerFields::default(),
        };
        transaction = put(transaction, &Key::Pool(POOL), &pool);
        for number in 0..shape.groups {
            let disk = |place: u8| DiskId(1 + (number + u32::from(place)) % shape.disks);
            let slots = (0..shape.width()).map(|place| Slot {
                shard: shape.redundancy.shard(place),
                ..Slot::of_copy(disk(place), SlotState::InSync)
            });
            let record = GroupRecord {
                slots: slots.collect(),
            };
            transaction = put(transaction, &Key::Group(PgId { pool: POOL, number }), &record);
        }
        cluster.commit(&transaction);
        cluster
    }

    /// Makes a transaction; true if its conditions held.
    fn commit(&mut self, transaction: &Transaction) -> bool {
        let committed = matches!(self.engine.commit(transaction), Ok((Outcome::Committed(_), _)));
        self.follow();
        committed
    }

    /// Brings the map up to the store.
    fn follow(&mut self) {
        if self.map.revision() == self.engine.revision() {
            return;
        }
        let next = match self.engine.since(self.map.revision()) {
            Ok(batches) => batches
                .iter()
                .try_fold((*self.map).clone(), |map, batch| map.apply(batch)),
            Err(_) => ClusterMap::build(&self.engine.range(ROOT)),
        };
        if let Ok(next) = next {
            self.map = Arc::new(next);
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A new, empty volume in a family of its own.
    pub(crate) fn create_volume(&mut self, size: u64) -> VolumeId {
        let (volume, family, layer) = (VolumeId(self.id()), FamilyId(self.id()), LayerId(self.id()));
        let transaction = put(
            Transaction::new(),
            &Key::Family(family),
            &FamilyRecord { pool: POOL },
        );
        let transaction = put_layer(transaction, family, layer, None);
        let transaction = put(
            transaction,
            &Key::Volume(volume),
            &record(volume, family, layer, size),
        );
        self.commit(&transaction);
        volume
    }

    /// Takes the owner key of a volume, if nobody has it.
    pub(crate) fn acquire(&mut self, now: Time, volume: VolumeId) -> Option<(LeaseId, Generation)> {
        self.map.volume(volume)?;
        let lease = self.engine.grant_lease(now.0 / 1000, LEASE_MS);
        let owner = OwnerRecord {
            node: NODE,
            program: "simulator".to_owned(),
            pid: 1,
            read_only: false,
            opened_ms: now.0 / 1000,
            attachment: None,
            moves: false,
        };
        let key = Key::Owner(volume).to_text();
        let value = encode(&owner).ok()?;
        let transaction = Transaction::new()
            .when(Compare::Absent(key.clone()))
            .put_leased(key, value, lease);
        if !self.commit(&transaction) {
            self.engine.revoke_lease(lease);
            self.follow();
            return None;
        }
        let generation = self.map.generation(volume)?;
        self.last_owners.insert(volume, generation);
        Some((lease, generation))
    }

    /// Whether nobody has opened a volume since this generation of it.
    pub(crate) fn was_last(&self, volume: VolumeId, generation: Generation) -> bool {
        self.last_owners.get(&volume) == Some(&generation)
    }

    /// Starts a lease's time anew; false if it has lapsed.
    pub(crate) fn renew(&mut self, now: Time, lease: LeaseId) -> bool {
        self.engine.keep_lease(now.0 / 1000, lease).is_ok()
    }

    /// Gives the owner key back, or takes it away.
    pub(crate) fn revoke(&mut self, lease: LeaseId) {
        self.engine.revoke_lease(lease);
        self.follow();
    }

    /// Ends the leases whose time is over; true if there were any.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        let lapsed = !self.engine.expire(now.0 / 1000).is_empty();
        self.follow();
        lapsed
    }

    /// Seals the head and adds a new one, as a transaction of this owner (rule 7 d, P10).
    pub(crate) fn snapshot(&mut self, volume: VolumeId, generation: Generation, name: &str) -> bool {
        let Some((_, versioned)) = self.map.volume(volume) else {
            return false;
        };
        let mut changed = versioned.record.clone();
        let modified = versioned.modified;
        let (family, sealed) = (changed.family, changed.head);
        changed.head = LayerId(self.id());
        let snapshot = SnapshotRecord {
            layer: sealed,
            size: changed.size,
            group: None,
            created_ms: 0,
        };
        let transaction = Self::owners(volume, generation);
        let transaction = transaction.when(Compare::Modified(Key::Volume(volume).to_text(), modified));
        let transaction = put_layer(transaction, family, changed.head, Some(sealed));
        let transaction = put(transaction, &Key::Volume(volume), &changed);
        let key = Key::Snapshot(family, volume, name.to_owned());
        self.commit(&put(transaction, &key, &snapshot))
    }

    /// A new head on a snapshot's layer.
    pub(crate) fn roll_back(&mut self, volume: VolumeId, generation: Generation, name: &str) -> bool {
        let Some((family, versioned)) = self.map.volume(volume) else {
            return false;
        };
        let Some(snapshot) = family.snapshot(volume, name) else {
            return false;
        };
        let (mut changed, layer) = (versioned.record.clone(), snapshot.record.layer);
        let modified = versioned.modified;
        changed.head = LayerId(self.id());
        let transaction = Self::owners(volume, generation);
        let transaction = transaction.when(Compare::Modified(Key::Volume(volume).to_text(), modified));
        let transaction = put_layer(transaction, changed.family, changed.head, Some(layer));
        self.commit(&put(transaction, &Key::Volume(volume), &changed))
    }

    /// A new volume whose head continues a snapshot's layer.
    pub(crate) fn clone_volume(&mut self, volume: VolumeId, name: &str) -> Option<VolumeId> {
        let (family, versioned) = self.map.volume(volume)?;
        let snapshot = family.snapshot(volume, name)?;
        let (sealed, size, family) = (
            snapshot.record.layer,
            snapshot.record.size,
            versioned.record.family,
        );
        let (clone, layer) = (VolumeId(self.id()), LayerId(self.id()));
        let key = Key::Snapshot(family, volume, name.to_owned()).to_text();
        let transaction = Transaction::new().when(Compare::Present(key));
        let transaction = put_layer(transaction, family, layer, Some(sealed));
        let transaction = put(
            transaction,
            &Key::Volume(clone),
            &record(clone, family, layer, size),
        );
        self.commit(&transaction).then_some(clone)
    }

    /// A snapshot's name goes; its layer is reclaimed later.
    pub(crate) fn delete_snapshot(&mut self, volume: VolumeId, name: &str) -> bool {
        let Some((family, versioned)) = self.map.volume(volume) else {
            return false;
        };
        if family.snapshot(volume, name).is_none() {
            return false;
        }
        let key = Key::Snapshot(versioned.record.family, volume, name.to_owned()).to_text();
        self.commit(&Transaction::new().delete(key))
    }

    /// What every disk has merged or dropped leaves the tree.
    pub(crate) fn reclaimed(&mut self, family: FamilyId, reclaim: Reclaim) {
        let Some(tree) = self.map.family(family) else {
            return;
        };
        let gone = reclaim.layer();
        let parent = tree.layers().get(&gone).and_then(|record| record.parent);
        let mut transaction = Transaction::new().delete(Key::Layer(family, gone).to_text());
        if let Reclaim::Merge { child, .. } = reclaim {
            transaction = put_layer(transaction, family, child, parent);
            transaction = put(transaction, &Key::Family(family), &FamilyRecord { pool: POOL });
        }
        self.commit(&transaction);
    }

    /// A group's record is written again, with other states maybe: another interval.
    pub(crate) fn change_group(&mut self, pg: PgId, slots: Vec<Slot>) -> bool {
        let transaction = Transaction::new().when(Compare::Present(Key::Group(pg).to_text()));
        self.commit(&put(transaction, &Key::Group(pg), &GroupRecord { slots }))
    }

    /// A disk leaves a group, as an owner asked for while it is the owner and the group as it was.
    pub(crate) fn evict(
        &mut self,
        volume: VolumeId,
        generation: Generation,
        pg: PgId,
        interval: Interval,
        slots: Vec<Slot>,
    ) -> bool {
        let revision = coordination::store::Revision(interval.0);
        let transaction = Self::owners(volume, generation);
        let transaction = transaction.when(Compare::Modified(Key::Group(pg).to_text(), revision));
        self.commit(&put(transaction, &Key::Group(pg), &GroupRecord { slots }))
    }

    /// Every layer that there is or ever was, by family.
    pub(crate) fn layers(&self) -> Vec<(FamilyId, LayerId)> {
        let families = self.map.families().map(|(family, _)| family);
        families
            .flat_map(|family| (0..=self.next_id).map(move |layer| (family, LayerId(layer))))
            .collect()
    }

    /// A transaction that holds only while this owner has the volume.
    fn owners(volume: VolumeId, generation: Generation) -> Transaction {
        let key = Key::Owner(volume).to_text();
        let created = coordination::store::Revision(generation.0);
        Transaction::new().when(Compare::Created(key, created))
    }
}

fn put_layer(
    transaction: Transaction,
    family: FamilyId,
    layer: LayerId,
    parent: Option<LayerId>,
) -> Transaction {
    put(
        transaction,
        &Key::Layer(family, layer),
        &LayerRecord {
            parent,
            created_ms: 0,
        },
    )
}

fn record(volume: VolumeId, family: FamilyId, head: LayerId, size: u64) -> VolumeRecord {
    VolumeRecord {
        name: format!("v{}", volume.0),
        family,
        head,
        size,
        discard_to: None,
        origin: None,
        labels: std::collections::BTreeMap::new(),
        limits: protocol::limits::VolumeLimits::default(),
        created_ms: 0,
        newer: NewerFields::default(),
    }
}
