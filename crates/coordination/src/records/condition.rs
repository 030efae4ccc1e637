//! Records about how nodes and disks are, as far as others must know it to decide something. What changes
//! all the time is in none of them.

use serde::{Deserialize, Serialize};

/// What a node's program speaks and reads: who works with it must have something in common with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaks {
    /// The oldest version of the messages to disks that it still speaks.
    pub wire_lowest: u16,
    /// The newest one.
    pub wire_highest: u16,
    /// The newest format of records that it reads.
    pub records: u32,
}

/// A disk was put out of its groups because it was much slower than its peers. It stays in the store until the
/// disk has been in its groups for long, so that one that is put out again and again stays out for longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowRecord {
    /// When it was put out last, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often so far, at least once.
    pub times: u32,
    /// Why, for people: follows the disk's name.
    pub reason: String,
}

/// A node remembers records that the store has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallRecord {
    /// The last transaction that it remembers; zero if it remembers nothing.
    pub revision: u64,
    /// Whether it has them from its file, for it did not run when the store went back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cold: bool,
    /// Whether it runs, and nobody has used anything since it began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unused: bool,
    /// Whether it has raised the store's numbers and not yet put back what it remembers: then this stands without a lease,
    /// for nobody can see any more by the numbers that the store went back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raised: bool,
}

#[cfg(test)]
mod tests {
    //! Records are a stored format: golden bytes.
    use super::super::{NodeUpRecord, decode, encode};
    use super::*;
    use crate::records::tests::entry;

    #[test]
    fn a_record_of_a_slow_disk_keeps_its_golden_bytes() {
        let record = SlowRecord {
            since_ms: 5,
            times: 2,
            reason: "it is slow".to_owned(),
        };
        let golden = r#"{"format":1,"since_ms":5,"times":2,"reason":"it is slow"}"#;
        assert_eq!(&*encode(&record).unwrap(), golden.as_bytes());
        assert_eq!(decode::<SlowRecord>(&entry(golden)).unwrap(), record);
    }

    #[test]
    fn what_a_node_says_that_it_remembers_keeps_its_golden_bytes_and_that_of_an_older_one_is_read() {
        let ran = r#"{"format":1,"revision":7}"#;
        let mut record: RecallRecord = decode(&entry(ran)).unwrap();
        assert!(!record.cold && !record.unused && !record.raised);
        assert_eq!(&*encode(&record).unwrap(), ran.as_bytes());
        (record.cold, record.unused, record.raised) = (true, true, true);
        let all = r#"{"format":1,"revision":7,"cold":true,"unused":true,"raised":true}"#;
        assert_eq!(&*encode(&record).unwrap(), all.as_bytes());
        assert_eq!(decode::<RecallRecord>(&entry(all)).unwrap(), record);
    }

    #[test]
    fn a_node_that_does_not_say_what_it_speaks_is_an_older_one_and_its_record_is_read() {
        let golden = r#"{"format":1,"world":"w","pid":7,"lease_ms":5000,"version":"0.1.0","since_ms":9}"#;
        let mut record: NodeUpRecord = decode(&entry(golden)).unwrap();
        assert_eq!(record.speaks, None);
        assert_eq!(&*encode(&record).unwrap(), golden.as_bytes());
        record.speaks = Some(Speaks {
            wire_lowest: 1,
            wire_highest: 3,
            records: 1,
        });
        let newer = r#","speaks":{"wire_lowest":1,"wire_highest":3,"records":1}}"#;
        let newer = format!("{}{newer}", golden.trim_end_matches('}'));
        assert_eq!(&*encode(&record).unwrap(), newer.as_bytes());
        assert_eq!(decode::<NodeUpRecord>(&entry(&newer)).unwrap(), record);
    }
}
