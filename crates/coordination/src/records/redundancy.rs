//! How a pool keeps data, as its record says: whole copies, or rows of shards. What follows from it for a pool's numbers
//! is said here and nowhere else; how rows are written is not known here.

use protocol::profile::Profile;
use serde::{Deserialize, Serialize};

/// How a pool keeps data. Never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Redundancy {
    /// As many whole copies.
    Replicated {
        /// 1 to 8.
        copies: u8,
    },
    /// Rows of k shards of data and m of parity, and what is smaller as copies. Programs that do not know of it refuse the
    /// record, instead of taking shards for copies.
    Encoded {
        /// k and m.
        profile: Profile,
    },
}

/// Why a pool cannot have such a least number of disks in sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MinInSyncError {
    /// Of copies.
    #[error("min_in_sync is from 1 to the number of copies ({copies}), not {given}")]
    Copies {
        /// How many there are.
        copies: u8,
        /// What was asked for.
        given: u32,
    },
    /// Of shards.
    #[error(
        "min_in_sync of a pool {profile} is from {} (with fewer shards nothing can be read) to {} (all of them), not {given}",
        .profile.data(), .profile.width()
    )]
    Shards {
        /// k and m.
        profile: Profile,
        /// What was asked for.
        given: u32,
    },
}

impl Redundancy {
    /// How many slots a placement group has, each on a disk of its own: n copies, or k + m shards.
    pub fn width(self) -> u8 {
        match self {
            Self::Replicated { copies } => copies,
            Self::Encoded { profile } => profile.width(),
        }
    }

    /// What a group's disks keep, for people.
    pub fn parts(self) -> &'static str {
        match self {
            Self::Replicated { .. } => "copies",
            Self::Encoded { .. } => "shards",
        }
    }

    /// How rows are encoded; nothing if there are copies.
    pub fn profile(self) -> Option<Profile> {
        match self {
            Self::Replicated { .. } => None,
            Self::Encoded { profile } => Some(profile),
        }
    }

    /// The fewest disks in sync with which everything can be read: one copy, or k shards.
    pub fn readable(self) -> u8 {
        self.profile().map_or(1, Profile::data)
    }

    /// The shard of a group's slot when the group is made, by the slot's place: 0 in pools of copies.
    pub fn shard(self, place: u8) -> u8 {
        self.profile().map_or(0, |_| place)
    }

    /// The least number of disks in sync unless told otherwise: one may be away where another one may be lost then. So
    /// that is one less than all of three and more copies; of rows k + 1, and k where there is but one shard of parity, for
    /// else nothing could be away.
    pub fn min_in_sync_default(self) -> u8 {
        match self {
            Self::Replicated { copies } if copies > 2 => copies - 1,
            Self::Replicated { copies } => copies,
            Self::Encoded { profile } if profile.parity() > 1 => profile.data() + 1,
            Self::Encoded { profile } => profile.data(),
        }
    }

    /// The least number of disks in sync that was asked for, if there may be such a one.
    pub fn min_in_sync(self, given: u32) -> Result<u8, MinInSyncError> {
        let refused = match self {
            Self::Replicated { copies } => MinInSyncError::Copies { copies, given },
            Self::Encoded { profile } => MinInSyncError::Shards { profile, given },
        };
        let fits = |number: &u8| (self.readable()..=self.width()).contains(number);
        u8::try_from(given).ok().filter(fits).ok_or(refused)
    }
}

#[cfg(test)]
mod tests {
    //! A stored format: golden bytes, also those of before there was anything but copies.
    use protocol::session::{Slot, SlotState};
    use protocol::{DiskId, Interval};

    use super::super::{FailureDomain, GroupRecord, NewerFields, PoolRecord, RecordError, decode, encode};
    use super::*;
    use crate::records::tests::entry;

    fn pool(redundancy: Redundancy) -> PoolRecord {
        PoolRecord {
            name: "main".to_owned(),
            redundancy,
            min_in_sync: redundancy.min_in_sync_default(),
            groups: 8,
            failure_domain: FailureDomain::Node,
            disks: None,
            closing: false,
            created_ms: 5,
            newer: NewerFields::default(),
        }
    }

    fn encoded(data: u8, parity: u8) -> Redundancy {
        Redundancy::Encoded {
            profile: Profile::new(data, parity).unwrap(),
        }
    }

    const COPIES: &str = r#"{"format":1,"name":"main","redundancy":{"kind":"replicated","copies":3},"min_in_sync":2,"groups":8,"failure_domain":"node","closing":false,"created_ms":5}"#;
    const SHARDS: &str = r#"{"format":1,"name":"main","redundancy":{"kind":"encoded","profile":"4+2"},"min_in_sync":5,"groups":8,"failure_domain":"node","closing":false,"created_ms":5}"#;

