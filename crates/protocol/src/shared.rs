//! What is said about a volume that several front ends have open at once (`docs/decisions/0041-shared-opens.md`): to
//! `storaged`, which knows who they are, and from front end to front end.
//!
//! One of them owns the volume; the others are its *peers* and have it do what their guests ask for, in the words that
//! an owner has for disks ([`crate::message`]), with an object's index and block range, and no stamps.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::geometry::BlockRange;
use crate::id::{Generation, VolumeId};

/// The versions of what peers say to each other that this program speaks. A peer says the lowest when it joins, the owner
/// says its highest when it lets the peer in; owners of version 1 do not say it. Since version 2 there is
/// [`CompareAndWrite`]; since version 3 there are notices, and a peer says its highest as well.
pub const VERSIONS: RangeInclusive<u16> = 1..=NOTICE_SINCE;
/// The first version with [`CompareAndWrite`].
pub const COMPARE_SINCE: u16 = 2;
/// The first version with [`SharedRequest::Notice`] and what belongs to it.
pub const NOTICE_SINCE: u16 = 3;
/// The most bytes that one [`CompareAndWrite`] compares.
pub const COMPARE_MAX: u32 = 256 * 1024;
/// The most bytes in one request of a peer.
pub const PIECE_MAX: u32 = 512 * 1024;
/// The most requests of one peer that its owner has not answered, or whose answer was not confirmed.
pub const REQUESTS_MAX: usize = 256;

/// From a front end to its `storaged`, or to the owner of a shared volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "shared")]
pub enum SharedRequest {
    /// To `storaged`: where may I listen for others? Answered with [`SharedReply::Meet`].
    Meet,
    /// To `storaged`: count me among those who have this volume open, until my lease lapses. Answered with
    /// [`SharedReply::Attached`].
    Attach {
        /// The volume's name.
        volume: String,
        /// Where others reach this front end if it becomes the owner.
        addresses: Vec<String>,
    },
    /// To `storaged`: go on with an attachment after the connection was lost. One that has lapsed comes back if this front
    /// end was the last owner of the volume. Answered with [`SharedReply::Attached`].
    Reattach {
        /// Which volume.
        volume: VolumeId,
        /// Which attachment.
        attachment: u64,
        /// Where others reach this front end if it becomes the owner; older ones do not say it, and do not come back.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<String>,
        /// The last generation that this front end owned the volume with; nothing if it never did, or is older.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owned: Option<Generation>,
    },
    /// To `storaged`: who is there now? Answered with [`SharedReply::Attached`]. Asked by a new owner, the answer has
    /// all whose requests a former owner may have done.
    Look,
    /// To `storaged`: keep the lease of the attachment that this connection has.
    Keep,
    /// To `storaged`: the attachment has come to its end; nothing of it is unanswered.
    Detach,
    /// To an owner, first: these are the requests of an attachment. Answered with [`SharedReply::Joined`].
    Join {
        /// The lowest version that the peer speaks.
        version: u16,
        /// Which cluster.
        cluster: [u8; 16],
        /// Which volume.
        volume: VolumeId,
        /// Which attachment.
        attachment: u64,
        /// The highest version that the peer speaks; those of version 2 and less do not say it.
        #[serde(default = "first_version")]
        speaks: u16,
    },
    /// To an owner: all requests that a former owner did not answer have been sent again. It has no answer.
    Rejoined,
    /// To an owner: its answers to these writes have come. It has no answer.
    Confirm {
        /// The requests' numbers.
        numbers: Vec<u64>,
    },
    /// To an owner: have all others take notice that something has changed which they go by besides the volume. Answered
    /// with [`SharedReply::Noticed`]; a peer waits for the answer to one before it asks for another.
    Notice,
    /// To an owner: everything that this peer does from now on, it does with knowledge of what there was to know when
    /// this notice and all before it were given. It has no answer.
    TookNotice {
        /// Which notice.
        notice: u64,
    },
}

/// The answer to a [`SharedRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "shared")]
pub enum SharedReply {
    /// Where a front end may listen: `unix:PATH`, or addresses whose port is 0 and is to be replaced.
    Meet {
        /// Any number of them, best first.
        addresses: Vec<String>,
    },
    /// The attachment is known.
    Attached(Box<AttachmentView>),
    /// The owner takes requests.
    Joined {
        /// Its generation.
        generation: Generation,
        /// The highest version that it speaks.
        #[serde(default = "first_version")]
        version: u16,
    },
    /// From an owner, unasked: take notice. Answered with [`SharedRequest::TookNotice`] when nothing is under way any more
    /// that would not be begun now.
    TakeNotice {
        /// Which notice: a number that goes up with each notice of this owner.
        notice: u64,
    },
    /// All others have taken notice, or do not share the volume any more and have nothing under way.
    Noticed,
}

/// What somebody speaks who does not say it.
fn first_version() -> u16 {
    1
}

/// From a peer to an owner: write blocks if they hold what is expected. Answered with [`Compared`], or as other requests
/// are if it cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompareAndWrite {
    /// Which volume.
    pub volume: VolumeId,
    /// Which object.
    pub index: u32,
    /// Which blocks; at most [`COMPARE_MAX`] bytes.
    pub range: BlockRange,
    /// One for each block that is expected, and then one for each that is to be written.
    pub checksums: Arc<[u32]>,
    /// The blocks that are expected, and then those that are to be written.
    pub bytes: Bytes,
}

/// What became of a [`CompareAndWrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It was written.
    Written,
    /// Something else is there; nothing was written.
    Differs {
        /// The volume's byte that differs first.
        offset: u64,
    },
    /// What was to be written is there, and it is not known whether it was there before.
    NotKnown,
}

/// What an attachment must know of its volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentView {
    /// The attachment itself.
    pub attachment: u64,
    /// The volume.
    pub volume: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// How long the lease lasts after it was kept, in milliseconds.
    pub lease_ms: u64,
    /// The cluster's identity.
    pub cluster: [u8; 16],
    /// All attachments of the volume, this one among them.
    pub attachments: Vec<u64>,
    /// Who owns the volume, if anybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SharingOwner>,
}

/// The owner of a volume, as others who share it see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingOwner {
    /// Its generation.
    pub generation: Generation,
    /// Its attachment; nothing if it does not share the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<u64>,
    /// Where it listens, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Who it is, for people.
    pub by: String,
    /// The name of the node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

#[cfg(test)]
mod tests {
    //! Words of older versions are understood, and mean what they meant.
    use super::*;

    #[test]
    fn an_owner_that_does_not_say_its_version_speaks_the_first() {
        let older = serde_json::from_str(r#"{"shared":"joined","generation":5}"#).unwrap();
        let joined = SharedReply::Joined {
            generation: Generation(5),
            version: 1,
        };
        assert_eq!(joined, older);
        let join = r#"{"shared":"join","version":1,"cluster":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"volume":7,"attachment":1}"#;
        let SharedRequest::Join { speaks, .. } = serde_json::from_str(join).unwrap() else {
            panic!("it is a join");
        };
        assert_eq!(speaks, 1);
    }

    #[test]
    fn an_older_front_end_does_not_say_what_it_owned() {
        let older = r#"{"shared":"reattach","volume":7,"attachment":1}"#;
        let reattach = SharedRequest::Reattach {
            volume: VolumeId(7),
            attachment: 1,
            addresses: Vec::new(),
            owned: None,
        };
        assert_eq!(serde_json::from_str::<SharedRequest>(older).unwrap(), reattach);
        assert_eq!(serde_json::to_string(&reattach).unwrap(), older);
    }
}
