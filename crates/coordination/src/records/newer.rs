//! Fields that a newer program has put into a record, and that this one does not know.
//!
//! While nodes are upgraded one by one, programs of two versions change the same records. Each writes a record as a whole; an
//! older one that left out what it does not know would undo what an operator has set by way of a newer one. So it keeps such
//! fields as they are. Those of a record itself, and not those of what stands in it: what is new goes there. It refuses to know
//! what they mean: what an older program must not pass over needs a format of its own.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// See the module. As many as an entry of the store has room for.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NewerFields(BTreeMap<String, Value>);

impl fmt::Debug for NewerFields {
    /// Only what they are called: nobody here knows which of them are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    //! A record that is read, changed and written has all that was in it.
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::records::tests::entry;
    use crate::records::{DiskRecord, NodeRecord, PoolRecord, TargetRecord, VolumeRecord, decode, encode};

    /// What a newer program has added, in shapes that a reader might not expect.
    const ADDED: &str = r#""speed":{"cache":[1,18446744073709551615,-1,"x",null]},"zeal":true"#;

    /// Reads a record with more fields than are known, and writes it with a change.
    fn pass_through<T: Serialize + DeserializeOwned>(plain: &str, change: impl Fn(&mut T), changed: &str) {
        let with = |text: &str| text.strip_suffix('}').unwrap().to_owned() + "," + ADDED + "}";
        let mut record: T = decode(&entry(with(plain))).unwrap();
        change(&mut record);
        let written = encode(&record).unwrap();
        assert_eq!(std::str::from_utf8(&written).unwrap(), with(changed));
    }

    #[test]
    fn what_a_newer_program_has_said_is_still_said_after_a_change_by_an_older_one() {
        pass_through::<VolumeRecord>(
            r#"{"format":1,"name":"a","family":1,"head":2,"size":4096,"created_ms":9}"#,
            |record| record.name = "b".to_owned(),
            r#"{"format":1,"name":"b","family":1,"head":2,"size":4096,"created_ms":9}"#,
        );
        pass_through::<DiskRecord>(
            r#"{"format":1,"node":1,"path":"/d","weight":1,"addresses":[],"created_ms":9}"#,
            |record| record.draining = true,
            r#"{"format":1,"node":1,"path":"/d","weight":1,"draining":true,"addresses":[],"created_ms":9}"#,
        );
        let node = |zone: &str| {
            format!(
                r#"{{"format":1,"name":"n","zone":"{zone}","serial":{:?},"addresses":[],"created_ms":9}}"#,
                [0; 16]
            )
            .replace(", ", ",")
        };
        pass_through::<NodeRecord>(&node("a"), |record| record.zone = "b".to_owned(), &node("b"));
        pass_through::<TargetRecord>(
            r#"{"format":1,"luns":[],"access":[],"created_ms":8}"#,
            |record| record.created_ms = 9,
            r#"{"format":1,"luns":[],"access":[],"created_ms":9}"#,
        );
    }

    /// Found by fuzzing: what is no integer of 64 bits is read as a fraction, and was read a little off, so that it drifted with
    /// each change of the record.
    #[test]
    fn a_large_number_is_the_same_however_often_the_record_is_written() {
        let text = r#"{"format":1,"luns":[],"access":[],"created_ms":5,"x":100000004073709551615,"y":0.1}"#;
        let record: TargetRecord = decode(&entry(text)).unwrap();
        let written = encode(&record).unwrap();
        let again: TargetRecord = decode(&entry(&written)).unwrap();
        assert_eq!(again, record);
    }

    #[test]
    fn what_they_hold_is_not_shown() {
        let newer: NewerFields = serde_json::from_str(r#"{"password":"canary"}"#).unwrap();
        assert_eq!(format!("{newer:?}"), r#"{"password"}"#);
    }

    #[test]
    fn what_a_newer_program_has_said_of_a_pool_stays_too() {
        let pool = |closing: bool| {
            format!(
                r#"{{"format":1,"name":"p","redundancy":{{"kind":"replicated","copies":3}},"min_in_sync":2,"groups":8,"failure_domain":"node","closing":{closing},"created_ms":9}}"#
            )
        };
        pass_through::<PoolRecord>(&pool(false), |record| record.closing = true, &pool(true));
    }
}
