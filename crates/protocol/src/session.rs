//! What a front end (vhost-blk, a gateway) and the `storaged` of its node say to each other.
//!
//! A front end opens volumes here, gets its map of placement groups and disks, keeps its lease, and
//! is asked to hold still while a snapshot is taken. The data path does not come by here. Bodies are
//! JSON inside the same checked frames as everything else: these messages are rare, people read
//! them in traces, and they grow more often than the data path may (`docs/decisions/`).

use serde::{Deserialize, Serialize};

use crate::id::{DiskId, FamilyId, Generation, Interval, LayerId, PgId, PoolId, TreeRevision, VolumeId};
use crate::limits::VolumeLimits;
use crate::profile::Profile;
use crate::shared::{AttachmentView, SharedReply, SharedRequest};

/// How a volume is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenMode {
    /// Become the owner.
    ReadWrite,
    /// Become the owner, but never write.
    ReadOnly,
}

/// From a front end to its `storaged`. Each is answered by one [`SessionReply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum SessionRequest {
    /// Says who is there, once, first.
    Hello {
        /// What kind of front end, for people: `vhost-blk`, `nbd`.
        program: String,
        /// Its process.
        pid: u32,
        /// Whether it may be told that somebody waits for its volume ([`SessionPush::Wanted`]). Left out when it
        /// may not, as by programs that know nothing of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        yields: bool,
        /// Whether it can go on with a volume that moves to another pool ([`VolumeView::moving`]). Left out when it
        /// cannot, as by programs that know nothing of it: they get no such volume.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        moves: bool,
    },
    /// Look at a volume without opening it: answered as an open, with generation 0. It may be in use.
    Look {
        /// The volume's name.
        volume: String,
    },
    /// Open a volume, or one of its snapshots (then nothing is owned and nothing can be written).
    Open {
        /// The volume's name.
        volume: String,
        /// A snapshot's name.
        snapshot: Option<String>,
        /// For what.
        mode: OpenMode,
        /// Wait for this long for the present owner to leave, in milliseconds; 0 is refused at once.
        wait_ms: u64,
        /// Whether this goes on with a guest that stands still elsewhere, as after a live migration: then the present
        /// owner is told that the volume is wanted. Nobody else asks for what somebody has.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        succeeds: bool,
        /// The generation that this front end had the volume with until its lease lapsed, if it goes on with the
        /// same guest: then it gets the volume only if nobody has had it open since ([`SessionRefusal::Lost`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<Generation>,
        /// As whose attachment, if the volume is shared ([`SharedRequest::Attach`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attachment: Option<u64>,
    },
    /// Go on with a volume after the connection to `storaged` was lost.
    Resume {
        /// Which.
        volume: VolumeId,
        /// The generation that the front end owns it with.
        generation: Generation,
    },
    /// Keep the lease of one volume.
    Renew {
        /// Which.
        volume: VolumeId,
        /// The generation that it is owned with.
        generation: Generation,
    },
    /// Give a volume back. All its writes have been answered.
    Close {
        /// Which.
        volume: VolumeId,
        /// The generation that it is owned with.
        generation: Generation,
    },
    /// So much of a volume that moves to another pool is moved: all below is durable where it goes, and nothing of it is
    /// asked of where it came from any more. With all of it the move is over.
    Moved {
        /// Which.
        volume: VolumeId,
        /// The generation that it is owned with.
        generation: Generation,
        /// Bytes from the volume's start, a multiple of 4096.
        moved: u64,
    },
    /// A disk refuses connections, stalls, or lost something: ask for its eviction (rule 4).
    Suspect {
        /// Which volume's owner says so.
        volume: VolumeId,
        /// The generation that it is owned with.
        generation: Generation,
        /// Which disk.
        disk: DiskId,
        /// Why, for people.
        reason: String,
        /// Whether it answers, and is only much slower than the others: what is done then is a matter of
        /// `storaged`'s configuration. Left out when not, as by programs that know nothing of it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        slow: bool,
    },
    /// All writes are answered and new ones are held, as [`SessionPush::Quiesce`] asked.
    Quiesced {
        /// Which volume.
        volume: VolumeId,
        /// The token of the push.
        token: u64,
    },
    /// What may be opened, for gateways that list exports.
    List,
    /// About a volume that several front ends have open.
    Shared(SharedRequest),
}

/// The answer to a [`SessionRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum SessionReply {
    /// Done.
    Ok,
    /// Done, and here is what to show to disks of other nodes: the answer to `Hello` where nodes use TLS.
    Credentials(CredentialsView),
    /// A volume is open.
    Opened(Box<VolumeView>),
    /// What may be opened.
    Volumes {
        /// One entry a volume, by name.
        volumes: Vec<ExportEntry>,
    },
    /// The answer to [`SessionRequest::Shared`].
    Shared(SharedReply),
    /// Not done.
    Refused {
        /// What kind of refusal, for programs.
        kind: SessionRefusal,
        /// A sentence, for people.
        message: String,
    },
}

/// What a front end shows to disks of other nodes, and checks them with: the texts of PEM files.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsView {
    /// The certificate of the cluster's authority.
    pub authority: String,
    /// The front end's own certificate.
    pub certificate: String,
    /// The private key of that.
    pub key: String,
}

impl std::fmt::Debug for CredentialsView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its key must not get into a log.
        f.write_str("CredentialsView")
    }
}

