//! Where our keys lie in etcd, and how what etcd says of a key becomes an entry.
//!
//! `PREFIX` + the key, as the trait's user knows it; all begin with `PREFIX/storaged/`. Beside them,
//! under `PREFIX/storaged/etcd/`, lies what this implementation needs for itself.

use crate::keys::ROOT;
use crate::store::{Change, Compare, CoordinationError, Entry, LeaseId};

use super::messages::{
    Condition, DeleteRequest, KeyValue, Operation, PutRequest, RangeRequest, Relation, Target, condition,
    operation,
};
use super::numbering::Numbering;

/// An etcd revision that no key has.
const NEVER: i64 = -1;

/// The names of keys.
pub(super) struct Layout {
    prefix: String,
    /// Under it lies what is not the users'.
    own: Vec<u8>,
    /// The record of [`Numbering`].
    pub(super) numbering: Vec<u8>,
    /// Written in every transaction: the revision that changed it last is that of the last one.
    pub(super) last: Vec<u8>,
    /// Written to make etcd tell watchers how far they are.
    pub(super) tick: Vec<u8>,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        let own = |name: &str| format!("{prefix}{ROOT}etcd/{name}").into_bytes();
        Self {
            prefix: prefix.to_owned(),
            own: own(""),
            numbering: own("numbering"),
            last: own("last"),
            tick: own("tick"),
        }
    }

    /// A transaction's mark, in one of many places.
    pub(super) fn mark(&self, instance: u64, place: u64) -> Vec<u8> {
        let mut key = self.own.clone();
        key.extend_from_slice(format!("mark/{instance:016x}/{place:08x}").as_bytes());
        key
    }

    /// A key in etcd.
    pub(super) fn key(&self, key: &str) -> Result<Vec<u8>, CoordinationError> {
        if !key.starts_with(ROOT) {
            let message = format!("the key {key:?} does not begin with {ROOT}");
            return Err(CoordinationError::Invalid(message.into()));
        }
        Ok(format!("{}{key}", self.prefix).into_bytes())
    }

    /// The key that etcd's key is, if it is one of the users'.
    pub(super) fn name(&self, key: &[u8]) -> Option<String> {
        if key.starts_with(&self.own) {
            return None;
        }
        let name = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        name.starts_with(ROOT).then(|| name.to_owned())
    }

    /// From which key up to which one a prefix reaches.
    pub(super) fn span(&self, prefix: &str) -> Result<(Vec<u8>, Vec<u8>), CoordinationError> {
        // All keys begin with the root, so a shorter prefix means all of them.
        let prefix = if ROOT.starts_with(prefix) { ROOT } else { prefix };
        let first = self.key(prefix)?;
        let end = after_all(&first);
        Ok((first, end))
    }

    /// All that is ours, our own needs included.
    pub(super) fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        let first = format!("{}{ROOT}", self.prefix).into_bytes();
        let end = after_all(&first);
        (first, end)
    }

    /// An entry, if the key is one of the users'.
    pub(super) fn entry(&self, kv: KeyValue, numbering: &Numbering) -> Option<Entry> {
        Some(Entry {
            key: self.name(&kv.key)?,
            value: kv.value.into(),
            created: numbering.revision(kv.create_revision),
            modified: numbering.revision(kv.mod_revision),
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease.cast_unsigned())),
        })
    }

    /// A condition, as etcd understands it. A revision that was lost with what was not in a backup
    /// is that of no key.
    pub(super) fn condition(
        &self,
        compare: &Compare,
        numbering: &Numbering,
    ) -> Result<Condition, CoordinationError> {
        let raw = |revision| numbering.raw(revision).unwrap_or(NEVER);
        let (key, relation, value) = match compare {
            Compare::Absent(key) => (key, Relation::Equal, condition::Value::Created(0)),
            Compare::Present(key) => (key, Relation::Greater, condition::Value::Created(0)),
            Compare::Modified(key, at) => {
                (key, Relation::Equal, condition::Value::Modified(exists(raw(*at))))
            }
            Compare::Created(key, at) => (key, Relation::Equal, condition::Value::Created(exists(raw(*at)))),
        };
        Ok(when(self.key(key)?, relation, value))
    }

    /// A change, as etcd understands it.
    pub(super) fn change(&self, change: &Change) -> Result<Operation, CoordinationError> {
        match change {
            Change::Put { key, value, lease } => Ok(put(
                self.key(key)?,
                value.to_vec(),
                lease.map_or(0, |lease| lease.0.cast_signed()),
            )),
            Change::Delete(key) => Ok(Operation {
                request: Some(operation::Request::Delete(DeleteRequest { key: self.key(key)? })),
            }),
        }
    }
}

