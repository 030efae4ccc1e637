//! The names of the records in the coordination store. Part of the stored format.
//!
//! Numbers are lower-case hexadecimal of fixed width, so that the order of keys is the order of
//! numbers, and everything of one family, pool or volume lies together.

use protocol::{DiskId, FamilyId, LayerId, NodeId, PgId, PoolId, VolumeId};

/// What all keys begin with.
pub const ROOT: &str = "/storaged/";
/// What the keys of all join tokens begin with.
pub const JOIN_TOKENS: &str = "/storaged/join-token/";
/// What the keys of all access tokens begin with.
pub const ACCESS_TOKENS: &str = "/storaged/access-token/";

/// What the keys of all nodes that remember lost records begin with.
pub const RECALLS: &str = "/storaged/recall/";

/// What the keys of all that concerns iSCSI begin with.
pub const ISCSI: &str = "/storaged/iscsi-";

/// A record's place, as parsed from its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The format of all records, and the cluster's identity.
    Schema,
    /// The certificate of the cluster's authority.
    Authority,
    /// A token with which a machine may join, by its number. Goes away with a lease that nobody renews.
    JoinToken(u64),
    /// A token with which a program may ask the admin API over the network, by its number.
    AccessToken(u64),
    /// The next free identity of a kind.
    Counter(Counter),
    /// A node.
    Node(NodeId),
    /// That a node is up: goes away with the lease of its `storaged`.
    NodeUp(NodeId),
    /// A disk.
    Disk(DiskId),
    /// That a disk was put out of its groups because it is slow.
    Slow(DiskId),
    /// A pool.
    Pool(PoolId),
    /// A pool's name, which points to its identity.
    PoolName(String),
    /// A placement group. Its interval is the revision that changed it last.
    Group(PgId),
    /// A family. The revision that changed it last is that of the last merge of its layers.
    Family(FamilyId),
    /// A layer.
    Layer(FamilyId, LayerId),
    /// A volume.
    Volume(VolumeId),
    /// A volume's name, which points to its identity.
    VolumeName(String),
    /// A snapshot of a volume, by its name; under its family, so that it is found with its layers.
    Snapshot(FamilyId, VolumeId, String),
    /// A volume is on its way to another pool.
    Move(VolumeId),
    /// Who has a volume open. The generation is the revision that made the key.
    Owner(VolumeId),
    /// Who opened a volume last, whether it is open or not; the revision that wrote it is that owner's generation.
    LastOwner(VolumeId),
    /// A front end that shares a volume with others, by a number of its own. Goes away with its lease.
    Attached(VolumeId, u64),
    /// Somebody waits for a volume that is open on another node. Goes away with that node's lease.
    Want(VolumeId),
    /// A node asks for a volume to be brought to rest whose owner is on another one. Goes away with the
    /// asking node's lease.
    Rest(VolumeId),
    /// The owner of a volume holds still, as its node says. Goes away with that node's lease.
    Rested(VolumeId),
    /// A node has given back what its disks held of a layer.
    Reclaimed(FamilyId, LayerId, NodeId),
    /// A node remembers records that the store has lost, as far as this says. Goes away with a lease.
    Recall(NodeId),
    /// An iSCSI target, by its name.
    IscsiTarget(String),
    /// That a volume is a LUN of a target: once at most.
    IscsiLun(VolumeId),
    /// A gateway that serves iSCSI on a node, by the tag of its portal group. Goes away with its lease.
    IscsiPortal(NodeId, u32),
    /// The persistent reservations of a volume that is a LUN.
    IscsiReservation(VolumeId),
    /// A line of the event log.
    Event(u64),
}

/// Kinds of identities that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Nodes.
    Node,
    /// Disks.
    Disk,
    /// Pools.
    Pool,
    /// Volumes, families and layers: one sequence for the three.
    Volume,
    /// Lines of the event log.
    Event,
}

impl Counter {
    fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Disk => "disk",
            Self::Pool => "pool",
            Self::Volume => "volume",
            Self::Event => "event",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Node, Self::Disk, Self::Pool, Self::Volume, Self::Event]
            .into_iter()
            .find(|counter| counter.as_str() == text)
    }
}

