//! What is kept in the coordination store: one small versioned JSON record a key.
//!
//! Nothing that grows with a volume's size or history is in one record, so every operation writes a
//! fixed number of them. Identities that the key names are not repeated in the record, and counters
//! that the store itself keeps (generation, interval, tree revision) are not kept a second time.

mod condition;
mod iscsi;
mod newer;
mod owners;
mod redundancy;

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::limits::VolumeLimits;
use protocol::session::Slot;
use protocol::{DiskId, FamilyId, LayerId, NodeId, PoolId, VolumeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use condition::{RecallRecord, SlowRecord, Speaks};
pub use iscsi::{
    AccessRecord, CredentialsRecord, HolderRecord, LunOfRecord, LunRecord, PortalRecord, RegistrationRecord,
    ReservationsRecord, SecretRecord, TargetRecord,
};
pub use newer::NewerFields;
pub use owners::{AttachedRecord, LastOwnerRecord};
pub use redundancy::{MinInSyncError, Redundancy};

use crate::store::{CoordinationError, Entry};

/// The newest format of records that this program reads.
pub const FORMAT: u32 = 3;
/// The format of nearly all records.
const FORMAT_FIRST: u32 = 1;
/// The format of the record of a moving volume's head layer, which is otherwise the same. A program that knows nothing of
/// moves would show guests only what is moved already: by this it notices that it cannot work here.
pub const FORMAT_OF_MOVES: u32 = 2;
/// The format of the record of an iSCSI target whose secrets are sealed, which is otherwise the same. A program that knows
/// nothing of seals could let nobody in.
pub const FORMAT_OF_SEALS: u32 = 3;

/// Identity of the cluster and format of its records; made once, with the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRecord {
    /// The cluster's identity: random, 16 bytes.
    pub cluster: [u8; 16],
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The authority that signs the certificates of nodes and front ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Its certificate, as the text of a PEM file.
    pub certificate: String,
}

/// A token with which a machine may join the cluster, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// The hash of its secret, which is kept nowhere.
    pub hash: [u8; 32],
    /// The node that made it.
    pub node: NodeId,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// From when on it is worthless, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Who was let in with it; from then on it is worthless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<JoinUse>,
}

/// That a token was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinUse {
    /// When, in milliseconds since 1970.
    pub used_ms: u64,
    /// What the machine called itself.
    pub name: String,
    /// From which address it asked.
    pub from: String,
    /// The node that let it in.
    pub node: NodeId,
}

/// A token with which a program may ask the admin API over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRecord {
    /// What it is for, as whoever made it says.
    pub name: String,
    /// What its bearer may do.
    pub role: AccessRole,
    /// The hash of its secret, which is kept nowhere.
    pub hash: [u8; 32],
    /// The node that made it.
    pub node: NodeId,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// From when on it is worthless, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// What the bearer of an access token may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessRole {
    /// Look at everything that is no secret.
    Viewer,
    /// Make, change and delete volumes and snapshots.
    Operator,
    /// Change disks, pools, nodes and targets too.
    Administrator,
}

/// The next identity of a kind that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRecord {
    /// It, and all above it, are free.
    pub next: u64,
}

/// A node: one `storaged`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// For people: the host's name, unless told otherwise.
    pub name: String,
    /// The failure zone that it is in.
    pub zone: String,
    /// Random, and kept in its work directory too: what tells it from a stranger with its number. All zero
    /// in records of before there was one.
    #[serde(default)]
    pub serial: [u8; 16],
    /// Where other nodes reach it: `tcp:host:port`. None if it is not to be reached.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
    /// What a newer program says of it besides.
    #[serde(flatten)]
    pub newer: NewerFields,
}