/// Why `storaged` refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionRefusal {
    /// There is no such volume or snapshot.
    NotFound,
    /// Somebody else owns the volume.
    Busy,
    /// The caller no longer owns the volume: stop all I/O.
    Lost,
    /// The request makes no sense.
    Invalid,
    /// It cannot be done now; trying again later may work.
    Unavailable,
}

/// From `storaged` to a front end, unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "push")]
pub enum SessionPush {
    /// Hold new writes, wait until all writes sent are acknowledged, then say `Quiesced`. Held until
    /// the next [`SessionPush::View`], or for as long as `limit_ms` says, then go on unchanged.
    Quiesce {
        /// Which volume.
        volume: VolumeId,
        /// Comes back with `Quiesced`.
        token: u64,
        /// The longest time to hold still, in milliseconds.
        limit_ms: u64,
    },
    /// What to show to disks of other nodes from now on.
    Credentials(CredentialsView),
    /// The volume as it is from now on: another size, head, revision, placement or address.
    View(Box<VolumeView>),
    /// Another front end waits for the volume. Whoever has no use for it just now, for its guest stands still,
    /// gives it back; anybody else goes on.
    Wanted {
        /// Which volume.
        volume: VolumeId,
    },
    /// Others came or left, or the owner of a shared volume is another one.
    Attachment(Box<AttachmentView>),
    /// The volume belongs to somebody else now: stop all I/O.
    Revoked {
        /// Which volume.
        volume: VolumeId,
        /// Why, for people.
        reason: String,
    },
}

/// All that an owner must know of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// The volume.
    pub volume: VolumeId,
    /// Its name, for logs.
    pub name: String,
    /// Its size in bytes, a multiple of 4096.
    pub size: u64,
    /// Whose layers it has.
    pub family: FamilyId,
    /// The layer that it writes to; of an open snapshot, the sealed layer that is read.
    pub head: LayerId,
    /// The revision of its chain of layers.
    pub revision: TreeRevision,
    /// The owner's generation; 0 for a reader of a snapshot.
    pub generation: Generation,
    /// How long the lease lasts after a renewal was sent, in milliseconds.
    pub lease_ms: u64,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// The pool.
    pub pool: PoolId,
    /// The least number of disks in sync for writes to be acknowledged.
    pub min_in_sync: u8,
    /// How the pool encodes rows; nothing if it keeps copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Profile>,
    /// The pool's placement groups, by number.
    pub groups: Vec<GroupView>,
    /// Where each disk that the groups name can be reached.
    pub disks: Vec<DiskView>,
    /// The cluster's identity, which a connection to a disk begins with.
    pub cluster: [u8; 16],
    /// How the volume moves to another pool, if it does: the rest of the view is of where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<MovingView>,
    /// How much may be asked for in a second; of a snapshot as much as can be done. Left out when nothing is limited, and not
    /// kept to by programs that know nothing of it.
    #[serde(default, skip_serializing_if = "VolumeLimits::is_empty")]
    pub limits: VolumeLimits,
}

/// A volume that moves to another pool (`docs/decisions/0058-retype.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingView {
    /// What has all that is not moved yet, as a volume of its own with the same owner and size.
    pub source: Box<VolumeView>,
    /// How many bytes from the start are moved, a multiple of 4096.
    pub moved: u64,
    /// The most bytes that are to be copied a second; 0 if this front end is not to copy any.
    pub rate: u64,
}

/// One placement group's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Which group.
    pub pg: PgId,
    /// Its interval.
    pub interval: Interval,
    /// Its slots.
    pub slots: Vec<Slot>,
}

impl GroupView {
    /// A disk's slot; nothing if it has none.
    pub fn slot_of(&self, disk: DiskId) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.disk == disk)
    }
}

/// One place of a placement group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The disk that fills it.
    pub disk: DiskId,
    /// How far it is.
    pub state: SlotState,
    /// Which shard of each row it keeps: those of data first. Always 0 in a pool of copies. It stays as long as the disk
    /// has its slot.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shard: u8,
    /// In a pool of rows, in which interval the disk was given its slot. What it has of the group from then or before may be
    /// of another shard. 0 in a pool of copies, and of those who were there first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub arrived: Interval,
}

impl Slot {
    /// A slot of a pool of copies.
    pub fn of_copy(disk: DiskId, state: SlotState) -> Self {
        Self {
            disk,
            state,
            shard: 0,
            arrived: Interval::default(),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How far a slot's disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Takes no part.
    Down,
    /// Being filled: gets writes, nobody waits for it, nobody reads it.
    Syncing,
    /// Filled, being verified: writes wait for it, nobody reads it.
    Joining,
    /// Has every acknowledged write.
    InSync,
}

impl SlotState {
    /// Whether the disk is on its way back.
    pub fn comes_back(self) -> bool {
        matches!(self, Self::Syncing | Self::Joining)
    }
}

/// Where a disk can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// Which disk.
    pub disk: DiskId,
    /// Addresses, best first: `unix:/path` or `tcp:host:port`.
    pub addresses: Vec<String>,
    /// Whether it is on the asker's own node: such a disk is read first.
    pub local: bool,
}

/// A line of a gateway's list of exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportEntry {
    /// The volume's name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its snapshots' names.
    pub snapshots: Vec<String>,
}