/// Zero is what etcd compares a missing key with; nobody asks for a key that exists and has it.
fn exists(raw: i64) -> i64 {
    if raw == 0 { NEVER } else { raw }
}

/// A condition on a key.
pub(super) fn when(key: Vec<u8>, relation: Relation, value: condition::Value) -> Condition {
    let target = match value {
        condition::Value::Created(_) => Target::Created,
        condition::Value::Modified(_) => Target::Modified,
    };
    Condition {
        relation: relation.into(),
        target: target.into(),
        key,
        value: Some(value),
    }
}

/// The condition that a key was changed last at an etcd revision; zero: that it does not exist.
pub(super) fn unchanged(key: &[u8], raw: i64) -> Condition {
    when(key.to_vec(), Relation::Equal, condition::Value::Modified(raw))
}

/// Writes a key.
pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> Operation {
    Operation {
        request: Some(operation::Request::Put(PutRequest { key, value, lease })),
    }
}

/// Reads keys, as a step of a transaction.
pub(super) fn read(range: RangeRequest) -> Operation {
    Operation {
        request: Some(operation::Request::Range(range)),
    }
}

/// One key, as it is now.
pub(super) fn one(key: &[u8]) -> RangeRequest {
    RangeRequest {
        key: key.to_vec(),
        range_end: Vec::new(),
        limit: 0,
        revision: 0,
    }
}

/// The first key that is after all keys with a prefix.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All bytes are the highest: etcd's way to say "to the end".
    vec![0]
}

#[cfg(test)]
mod tests {
    //! What is ours alone is seen by nobody, and no key gets another's place.
    use super::*;

    #[test]
    fn keys_lie_under_the_prefix_and_come_back() {
        let layout = Layout::new("/site-a");
        let key = layout.key("/storaged/volume/1").unwrap();
        assert_eq!(key, b"/site-a/storaged/volume/1");
        assert_eq!(layout.name(&key).unwrap(), "/storaged/volume/1");
        assert!(layout.key("/elsewhere").is_err());
        for own in [&layout.last, &layout.numbering, &layout.tick, &layout.mark(1, 2)] {
            assert_eq!(layout.name(own), None);
        }
        assert_eq!(layout.name(b"/storaged/volume/1"), None);
    }

    #[test]
    fn a_prefix_reaches_to_its_last_key_and_no_further() {
        let layout = Layout::new("");
        let (first, end) = layout.span("/storaged/r/").unwrap();
        assert_eq!(
            (first.as_slice(), end.as_slice()),
            (b"/storaged/r/".as_slice(), b"/storaged/r0".as_slice())
        );
        assert_eq!(layout.span("/").unwrap(), layout.everything());
        assert_eq!(after_all(&[1, 255]), [2]);
        assert_eq!(after_all(&[255]), [0]);
    }

    #[test]
    fn a_revision_that_was_lost_is_that_of_no_key() {
        // etcd takes zero for the revision of a key that does not exist: it must never be asked for.
        let layout = Layout::new("");
        let record = Numbering::default()
            .raised(5, crate::store::Revision(100), 10)
            .unwrap()
            .unwrap();
        let numbering = Numbering::parse(&record, 6).unwrap();
        for lost in [0, 50, 100] {
            let compare = Compare::Modified("/storaged/a".to_owned(), crate::store::Revision(lost));
            let condition = layout.condition(&compare, &numbering).unwrap();
            assert_eq!(condition.value, Some(condition::Value::Modified(NEVER)), "{lost}");
        }
    }
}