/// A node's `storaged` that is up. Goes away with its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUpRecord {
    /// The world of process numbers that it lives in: a boot of a kernel, and a namespace of that.
    pub world: String,
    /// Its process in that world.
    pub pid: u32,
    /// How long its lease lasts, in milliseconds.
    pub lease_ms: u64,
    /// The version of its program.
    pub version: String,
    /// Since when it is up, in milliseconds since 1970.
    pub since_ms: u64,
    /// What it speaks; older programs do not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaks: Option<Speaks>,
}

impl NodeUpRecord {
    /// Whether its program reads records of this format.
    pub fn reads(&self, format: u32) -> bool {
        self.speaks.is_some_and(|speaks| speaks.records >= format)
    }
}

/// Somebody waits for a volume that is open on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantRecord {
    /// The node where he waits.
    pub node: NodeId,
}

/// A volume is to be brought to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestRecord {
    /// The node that asks.
    pub node: NodeId,
    /// The owner that is asked.
    pub generation: u64,
    /// How long it is given, in milliseconds.
    pub limit_ms: u64,
}

/// A volume is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestedRecord {
    /// The owner that holds still.
    pub generation: u64,
    /// The transaction that asked for it.
    pub asked: u64,
}

/// A node is done with a layer that is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimedRecord {
    /// When, in milliseconds since 1970.
    pub done_ms: u64,
    /// The revision of the map that its disks worked by. If a group of the pool has changed since, a disk may have
    /// got back what it had given back already, and the note counts for nothing.
    #[serde(default)]
    pub since: u64,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// The node that runs it.
    pub node: NodeId,
    /// Its directory on that node.
    pub path: String,
    /// Its share of the data, relative to others; 0 takes no new placement groups.
    pub weight: u32,
    /// How much of its weight counts, in thousandths, while it is nearly full; nothing: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u16>,
    /// Whether it is being emptied: its data goes to other disks, and it takes none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Where it can be reached, best first: `unix:/path` or `tcp:host:port`.
    pub addresses: Vec<String>,
    /// The most that it may use, in bytes; nothing: what its file system gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// When it was added, in milliseconds since 1970.
    pub created_ms: u64,
    /// What a newer program says of it besides.
    #[serde(flatten)]
    pub newer: NewerFields,
}

/// How far apart the disks of a placement group must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureDomain {
    /// On distinct disks.
    Disk,
    /// On distinct nodes.
    Node,
    /// In distinct zones.
    Zone,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its name, unique among pools.
    pub name: String,
    /// How it keeps data.
    pub redundancy: Redundancy,
    /// The least number of disks in sync for writes to be acknowledged.
    pub min_in_sync: u8,
    /// How many placement groups it has; never changes.
    pub groups: u32,
    /// How far apart the disks of a group are.
    pub failure_domain: FailureDomain,
    /// The disks that it may use; nothing: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<Vec<DiskId>>,
    /// Whether it is being deleted: it takes no new volumes then.
    #[serde(default)]
    pub closing: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What a newer program says of it besides.
    #[serde(flatten)]
    pub newer: NewerFields,
}

/// A placement group. Its interval is its key's revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its slots, as many as the pool's redundancy says, and one more while the group moves. In a pool of rows each shard
    /// has one, also while its disk is out; the newcomer has the shard of the one that it replaces.
    pub slots: Vec<Slot>,
}

/// A family: a volume and all its clones. A merge of layers writes this record too, so that its
/// key's revision tells all its volumes that their chains of layers are others now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyRecord {
    /// Where its objects are.
    pub pool: PoolId,
}

