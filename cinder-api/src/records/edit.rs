//! One change of records: what it goes by, and what it makes of it.
//!
//! Two rules make changes safe against each other. Whoever changes a record does so only if it is still as it was seen.
//! And what one record may be only as long as another one is so and so (a volume has no snapshot while it is deleted) is
//! kept by both sides' changing a common record: that is what [`Edit::touch`] is for.

use std::collections::BTreeMap;

use coordination::records::NewerFields;
use coordination::{Compare, Revision, Transaction};

use super::instant::Instant;
use super::quota::Usage;
use super::table::{Dated, Record, Stored, Written};
use super::tables::{Keeps, Tables, key};

/// A change that is being decided.
pub struct Edit<'a> {
    /// All records, as they are.
    pub tables: &'a Tables,
    steps: BTreeMap<String, Step>,
    usages: BTreeMap<String, Usage>,
    relied: BTreeMap<String, Revision>,
}

struct Step {
    when: Compare,
    /// The new value; nothing: the record goes.
    to: Option<Vec<u8>>,
}

impl<'a> Edit<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self {
            tables,
            steps: BTreeMap::new(),
            usages: BTreeMap::new(),
            relied: BTreeMap::new(),
        }
    }

    /// Makes a record. Fails, and is decided anew, if there is one of that identity.
    pub fn insert<R: Record>(&mut self, record: &R) {
        let key = key::<R>(record.id());
        let when = Compare::Absent(key.clone());
        self.step(key, when, Some(bytes(record, &NewerFields::default())));
    }

    /// Replaces a record that is still as it was seen.
    pub fn replace<R: Record>(&mut self, seen: &Stored<R>, to: &R) {
        let key = key::<R>(seen.id());
        let when = Compare::Modified(key.clone(), seen.revision);
        self.step(key, when, Some(bytes(to, &seen.newer)));
    }

    /// Replaces a record that is still as it was seen by what `becomes` makes of it, with the moment of the change.
    pub fn change<R: Dated>(&mut self, seen: &Stored<R>, becomes: impl FnOnce(&mut R)) -> R {
        let mut record = seen.record.clone();
        becomes(&mut record);
        record.set_updated(Instant::now());
        self.replace(seen, &record);
        record
    }

    /// The same of the record that has an identity, if there is one and `becomes` makes something else of it.
    pub fn amend<R: Dated + PartialEq>(&mut self, id: &str, becomes: impl FnOnce(&mut R))
    where
        Tables: Keeps<R>,
    {
        let Some(seen) = Keeps::<R>::table(self.tables).get(id) else {
            return;
        };
        let mut record = seen.record.clone();
        becomes(&mut record);
        if record != seen.record {
            record.set_updated(Instant::now());
            self.replace(seen, &record);
        }
    }

    /// Removes a record that is still as it was seen.
    pub fn remove<R: Record>(&mut self, seen: &Stored<R>) {
        let key = key::<R>(seen.id());
        let when = Compare::Modified(key.clone(), seen.revision);
        self.step(key, when, None);
    }

    /// Writes a record as it is, so that whoever decides by it at the same time decides anew. Nothing to do if this change
    /// writes it anyway.
    pub fn touch<R: Record>(&mut self, seen: &Stored<R>) {
        if !self.steps.contains_key(&key::<R>(seen.id())) {
            self.replace(seen, &seen.record);
        }
    }

    /// Goes on only if a record is still as it was seen, without writing it: for records that many rely on at once, and whose
    /// end is announced in a change of its own before anybody looks whether it is still needed.
    pub fn rely<R: Record>(&mut self, seen: &Stored<R>) {
        let key = key::<R>(seen.id());
        self.relied.insert(key, seen.revision);
    }

    /// Makes a record, or replaces the one of that identity.
    pub fn put<R: Record>(&mut self, record: &R)
    where
        Tables: Keeps<R>,
    {
        match Keeps::<R>::table(self.tables).get(record.id()) {
            Some(seen) => self.replace(seen, record),
            None => self.insert(record),
        }
    }

    /// What a project has, with what this change makes of it.
    pub fn usage(&mut self, project: &str) -> &mut Usage {
        let stored = self.tables.usages.get(project);
        self.usages.entry(project.to_owned()).or_insert_with(|| {
            stored.map_or_else(
                || Usage {
                    project_id: project.to_owned(),
                    ..Usage::default()
                },
                |stored| stored.record.clone(),
            )
        })
    }

    fn step(&mut self, key: String, when: Compare, to: Option<Vec<u8>>) {
        self.steps.insert(key, Step { when, to });
    }

    pub(super) fn into_transaction(mut self) -> Transaction {
        for usage in std::mem::take(&mut self.usages).into_values() {
            let stored = self.tables.usages.get(&usage.project_id);
            if stored.map(|stored| &stored.record) != Some(&usage) {
                self.put(&usage);
            }
        }
        let mut transaction = Transaction::new();
        for (key, revision) in self.relied {
            if !self.steps.contains_key(&key) {
                transaction = transaction.when(Compare::Modified(key, revision));
            }
        }
        for (key, step) in self.steps {
            transaction = transaction.when(step.when);
            transaction = match step.to {
                Some(value) => transaction.put(key, value),
                None => transaction.delete(key),
            };
        }
        transaction
    }
}

/// Records are plain data: there is nothing in them that JSON could not hold.
fn bytes<R: Record>(record: &R, newer: &NewerFields) -> Vec<u8> {
    serde_json::to_vec(&Written { record, newer }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    //! While processes of two versions run, an older one undoes nothing that a newer one has said.
    use coordination::{Change, Entry};

    use super::*;
    use crate::records::qos::QosSpecs;

    #[test]
    fn what_a_newer_program_has_said_of_a_record_stays_when_it_is_changed() {
        let written = |name: &str| {
            format!(
                r#"{{"id":"a","name":"{name}","consumer":"both","specs":{{}},"created_at":{},"tags":["x",1,null]}}"#,
                serde_json::to_string(&Instant::default()).unwrap()
            )
        };
        let key = key::<QosSpecs>("a");
        let mut tables = Tables::default();
        let entry = Entry {
            key: key.clone(),
            value: written("old").into_bytes().into(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        };
        tables.load(&entry).unwrap();
        let seen = &tables.qos.get("a").unwrap();
        let mut edit = Edit::new(&tables);
        let renamed = QosSpecs {
            name: "new".to_owned(),
            ..seen.record.clone()
        };
        edit.replace(seen, &renamed);
        let changes = edit.into_transaction().changes;
        let value = written("new").into_bytes().into();
        assert_eq!(
            changes,
            [Change::Put {
                key,
                value,
                lease: None
            }]
        );
    }
}
