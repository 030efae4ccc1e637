//! How much of the disk each layer takes, in chunks with bytes: a sum that is kept in step with every change, so that
//! asking for it costs nothing, however large a volume is.
//!
//! Refuses to know which volumes a layer belongs to, and how many copies of it there are elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{CHUNK_SIZE, FamilyId, LayerId, ObjectId};

use crate::mutation::{self, Mutation};
use crate::tables::{Tables, TablesError};

/// Whose sum it is.
pub(crate) type Taker = (FamilyId, LayerId);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// None is zero.
    chunks: BTreeMap<Taker, u64>,
    /// Those that differ from the tables.
    dirty: BTreeSet<Taker>,
    /// Whether nothing that the tables have of it counts: a program that does not keep it has had the disk.
    recounted: bool,
}

/// What a checkpoint writes of it.
#[derive(Debug, Default)]
pub(crate) struct UsageChange {
    /// Whether all else that the tables have of it goes.
    pub(crate) replaces_all: bool,
    /// Chunks with bytes; zero takes the entry away.
    pub(crate) chunks: Vec<(Taker, u64)>,
}

impl Usage {
    /// As the tables have it; counted again if they do not say, or said it before their last checkpoint.
    pub(crate) fn open(tables: &Tables) -> Result<Self, TablesError> {
        if let Some(chunks) = tables.usage()? {
            return Ok(Self {
                chunks,
                ..Self::default()
            });
        }
        let chunks = tables.count_chunks()?;
        Ok(Self {
            dirty: chunks.keys().copied().collect(),
            chunks,
            recounted: true,
        })
    }

    /// A chunk of the object has bytes now.
    pub(crate) fn add(&mut self, object: ObjectId) {
        let taker = (object.family, object.layer);
        *self.chunks.entry(taker).or_default() += 1;
        self.dirty.insert(taker);
    }

    /// A chunk of the object that had bytes is about to change.
    pub(crate) fn subtract(&mut self, object: ObjectId) {
        let taker = (object.family, object.layer);
        if let Some(chunks) = self.chunks.get_mut(&taker) {
            *chunks = chunks.saturating_sub(1);
            self.dirty.insert(taker);
        }
    }

    /// What a checkpoint that begins now has to write.
    pub(crate) fn capture(&mut self) -> UsageChange {
        let dirty = std::mem::take(&mut self.dirty);
        let count = |taker: &Taker| self.chunks.get(taker).copied().unwrap_or(0);
        let chunks = dirty.iter().map(|taker| (*taker, count(taker))).collect();
        self.chunks
            .retain(|taker, chunks| *chunks > 0 || !dirty.contains(taker));
        if mutation::active(Mutation::UsageNotKept) {
            return UsageChange::default();
        }
        UsageChange {
            replaces_all: std::mem::take(&mut self.recounted),
            chunks,
        }
    }

    /// What the layers of a family take, in bytes; those that take nothing are left out.
    pub(crate) fn of(&self, family: FamilyId) -> Vec<(LayerId, u64)> {
        let all = (family, LayerId(0))..=(family, LayerId(u64::MAX));
        self.chunks
            .range(all)
            .filter(|(_, chunks)| **chunks > 0)
            .map(|((_, layer), chunks)| (*layer, chunks * u64::from(CHUNK_SIZE)))
            .collect()
    }

    /// All sums, in chunks: for the check.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Taker, u64)> + '_ {
        self.chunks
            .iter()
            .filter(|(_, chunks)| **chunks > 0)
            .map(|(taker, chunks)| (*taker, *chunks))
    }
}