/// A layer of a family. That it is somebody's head or snapshot stands in their records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The layer that it continues, or nothing if it is a first one.
    pub parent: Option<LayerId>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What a clone was made from, for people. Either may be gone by now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The volume.
    pub volume: VolumeId,
    /// Its name at that time.
    pub volume_name: String,
    /// The snapshot's name.
    pub snapshot: String,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name, unique among volumes.
    pub name: String,
    /// Whose layers it has.
    pub family: FamilyId,
    /// The layer that it writes to.
    pub head: LayerId,
    /// Its size in bytes, a multiple of 4096.
    pub size: u64,
    /// After a shrink, until it is done: the bytes from `size` up to here are being discarded, and
    /// the volume cannot grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard_to: Option<u64>,
    /// What it was cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What people and programs write on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How much may be asked of it in a second. A record without limits is of a volume that has none.
    #[serde(default, skip_serializing_if = "VolumeLimits::is_empty")]
    pub limits: VolumeLimits,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What a newer program says of it besides.
    #[serde(flatten)]
    pub newer: NewerFields,
}

/// A volume is on its way from one pool to another (`docs/decisions/0058-retype.md`). What lies below `moved` is in its
/// own head, in the pool that it goes to; the rest is in the head of another volume, which has no name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRecord {
    /// The nameless volume that has what is not moved yet.
    pub source: VolumeId,
    /// How many bytes from the volume's start are moved, a multiple of 4096.
    pub moved: u64,
    /// The most bytes that are copied a second.
    pub rate: u64,
    /// When it was begun, in milliseconds since 1970.
    pub started_ms: u64,
}

/// A name that points to a volume or a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The identity's number.
    pub id: u64,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The sealed layer that shows its content.
    pub layer: LayerId,
    /// The volume's size at that time, in bytes.
    pub size: u64,
    /// The snapshots that were made at the same instant have the same number here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Who has a volume open. Goes away with its lease; the generation is the revision that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The node whose `storaged` keeps the lease.
    pub node: NodeId,
    /// What kind of front end, for people.
    pub program: String,
    /// Its process on that node.
    pub pid: u32,
    /// Whether it said that it never writes.
    pub read_only: bool,
    /// When it was opened, in milliseconds since 1970.
    pub opened_ms: u64,
    /// Its attachment, if it shares the volume with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<u64>,
    /// Whether it can go on with the volume while that moves to another pool. Left out when it cannot, as by programs
    /// that know nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moves: bool,
}

/// A line of the event log, written in the transaction that it tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// How grave.
    pub severity: Severity,
    /// What happened, for programs: `volume_created`.
    pub kind: String,
    /// What it happened to, for programs and people: a name.
    pub subject: String,
    /// A sentence, for people.
    pub message: String,
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As somebody wanted.
    Info,
    /// Somebody should look soon.
    Warning,
    /// Something is broken.
    Error,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// They were written by a newer program.
    #[error("the record {key} has format {found}; this program knows formats up to {FORMAT}: upgrade it")]
    Newer {
        /// Where.
        key: String,
        /// The format found.
        found: u32,
    },
    /// They are not what the key promises.
    #[error("the record {key} cannot be read: {source}")]
    Malformed {
        /// Where.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    format: u32,
    #[serde(flatten)]
    record: T,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The bytes of a record.
pub fn encode<T: Serialize>(record: &T) -> Result<Arc<[u8]>, CoordinationError> {
    encode_as(FORMAT_FIRST, record)
}

/// The bytes of a record in a format of its own.
pub fn encode_as<T: Serialize>(format: u32, record: &T) -> Result<Arc<[u8]>, CoordinationError> {
    serde_json::to_vec(&Versioned { format, record })
        .map(Arc::from)
        .map_err(|error| CoordinationError::Invalid(error.to_string().into()))
}

/// A record from an entry's bytes.
pub fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, RecordError> {
    let malformed = |source| RecordError::Malformed {
        key: entry.key.clone(),
        source,
    };
    // The format first: a newer record may well not parse as one of ours.
    let FormatOnly { format } = serde_json::from_slice(&entry.value).map_err(malformed)?;
    if format > FORMAT {
        return Err(RecordError::Newer {
            key: entry.key.clone(),
            found: format,
        });
    }
    Ok(serde_json::from_slice::<Versioned<T>>(&entry.value)
        .map_err(malformed)?
        .record)
}

#[cfg(test)]
mod tests;
