//! How etcd's own revisions become ours, which never go back.
//!
//! An etcd that was restored from a backup counts on from the backup: its numbers come a second time,
//! for other transactions. So a record in it says by how much to raise what it counts, from which of
//! its revisions on. What was written before keeps its number; what is written after gets a higher one
//! than anybody has ever seen. This file is arithmetic, it asks nobody.

use serde::{Deserialize, Serialize};

use crate::engine::check_floor;
use crate::store::{CoordinationError, Revision};

/// The layout of the record that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Rises that a record may hold. Each is a restored backup; the limit only bounds a damaged record.
const RISES_MAX: usize = 4096;

/// From an etcd revision on, this is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rise {
    from: i64,
    add: u64,
}

/// As it stands in etcd: the newest rise begins with the transaction that wrote the record.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    earlier: Vec<Rise>,
    add: u64,
}

/// The rises so far, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbering {
    rises: Vec<Rise>,
}

impl Numbering {
    /// What a record says that was written at an etcd revision.
    pub(super) fn parse(value: &[u8], written: i64) -> Result<Self, CoordinationError> {
        let invalid = |message: String| {
            CoordinationError::Invalid(format!("the record of etcd's numbering {message}").into())
        };
        let record: Record =
            serde_json::from_slice(value).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        if record.format > FORMAT {
            return Err(invalid(format!(
                "has format {}: upgrade this program",
                record.format
            )));
        }
        let mut rises = record.earlier;
        rises.push(Rise {
            from: written,
            add: record.add,
        });
        let rising = rises
            .windows(2)
            .all(|pair| pair[0].from < pair[1].from && pair[0].add < pair[1].add);
        if !rising || rises.len() > RISES_MAX || rises[0].from <= 0 {
            return Err(invalid("contradicts itself".to_owned()));
        }
        Ok(Self { rises })
    }

    /// The etcd revision that wrote the record; zero if there is none.
    pub(super) fn written(&self) -> i64 {
        self.rises.last().map_or(0, |rise| rise.from)
    }

    /// The record that makes everything after it higher than `floor`, when etcd is at `now`.
    /// Nothing if that is so without.
    pub(super) fn raised(
        &self,
        now: i64,
        floor: Revision,
        margin: u64,
    ) -> Result<Option<Vec<u8>>, CoordinationError> {
        if self.revision(now) >= floor {
            return Ok(None);
        }
        let refuse = |message: &str| Err(CoordinationError::Invalid(message.into()));
        if self.rises.len() >= RISES_MAX {
            return refuse("etcd's revisions were raised too often: its record takes no more");
        }
        check_floor(floor)?;
        let above = floor.0.saturating_add(margin);
        let record = Record {
            format: FORMAT,
            earlier: self.rises.clone(),
            add: above - now.unsigned_abs(),
        };
        let bytes = serde_json::to_vec(&record);
        bytes
            .map(Some)
            .map_err(|error| CoordinationError::Invalid(error.to_string().into()))
    }

    /// Our number of an etcd revision.
    pub(super) fn revision(&self, raw: i64) -> Revision {
        let rise = self.rises.iter().rev().find(|rise| rise.from <= raw);
        Revision(raw.unsigned_abs().saturating_add(rise.map_or(0, |rise| rise.add)))
    }

    /// The etcd revision that has this number; nothing if none has, for example because the
    /// transaction that had it was lost with what was not in a backup.
    pub(super) fn raw(&self, revision: Revision) -> Option<i64> {
        let first = Rise { from: 0, add: 0 };
        let candidates = self.rises.iter().rev().chain([&first]);
        for rise in candidates {
            let raw = revision.0.checked_sub(rise.add);
            let raw = raw.and_then(|raw| i64::try_from(raw).ok());
            if let Some(raw) = raw
                && raw >= rise.from
            {
                return (self.revision(raw) == revision).then_some(raw);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    //! Numbers only rise, each has one meaning, and any bytes are safe to parse.
    use super::*;
    use proptest::prelude::*;

    /// A numbering after several restored backups: each time etcd is at some revision, and a floor is
    /// asked for.
    fn any_numbering() -> impl Strategy<Value = Numbering> {
        prop::collection::vec((1_i64..50, 0_u64..500, 0_u64..20), 0..5).prop_map(|steps| {
            let (mut numbering, mut now) = (Numbering::default(), 0);
            for (ahead, floor, margin) in steps {
                now += ahead;
                if let Some(record) = numbering.raised(now, Revision(floor), margin).unwrap() {
                    now += 1;
                    numbering = Numbering::parse(&record, now).unwrap();
                    assert!(numbering.revision(now) > Revision(floor + margin));
                }
            }
            numbering
        })
    }

    proptest! {
        #[test]
        fn numbers_rise_with_etcds_and_lead_back_to_them(numbering in any_numbering()) {
            for raw in 0..300_i64 {
                let revision = numbering.revision(raw);
                prop_assert!(numbering.revision(raw + 1) > revision);
                prop_assert_eq!(numbering.raw(revision), Some(raw));
            }
        }

        #[test]
        fn a_number_that_was_lost_with_a_backup_leads_nowhere(numbering in any_numbering(), number in 0_u64..2000) {
            if let Some(raw) = numbering.raw(Revision(number)) {
                prop_assert_eq!(numbering.revision(raw), Revision(number));
            } else {
                prop_assert!((0..2100).all(|raw| numbering.revision(raw) != Revision(number)));
            }
        }

        #[test]
        fn a_rise_changes_no_number_that_was_given_before(numbering in any_numbering(), ahead in 1_i64..50, floor: u32) {
            let now = numbering.written() + ahead;
            if let Some(record) = numbering.raised(now, Revision(u64::from(floor)), 7).unwrap() {
                let next = Numbering::parse(&record, now + 1).unwrap();
                for raw in 0..=now {
                    prop_assert_eq!(next.revision(raw), numbering.revision(raw));
                }
                prop_assert!(next.revision(now + 1) > Revision(u64::from(floor) + 7));
            }
        }

        #[test]
        fn any_bytes_are_safe_to_parse(bytes: Vec<u8>, written: i64) {
            let _ = Numbering::parse(&bytes, written);
        }
    }

    #[test]
    fn a_record_keeps_its_golden_bytes() {
        let first = Numbering::default()
            .raised(5, Revision(100), 10)
            .unwrap()
            .unwrap();
        assert_eq!(first, br#"{"format":1,"earlier":[],"add":105}"#);
        let numbering = Numbering::parse(&first, 6).unwrap();
        assert_eq!(numbering.revision(6), Revision(111));
        let second = numbering.raised(8, Revision(200), 10).unwrap().unwrap();
        assert_eq!(
            second,
            br#"{"format":1,"earlier":[{"from":6,"add":105}],"add":202}"#
        );
        assert_eq!(numbering.raised(8, Revision(113), 10).unwrap(), None);
    }

    #[test]
    fn a_record_of_a_newer_program_or_one_that_falls_is_refused() {
        for (value, says) in [
            (br#"{"format":2,"earlier":[],"add":1}"#.as_slice(), "upgrade"),
            (
                br#"{"format":1,"earlier":[{"from":9,"add":1}],"add":5}"#,
                "contradicts",
            ),
            (
                br#"{"format":1,"earlier":[{"from":2,"add":6}],"add":5}"#,
                "contradicts",
            ),
            (b"{", "cannot be read"),
        ] {
            let error = Numbering::parse(value, 4).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let nonsense = Numbering::default().raised(1, Revision(u64::MAX), 1);
        assert!(nonsense.is_err());
    }
}