impl Key {
    /// The key as it stands in the store.
    pub fn to_text(&self) -> String {
        let tail = match self {
            Self::Schema => "schema".to_owned(),
            Self::Authority => "authority".to_owned(),
            Self::JoinToken(id) => format!("join-token/{id:016x}"),
            Self::AccessToken(id) => format!("access-token/{id:016x}"),
            Self::Counter(counter) => format!("counter/{}", counter.as_str()),
            Self::Node(id) => format!("node/{:08x}", id.0),
            Self::NodeUp(id) => format!("node-up/{:08x}", id.0),
            Self::Recall(id) => format!("recall/{:08x}", id.0),
            Self::Disk(id) => format!("disk/{:08x}", id.0),
            Self::Slow(id) => format!("slow/{:08x}", id.0),
            Self::Pool(id) => format!("pool/{:08x}", id.0),
            Self::PoolName(name) => format!("pool-name/{name}"),
            Self::Group(pg) => format!("group/{:08x}/{:08x}", pg.pool.0, pg.number),
            Self::Family(id) => format!("family/{:016x}", id.0),
            Self::Layer(family, layer) => format!("layer/{:016x}/{:016x}", family.0, layer.0),
            Self::Volume(id) => format!("volume/{:016x}", id.0),
            Self::VolumeName(name) => format!("volume-name/{name}"),
            Self::Snapshot(family, volume, name) => {
                format!("snapshot/{:016x}/{:016x}/{name}", family.0, volume.0)
            }
            Self::Move(volume) => format!("move/{:016x}", volume.0),
            Self::Owner(volume) => format!("owner/{:016x}", volume.0),
            Self::LastOwner(volume) => format!("last-owner/{:016x}", volume.0),
            Self::Attached(volume, number) => format!("attached/{:016x}/{number:016x}", volume.0),
            Self::Want(volume) => format!("want/{:016x}", volume.0),
            Self::Rest(volume) => format!("rest/{:016x}", volume.0),
            Self::Rested(volume) => format!("rested/{:016x}", volume.0),
            Self::Reclaimed(family, layer, node) => {
                format!("reclaimed/{:016x}/{:016x}/{:08x}", family.0, layer.0, node.0)
            }
            Self::IscsiTarget(name) => format!("iscsi-target/{name}"),
            Self::IscsiLun(volume) => format!("iscsi-lun/{:016x}", volume.0),
            Self::IscsiPortal(node, group) => format!("iscsi-portal/{:08x}/{group:08x}", node.0),
            Self::IscsiReservation(volume) => format!("iscsi-reservation/{:016x}", volume.0),
            Self::Event(number) => format!("event/{number:016x}"),
        };
        format!("{ROOT}{tail}")
    }

    /// Reads a key; nothing if it is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = match text.strip_prefix(ROOT)?.split_once('/') {
            Some(parts) => parts,
            None if text == "/storaged/schema" => return Some(Self::Schema),
            None if text == "/storaged/authority" => return Some(Self::Authority),
            None => return None,
        };
        Some(match kind {
            "join-token" => Self::JoinToken(long(rest)?),
            "access-token" => Self::AccessToken(long(rest)?),
            "counter" => Self::Counter(Counter::parse(rest)?),
            "node" => Self::Node(NodeId(short(rest)?)),
            "node-up" => Self::NodeUp(NodeId(short(rest)?)),
            "recall" => Self::Recall(NodeId(short(rest)?)),
            "disk" => Self::Disk(DiskId(short(rest)?)),
            "slow" => Self::Slow(DiskId(short(rest)?)),
            "pool" => Self::Pool(PoolId(short(rest)?)),
            "pool-name" => Self::PoolName(name(rest)?),
            "group" => {
                let (pool, number) = rest.split_once('/')?;
                Self::Group(PgId {
                    pool: PoolId(short(pool)?),
                    number: short(number)?,
                })
            }
            "family" => Self::Family(FamilyId(long(rest)?)),
            "layer" => {
                let (family, layer) = rest.split_once('/')?;
                Self::Layer(FamilyId(long(family)?), LayerId(long(layer)?))
            }
            "volume" => Self::Volume(VolumeId(long(rest)?)),
            "volume-name" => Self::VolumeName(name(rest)?),
            "snapshot" => {
                let (family, rest) = rest.split_once('/')?;
                let (volume, rest) = rest.split_once('/')?;
                Self::Snapshot(FamilyId(long(family)?), VolumeId(long(volume)?), name(rest)?)
            }
            "move" => Self::Move(VolumeId(long(rest)?)),
            "owner" => Self::Owner(VolumeId(long(rest)?)),
            "last-owner" => Self::LastOwner(VolumeId(long(rest)?)),
            "attached" => {
                let (volume, number) = rest.split_once('/')?;
                Self::Attached(VolumeId(long(volume)?), long(number)?)
            }
            "want" => Self::Want(VolumeId(long(rest)?)),
            "rest" => Self::Rest(VolumeId(long(rest)?)),
            "rested" => Self::Rested(VolumeId(long(rest)?)),
            "reclaimed" => {
                let (family, rest) = rest.split_once('/')?;
                let (layer, node) = rest.split_once('/')?;
                Self::Reclaimed(
                    FamilyId(long(family)?),
                    LayerId(long(layer)?),
                    NodeId(short(node)?),
                )
            }
            "iscsi-target" => Self::IscsiTarget(name(rest)?),
            "iscsi-lun" => Self::IscsiLun(VolumeId(long(rest)?)),
            "iscsi-portal" => {
                let (node, group) = rest.split_once('/')?;
                Self::IscsiPortal(NodeId(short(node)?), short(group)?)
            }
            "iscsi-reservation" => Self::IscsiReservation(VolumeId(long(rest)?)),
            "event" => Self::Event(long(rest)?),
            _ => return None,
        })
    }
}

/// What the keys of all attachments of a volume begin with.
pub fn attachments_of(volume: VolumeId) -> String {
    format!("{ROOT}attached/{:016x}/", volume.0)
}