    #[test]
    fn a_pool_of_copies_keeps_its_golden_bytes() {
        let record = pool(Redundancy::Replicated { copies: 3 });
        assert_eq!(&*encode(&record).unwrap(), COPIES.as_bytes());
        assert_eq!(decode::<PoolRecord>(&entry(COPIES)).unwrap(), record);
    }

    #[test]
    fn a_pool_of_rows_keeps_its_golden_bytes() {
        let record = pool(encoded(4, 2));
        assert_eq!(&*encode(&record).unwrap(), SHARDS.as_bytes());
        assert_eq!(decode::<PoolRecord>(&entry(SHARDS)).unwrap(), record);
    }

    #[test]
    fn a_pool_that_cannot_be_is_no_record() {
        for wrong in [
            SHARDS.replace("4+2", "1+1"),
            SHARDS.replace("encoded", "mirrored"),
            SHARDS.replace("profile", "copies"),
        ] {
            let refused = decode::<PoolRecord>(&entry(&wrong));
            assert!(
                matches!(refused, Err(RecordError::Malformed { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn groups_of_copies_and_of_shards_keep_their_golden_bytes() {
        let record = |shards: [(u8, u64); 2]| GroupRecord {
            slots: [(7, SlotState::InSync), (8, SlotState::Down)]
                .into_iter()
                .zip(shards)
                .map(|((disk, state), (shard, arrived))| Slot {
                    disk: DiskId(disk),
                    state,
                    shard,
                    arrived: Interval(arrived),
                })
                .collect(),
        };
        let copies = r#"{"format":1,"slots":[{"disk":7,"state":"in_sync"},{"disk":8,"state":"down"}]}"#;
        let shards =
            r#"{"format":1,"slots":[{"disk":7,"state":"in_sync"},{"disk":8,"state":"down","shard":1}]}"#;
        let moved = r#"{"format":1,"slots":[{"disk":7,"state":"in_sync"},{"disk":8,"state":"down","shard":1,"arrived":9}]}"#;
        let records = [[(0, 0), (0, 0)], [(0, 0), (1, 0)], [(0, 0), (1, 9)]].map(record);
        for (golden, record) in [copies, shards, moved].into_iter().zip(records) {
            assert_eq!(&*encode(&record).unwrap(), golden.as_bytes());
            assert_eq!(decode::<GroupRecord>(&entry(golden)).unwrap(), record);
        }
    }

    #[test]
    fn a_pool_of_rows_has_a_slot_for_each_shard_and_is_read_with_k_of_them() {
        for (data, parity) in [(2, 1), (4, 2), (8, 3), (16, 4)] {
            let redundancy = encoded(data, parity);
            assert_eq!(redundancy.width(), data + parity);
            assert_eq!(redundancy.readable(), data);
            assert_eq!(redundancy.shard(data), data);
        }
        let copies = Redundancy::Replicated { copies: 3 };
        assert_eq!((copies.width(), copies.readable(), copies.shard(2)), (3, 1, 0));
        assert_eq!(copies.profile(), None);
    }

    #[test]
    fn what_must_be_in_sync_is_k_and_one_more_where_two_may_be_lost() {
        let default = Redundancy::min_in_sync_default;
        assert_eq!(default(encoded(4, 2)), 5);
        assert_eq!(default(encoded(8, 3)), 9);
        assert_eq!(default(encoded(4, 1)), 4);
        let copies = [1, 2, 3, 7].map(|copies| default(Redundancy::Replicated { copies }));
        assert_eq!(copies, [1, 2, 2, 6]);
    }

    #[test]
    fn fewer_in_sync_than_k_shards_are_refused_in_words() {
        let rows = encoded(4, 2);
        for fits in 4..=6 {
            assert_eq!(rows.min_in_sync(fits).map(u32::from), Ok(fits));
        }
        for wrong in [0, 3, 7, 260] {
            let said = rows.min_in_sync(wrong).unwrap_err().to_string();
            assert!(
                said.contains("pool 4+2") && said.contains("from 4 ") && said.contains(" to 6 "),
                "{said}"
            );
        }
        let copies = Redundancy::Replicated { copies: 3 };
        assert_eq!(copies.min_in_sync(1), Ok(1));
        assert_eq!(
            copies.min_in_sync(4).unwrap_err().to_string(),
            "min_in_sync is from 1 to the number of copies (3), not 4"
        );
    }
}
