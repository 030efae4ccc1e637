//! What nodes ask of each other through the coordination store, and what they answer: the part of the
//! map that is about work in progress. What is asked here is carried out elsewhere.

use std::collections::BTreeMap;

use protocol::{FamilyId, LayerId, NodeId, VolumeId};

use super::{Versioned, versioned};
use crate::keys::Key;
use crate::records::{ReclaimedRecord, RecordError, RestRecord, RestedRecord, WantRecord, decode};
use crate::store::{Entry, Revision};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    wants: BTreeMap<VolumeId, Versioned<WantRecord>>,
    rests: BTreeMap<VolumeId, Versioned<RestRecord>>,
    rested: BTreeMap<VolumeId, Versioned<RestedRecord>>,
    reclaimed: BTreeMap<(FamilyId, LayerId), BTreeMap<NodeId, Revision>>,
}

impl Wishes {
    /// Volumes that somebody waits for.
    pub fn wants(&self) -> &BTreeMap<VolumeId, Versioned<WantRecord>> {
        &self.wants
    }

    /// Volumes that are to be brought to rest.
    pub fn rests(&self) -> &BTreeMap<VolumeId, Versioned<RestRecord>> {
        &self.rests
    }

    /// Volumes that are at rest.
    pub fn rested(&self) -> &BTreeMap<VolumeId, Versioned<RestedRecord>> {
        &self.rested
    }

    /// The nodes that are done with a layer that is on its way out, and the revision of the map by which they
    /// were.
    pub fn reclaimed(&self, family: FamilyId, layer: LayerId) -> impl Iterator<Item = (NodeId, Revision)> {
        let nodes = self.reclaimed.get(&(family, layer));
        nodes.into_iter().flatten().map(|(node, since)| (*node, *since))
    }

    pub(super) fn put(&mut self, key: &Key, entry: &Entry) -> Result<(), RecordError> {
        match *key {
            Key::Want(volume) => {
                self.wants.insert(volume, versioned(entry)?);
            }
            Key::Rest(volume) => {
                self.rests.insert(volume, versioned(entry)?);
            }
            Key::Rested(volume) => {
                self.rested.insert(volume, versioned(entry)?);
            }
            Key::Reclaimed(family, layer, node) => {
                let note: ReclaimedRecord = decode(entry)?;
                let nodes = self.reclaimed.entry((family, layer)).or_default();
                nodes.insert(node, Revision(note.since));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &Key) {
        match *key {
            Key::Want(volume) => {
                self.wants.remove(&volume);
            }
            Key::Rest(volume) => {
                self.rests.remove(&volume);
            }
            Key::Rested(volume) => {
                self.rested.remove(&volume);
            }
            Key::Reclaimed(family, layer, node) => {
                if let Some(nodes) = self.reclaimed.get_mut(&(family, layer)) {
                    nodes.remove(&node);
                    if nodes.is_empty() {
                        self.reclaimed.remove(&(family, layer));
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    //! Nothing of a wish stays when it is taken back.
    use super::*;
    use crate::records::encode;

    #[test]
    fn what_was_asked_is_there_until_it_is_taken_back() {
        let entry = |value| Entry {
            key: String::new(),
            value,
            created: Revision(3),
            modified: Revision(3),
            lease: None,
        };
        let volume = VolumeId(7);
        let want = WantRecord { node: NodeId(2) };
        let rest = RestRecord {
            node: NodeId(2),
            generation: 5,
            limit_ms: 10,
        };
        let rested = RestedRecord {
            generation: 5,
            asked: 3,
        };
        let reclaimed = ReclaimedRecord { done_ms: 1, since: 2 };
        let (family, layer) = (FamilyId(1), LayerId(2));
        let all = [
            (Key::Want(volume), encode(&want)),
            (Key::Rest(volume), encode(&rest)),
            (Key::Rested(volume), encode(&rested)),
            (Key::Reclaimed(family, layer, NodeId(4)), encode(&reclaimed)),
        ];
        let mut wishes = Wishes::default();
        for (key, value) in &all {
            wishes.put(key, &entry(value.clone().unwrap())).unwrap();
        }
        assert_eq!(wishes.wants()[&volume].record, want);
        assert_eq!(wishes.rests()[&volume].record, rest);
        assert_eq!(wishes.rested()[&volume].record, rested);
        assert_eq!(
            wishes.reclaimed(family, layer).collect::<Vec<_>>(),
            [(NodeId(4), Revision(2))]
        );
        for (key, _) in &all {
            wishes.delete(key);
        }
        assert_eq!(wishes, Wishes::default());
    }
}