fn name(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains('/')).then(|| text.to_owned())
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn short(text: &str) -> Option<u32> {
    (text.len() == 8 && is_hexadecimal(text)).then(|| u32::from_str_radix(text, 16).ok())?
}

fn long(text: &str) -> Option<u64> {
    (text.len() == 16 && is_hexadecimal(text)).then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    //! Keys are a stored format: they come back as they went in, and any text is safe to parse.
    use super::*;
    use proptest::prelude::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let word = "[A-Za-z0-9][A-Za-z0-9._-]{0,20}";
        prop_oneof![
            Just(Key::Schema),
            Just(Key::Authority),
            any::<u64>().prop_map(Key::JoinToken),
            any::<u64>().prop_map(Key::AccessToken),
            Just(Key::Counter(Counter::Event)),
            any::<u32>().prop_map(|n| Key::Node(NodeId(n))),
            any::<u32>().prop_map(|n| Key::Disk(DiskId(n))),
            any::<u32>().prop_map(|n| Key::Slow(DiskId(n))),
            any::<u32>().prop_map(|n| Key::Pool(PoolId(n))),
            word.prop_map(Key::PoolName),
            any::<(u32, u32)>().prop_map(|(pool, number)| Key::Group(PgId {
                pool: PoolId(pool),
                number
            })),
            any::<u64>().prop_map(|n| Key::Family(FamilyId(n))),
            any::<(u64, u64)>().prop_map(|(f, l)| Key::Layer(FamilyId(f), LayerId(l))),
            any::<u64>().prop_map(|n| Key::Volume(VolumeId(n))),
            word.prop_map(Key::VolumeName),
            (any::<u64>(), any::<u64>(), word).prop_map(|(f, v, n)| Key::Snapshot(
                FamilyId(f),
                VolumeId(v),
                n
            )),
            any::<u64>().prop_map(|n| Key::Owner(VolumeId(n))),
            any::<u32>().prop_map(|n| Key::NodeUp(NodeId(n))),
            any::<u32>().prop_map(|n| Key::Recall(NodeId(n))),
            any::<u64>().prop_map(|n| Key::LastOwner(VolumeId(n))),
            any::<(u64, u64)>().prop_map(|(v, n)| Key::Attached(VolumeId(v), n)),
            any::<u64>().prop_map(|n| Key::Want(VolumeId(n))),
            any::<u64>().prop_map(|n| Key::Rest(VolumeId(n))),
            any::<u64>().prop_map(|n| Key::Rested(VolumeId(n))),
            any::<(u64, u64, u32)>().prop_map(|(f, l, n)| Key::Reclaimed(FamilyId(f), LayerId(l), NodeId(n))),
            "iqn\\.2026-11\\.[a-z0-9.:-]{1,20}".prop_map(Key::IscsiTarget),
            any::<u64>().prop_map(|n| Key::IscsiLun(VolumeId(n))),
            any::<(u32, u32)>().prop_map(|(n, g)| Key::IscsiPortal(NodeId(n), g)),
            any::<u64>().prop_map(|n| Key::IscsiReservation(VolumeId(n))),
            any::<u64>().prop_map(Key::Event),
        ]
    }

    proptest! {
        #[test]
        fn a_key_comes_back_as_it_went_in(key in any_key()) {
            prop_assert_eq!(Key::parse(&key.to_text()), Some(key));
        }

        #[test]
        fn any_text_is_safe_to_parse_and_only_exact_keys_are_taken(text in "(/storaged/)?[a-z-]{0,12}/?\\PC{0,40}") {
            if let Some(key) = Key::parse(&text) {
                prop_assert_eq!(key.to_text(), text);
            }
        }
    }

    #[test]
    fn keys_of_one_family_keep_their_golden_text() {
        assert_eq!(
            Key::Layer(FamilyId(0x1f), LayerId(32)).to_text(),
            "/storaged/layer/000000000000001f/0000000000000020"
        );
        assert_eq!(
            Key::Counter(Counter::Volume).to_text(),
            "/storaged/counter/volume"
        );
        assert_eq!(
            Key::JoinToken(0x2a).to_text(),
            format!("{JOIN_TOKENS}000000000000002a")
        );
        assert_eq!(
            Key::AccessToken(0x2a).to_text(),
            format!("{ACCESS_TOKENS}000000000000002a")
        );
    }

    #[test]
    fn keys_of_iscsi_keep_their_golden_text() {
        for (key, golden) in [
            (
                Key::IscsiTarget("iqn.2026-11.org.example:a".to_owned()),
                "target/iqn.2026-11.org.example:a",
            ),
            (Key::IscsiLun(VolumeId(0x1f)), "lun/000000000000001f"),
            (Key::IscsiPortal(NodeId(2), 3), "portal/00000002/00000003"),
            (
                Key::IscsiReservation(VolumeId(0x1f)),
                "reservation/000000000000001f",
            ),
        ] {
            assert_eq!(key.to_text(), format!("{ISCSI}{golden}"));
        }
    }
}
