//! The objects in doubt: those with a write that this replica does not know to be complete (rule 6).
//!
//! The store keeps the list durably; this is its image in memory, sorted the way it is asked for:
//! by layer and placement group. It knows nothing of requests.

use std::collections::BTreeMap;

use protocol::map::{LayerUse, MapView};
use protocol::{FamilyId, LayerId, ObjectId, PgId, Stamp};

/// Objects in one page of a doubt list. 36 bytes each, so a page is 144 KiB, which fits the 256 KiB
/// that the body of a frame may have.
/// Mutants run in small worlds, whose lists must have several pages too.
pub(super) const DOUBT_PAGE: usize = if cfg!(feature = "mutants") { 2 } else { 4096 };

/// The list.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    layers: BTreeMap<(FamilyId, LayerId), LayerDoubt>,
    /// What the store remembered of families that the map does not have (yet).
    unplaced: Vec<(ObjectId, Stamp)>,
}

#[derive(Debug, Default)]
struct LayerDoubt {
    /// Whether a map of this run had the layer: one that is missing later is gone for good, while
    /// one that was never seen may only be too new for the map.
    seen: bool,
    groups: BTreeMap<PgId, BTreeMap<ObjectId, Stamp>>,
}

impl Doubt {
    /// The list as the store remembers it.
    pub(super) fn new(remembered: Vec<(ObjectId, Stamp)>) -> Self {
        Self {
            layers: BTreeMap::new(),
            unplaced: remembered,
        }
    }

    /// Puts an object in doubt. Never lowers the stamp that it is in doubt with.
    pub(super) fn add(&mut self, pg: PgId, object: ObjectId, stamp: Stamp) {
        let layer = self.layers.entry((object.family, object.layer)).or_default();
        let known = layer.groups.entry(pg).or_default().entry(object).or_default();
        *known = stamp.max(*known);
    }

    /// An object is another one now: it is in doubt at its new stamp, if it was or is to be.
    pub(super) fn replace(&mut self, pg: PgId, object: ObjectId, stamp: Stamp, doubt: bool) {
        let had = self.forget(object);
        if stamp > Stamp::ZERO && (had || doubt) {
            self.add(pg, object, stamp);
        }
    }

    /// Whether an object is in doubt.
    pub(super) fn has(&self, object: ObjectId) -> bool {
        let layer = self.layers.get(&(object.family, object.layer));
        let listed =
            layer.is_some_and(|layer| layer.groups.values().any(|group| group.contains_key(&object)));
        listed || self.unplaced.iter().any(|(other, _)| *other == object)
    }

    /// An object is gone from here, and with it what was in doubt about it.
    pub(super) fn gone(&mut self, object: ObjectId) {
        self.forget(object);
    }

    /// Nothing is here of a group any more. What was in doubt about objects that had nothing left goes with it.
    pub(super) fn group_is_gone(&mut self, is_gone: impl Fn(PgId) -> bool) {
        for layer in self.layers.values_mut() {
            layer.groups.retain(|pg, _| !is_gone(*pg));
        }
    }

    fn forget(&mut self, object: ObjectId) -> bool {
        let had = self.has(object);
        if let Some(layer) = self.layers.get_mut(&(object.family, object.layer)) {
            layer.groups.values_mut().for_each(|group| {
                group.remove(&object);
            });
        }
        self.unplaced.retain(|(other, _)| *other != object);
        had
    }

    /// One page of a layer's objects in doubt in one group, ascending, and whether there are more.
    pub(super) fn page(
        &self,
        family: FamilyId,
        layer: LayerId,
        pg: PgId,
        after: Option<ObjectId>,
    ) -> (Vec<(ObjectId, Stamp)>, bool) {
        let Some(objects) = self
            .layers
            .get(&(family, layer))
            .and_then(|layer| layer.groups.get(&pg))
        else {
            return (Vec::new(), false);
        };
        let start = match after {
            Some(object) => std::ops::Bound::Excluded(object),
            None => std::ops::Bound::Unbounded,
        };
        let mut rest = objects.range((start, std::ops::Bound::Unbounded));
        let page: Vec<_> = rest
            .by_ref()
            .take(DOUBT_PAGE)
            .map(|(object, stamp)| (*object, *stamp))
            .collect();
        (page, rest.next().is_some())
    }

    /// Takes the doubt off a layer's objects in one group whose stamp is not above `stamp`; returns
    /// them with the stamps that they were in doubt with.
    pub(super) fn settle(
        &mut self,
        family: FamilyId,
        layer: LayerId,
        pg: PgId,
        stamp: Stamp,
    ) -> Vec<(ObjectId, Stamp)> {
        let Some(objects) = self
            .layers
            .get_mut(&(family, layer))
            .and_then(|layer| layer.groups.get_mut(&pg))
        else {
            return Vec::new();
        };
        let mut settled = Vec::new();
        objects.retain(|object, at| {
            let stays = *at > stamp;
            if !stays {
                settled.push((*object, *at));
            }
            stays
        });
        settled
    }

    /// Goes over the list with a new map. A seal says that the whole layer is complete, so the doubt
    /// of sealed layers goes (returned); that of layers that are gone goes with them.
    pub(super) fn follow_map(&mut self, map: &dyn MapView) -> Vec<(ObjectId, Stamp)> {
        for (object, stamp) in std::mem::take(&mut self.unplaced) {
            match map.placement(object.family, object.index) {
                Some(pg) => self.add(pg, object, stamp),
                None => self.unplaced.push((object, stamp)),
            }
        }
        let mut settled = Vec::new();
        self.layers
            .retain(|(family, layer), doubt| match map.layer_use(*family, *layer) {
                LayerUse::Head(_) => {
                    doubt.seen = true;
                    true
                }
                LayerUse::Sealed | LayerUse::Inner => {
                    settled.extend(
                        doubt
                            .groups
                            .values()
                            .flatten()
                            .map(|(object, stamp)| (*object, *stamp)),
                    );
                    false
                }
                LayerUse::Unknown => !doubt.seen,
            });
        settled
    }

    /// Some object in doubt and its stamp, for eyes.
    pub(super) fn example(&self) -> Option<(ObjectId, Stamp)> {
        let placed = self
            .layers
            .values()
            .flat_map(|layer| layer.groups.values().flatten())
            .map(|(object, stamp)| (*object, *stamp));
        placed.chain(self.unplaced.iter().copied()).next()
    }

    /// How many objects are in doubt.
    pub(super) fn len(&self) -> usize {
        let placed = self
            .layers
            .values()
            .flat_map(|layer| layer.groups.values())
            .map(BTreeMap::len);
        placed.sum::<usize>() + self.unplaced.len()
    }
}
