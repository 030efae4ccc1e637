//! One kind of records in memory: by identity, by project and by what they belong to, each in order of their making.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coordination::Revision;
use coordination::records::NewerFields;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Instant;

/// A kind of records.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// What its keys are called. Part of the stored format.
    const KIND: &'static str;

    /// Its identity: unique among records of its kind. Letters, digits, dashes.
    fn id(&self) -> &str;

    /// The project that it belongs to; nothing for what belongs to all.
    fn project(&self) -> Option<&str> {
        None
    }

    /// What it is a part of: the volume of a snapshot.
    fn parent(&self) -> Option<&str> {
        None
    }

    /// When it was made: what listings are ordered by unless they are told otherwise.
    fn created(&self) -> Instant {
        Instant::default()
    }
}

/// A kind of records that know when they changed last.
pub trait Dated: Record {
    /// Says when it changed last.
    fn set_updated(&mut self, at: Instant);
}

/// A record as it is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<R> {
    /// The record.
    pub record: R,
    /// What a newer program says of it besides: it stays when the record is changed.
    pub newer: NewerFields,
    /// The transaction that changed it last.
    pub revision: Revision,
}

/// A record as it is written.
#[derive(Deserialize, Serialize)]
pub(super) struct Written<R, N = NewerFields> {
    #[serde(flatten)]
    pub(super) record: R,
    // After the record, which takes what it knows.
    #[serde(flatten)]
    pub(super) newer: N,
}

impl<R> std::ops::Deref for Stored<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.record
    }
}

/// Records in the order of their making; those of one moment by identity.
type Order<R> = BTreeMap<(Instant, Arc<str>), Arc<Stored<R>>>;

/// All records of one kind.
#[derive(Debug)]
pub struct Table<R> {
    by_id: HashMap<Arc<str>, Arc<Stored<R>>>,
    all: Order<R>,
    by_project: HashMap<Arc<str>, Order<R>>,
    by_parent: HashMap<Arc<str>, Order<R>>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            all: Order::<R>::new(),
            by_project: HashMap::new(),
            by_parent: HashMap::new(),
        }
    }
}

impl<R: Record> Table<R> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// One, by its identity.
    pub fn get(&self, id: &str) -> Option<&Arc<Stored<R>>> {
        self.by_id.get(id)
    }

    /// All of them, oldest first; from either end.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Stored<R>>> + Clone {
        self.of(None)
    }

    /// Those of a project, or without one all, oldest first; from either end.
    pub fn of(&self, project: Option<&str>) -> impl DoubleEndedIterator<Item = &Arc<Stored<R>>> + Clone {
        let order = match project {
            Some(project) => self.by_project.get(project),
            None => Some(&self.all),
        };
        order.into_iter().flat_map(BTreeMap::values)
    }

    /// Those of a project, oldest first.
    pub fn of_project(&self, project: &str) -> impl DoubleEndedIterator<Item = &Arc<Stored<R>>> + Clone {
        self.of(Some(project))
    }

    /// The parts of something, oldest first.
    pub fn of_parent(&self, parent: &str) -> impl DoubleEndedIterator<Item = &Arc<Stored<R>>> + Clone {
        self.by_parent.get(parent).into_iter().flat_map(BTreeMap::values)
    }

    /// Makes or replaces one.
    pub(super) fn put(&mut self, written: Written<R>, revision: Revision) {
        let Written { record, newer } = written;
        let id: Arc<str> = record.id().into();
        self.remove(&id);
        let place = (record.created(), id.clone());
        let stored = Arc::new(Stored {
            record,
            newer,
            revision,
        });
        if let Some(project) = stored.project() {
            let order = self.by_project.entry(project.into()).or_default();
            order.insert(place.clone(), stored.clone());
        }
        if let Some(parent) = stored.parent() {
            let order = self.by_parent.entry(parent.into()).or_default();
            order.insert(place.clone(), stored.clone());
        }
        self.all.insert(place, stored.clone());
        self.by_id.insert(id, stored);
    }

    /// Forgets one. Nothing to do if it is not there.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(gone) = self.by_id.remove(id) else {
            return;
        };
        let place = (gone.created(), Arc::from(id));
        self.all.remove(&place);
        take_out(&mut self.by_project, gone.project(), &place);
        take_out(&mut self.by_parent, gone.parent(), &place);
    }
}

fn take_out<R>(orders: &mut HashMap<Arc<str>, Order<R>>, key: Option<&str>, place: &(Instant, Arc<str>)) {
    let Some(key) = key else {
        return;
    };
    if let Some(order) = orders.get_mut(key) {
        order.remove(place);
        if order.is_empty() {
            orders.remove(key);
        }
    }
}
