//! What differs from what is remembered, as changes that put it back. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use coordination::keys::ISCSI;
use coordination::map::Records;
use coordination::{Compare, Revision, Transaction};

/// One record to put back, or to delete again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    key: String,
    value: Option<Arc<[u8]>>,
    /// How the store has it now.
    condition: Compare,
}

/// What differs from what is remembered of the time before `seen`, and was not changed since the store went back. What
/// others build upon comes first: layers before the volumes whose heads they are.
pub(super) fn changes(remembered: &Records, now: &Records, seen: Revision) -> Vec<Change> {
    // Of a node whose program knew nothing of iSCSI when it wrote them down: that it remembers no target says nothing.
    let knows_iscsi = remembered.keys().any(|key| key.starts_with(ISCSI));
    let keys: BTreeSet<&String> = remembered.keys().chain(now.keys()).collect();
    let mut puts = Vec::new();
    let mut deletions = Vec::new();
    for key in keys {
        let (old, new) = (remembered.get(key), now.get(key));
        let touched = new.and_then(|new| new.modified).is_some_and(|at| at > seen);
        if touched || old.map(|old| &old.value) == new.map(|new| &new.value) {
            continue;
        }
        let condition = match new.map(|new| new.modified) {
            None => Compare::Absent(key.clone()),
            Some(Some(at)) => Compare::Modified(key.clone(), at),
            Some(None) => Compare::Present(key.clone()),
        };
        let key = key.clone();
        match old {
            Some(old) => puts.push(Change {
                key,
                value: Some(old.value.clone()),
                condition,
            }),
            None if key.starts_with(ISCSI) && !knows_iscsi => {}
            None => deletions.push(Change {
                key,
                value: None,
                condition,
            }),
        }
    }
    puts.into_iter().chain(deletions).collect()
}

pub(super) fn transaction(changes: &[Change]) -> Transaction {
    let mut transaction = Transaction::new();
    for Change {
        key,
        value,
        condition,
    } in changes
    {
        transaction = transaction.when(condition.clone());
        transaction = match value {
            Some(value) => transaction.put(key.clone(), value.clone()),
            None => transaction.delete(key.clone()),
        };
    }
    transaction
}

#[cfg(test)]
mod tests {
    //! What is put back, and what is left alone.
    use coordination::map::Remembered;

    use super::*;

    fn records(all: &[(&str, &str, u64)]) -> Records {
        let record = |(key, value, at): &(&str, &str, u64)| {
            let value = value.as_bytes().into();
            let modified = (*at > 0).then_some(Revision(*at));
            ((*key).to_owned(), Remembered { value, modified })
        };
        all.iter().map(record).collect()
    }

    #[test]
    fn what_was_changed_made_or_deleted_since_the_backup_is_so_again() {
        let remembered = records(&[("group", "new", 90), ("layer", "same", 0), ("volume", "made", 95)]);
        let now = records(&[
            ("group", "old", 10),
            ("layer", "same", 0),
            ("snapshot", "deleted since", 20),
        ]);
        let all = changes(&remembered, &now, Revision(100));
        let told: Vec<_> = all
            .iter()
            .map(|change| (change.key.as_str(), change.value.is_some()))
            .collect();
        assert_eq!(told, [("group", true), ("volume", true), ("snapshot", false)]);
        assert_eq!(all[0].condition, Compare::Modified("group".into(), Revision(10)));
        assert_eq!(all[1].condition, Compare::Absent("volume".into()));
        let made = transaction(&all);
        assert_eq!((made.compares.len(), made.changes.len()), (3, 3));
    }

    #[test]
    fn who_remembers_nothing_of_iscsi_deletes_nothing_of_it() {
        let (target, other) = ("/storaged/iscsi-target/a", "/storaged/iscsi-target/b");
        let now = records(&[(target, "t", 10)]);
        assert!(changes(&records(&[("volume", "v", 5)]), &now, Revision(100)).len() == 1);
        let knows = changes(&records(&[(other, "t", 5)]), &now, Revision(100));
        let told: Vec<_> = knows.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(told, [other, target]);
    }

    #[test]
    fn what_somebody_changed_after_the_store_went_back_is_left_alone() {
        let remembered = records(&[("node", "mine", 90)]);
        let now = records(&[("node", "newer", 2_000_000)]);
        assert!(changes(&remembered, &now, Revision(100)).is_empty());
    }
}
