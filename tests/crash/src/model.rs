//! What a store must show: a few layers of one object as plain maps. No log, no chunks, no disk.

use std::collections::BTreeMap;

use protocol::Stamp;
use protocol::geometry::BLOCKS_PER_CHUNK as CHUNK;
use protocol::rows::{RowPlace, is_rows};
use protocol::storage::{Change, StorageRequest};

use crate::operation::{BLOCK, BLOCKS, LAYERS, value};

/// One layer's object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Its stamp.
    pub stamp: Stamp,
    /// The blocks that it holds; 0 is a block of zeros.
    pub blocks: BTreeMap<u32, u64>,
    /// The stamp of each chunk.
    pub chunks: BTreeMap<u32, Stamp>,
}

impl Layer {
    /// Takes away the chunks of which this is said, by number and stamp.
    fn forget(&mut self, gone: impl Fn(u32, Stamp) -> bool) {
        let is_gone = |chunk: u32, chunks: &BTreeMap<u32, Stamp>| {
            chunks.get(&chunk).is_some_and(|stamp| gone(chunk, *stamp))
        };
        self.blocks
            .retain(|block, _| !is_gone(block / CHUNK, &self.chunks));
        self.chunks.retain(|chunk, stamp| !gone(*chunk, *stamp));
    }
}

/// What is known of an object's doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It was taken off, which is not logged: after a crash it may be there again.
    Settled,
    /// It is there, and stays there.
    Certain,
}

/// All that a scenario can change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// By number, from 1; one that does not exist is absent.
    pub layers: BTreeMap<u64, Layer>,
    /// The rows objects beside them.
    pub rows: BTreeMap<u64, Layer>,
    /// The highest generation.
    pub generation: u64,
    /// The highest interval.
    pub interval: u64,
    /// Layers whose object is in doubt, or was before it was settled.
    pub doubts: BTreeMap<u64, Doubt>,
}

/// What can be seen of a store or a model from outside. Two that are seen alike are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// For each chain that begins at layer 1, 2, 3: the value of each block.
    pub chains: Vec<Vec<u64>>,
    /// Each layer's stamp.
    pub stamps: Vec<Stamp>,
    /// That of each layer's rows.
    pub rows: Vec<Stamp>,
    /// The highest generation and interval.
    pub highest: (u64, u64),
    /// Layers whose object is in doubt, with its stamp.
    pub doubts: BTreeMap<u64, Stamp>,
    /// Of a model only: doubts that may be there too.
    pub settled: BTreeMap<u64, Stamp>,
}

impl View {
    /// Whether a store that is as this says may show that.
    pub fn allows(&self, seen: &Self) -> bool {
        let known = |(layer, stamp): (&u64, &Stamp)| {
            let may = self.doubts.get(layer).or_else(|| self.settled.get(layer));
            may == Some(stamp)
        };
        self.chains == seen.chains
            && self.stamps == seen.stamps
            && self.rows == seen.rows
            && self.highest == seen.highest
            && self.doubts.keys().all(|layer| seen.doubts.contains_key(layer))
            && seen.doubts.iter().all(known)
    }

    /// In which respects something seen is not this, for people.
    pub fn difference(&self, seen: &Self) -> String {
        let mut found = Vec::new();
        if self.chains != seen.chains {
            let chains = self.chains.iter().zip(&seen.chains).enumerate();
            for (number, (expected, shown)) in chains.filter(|(_, (expected, shown))| expected != shown) {
                let blocks = expected.iter().zip(shown).enumerate();
                let unequal: Vec<_> = blocks
                    .filter(|(_, (expected, shown))| expected != shown)
                    .collect();
                found.push(format!(
                    "chain of layer {}: (block, (expected, shown)) {unequal:?}",
                    number + 1
                ));
            }
        }
        if self.stamps != seen.stamps || self.highest != seen.highest {
            found.push(format!("stamps {:?}, not {:?}", seen.stamps, self.stamps));
        }
        if self.rows != seen.rows {
            found.push(format!("stamps of rows {:?}, not {:?}", seen.rows, self.rows));
        }
        if self.doubts != seen.doubts {
            let (doubts, settled) = (&self.doubts, &self.settled);
            found.push(format!(
                "doubts {:?}, not {doubts:?} (settled: {settled:?})",
                seen.doubts
            ));
        }
        found.join(", ")
    }

    /// Notes that a layer's object was settled, whenever that takes effect.
    pub fn settle(&mut self, layer: u64) {
        self.settled.extend(self.doubts.remove_entry(&layer));
    }
}

impl Model {
    /// Does what a request says.
    pub fn apply(&mut self, request: &StorageRequest) {
        match request {
            StorageRequest::Write(write) => {
                let rows = is_rows(write.object.index);
                let layers = if rows { &mut self.rows } else { &mut self.layers };
                let layer = layers.entry(write.object.layer.0).or_default();
                layer.stamp = write.stamp;
                let blocks = write.range.blocks();
                let touched = |chunk| blocks.clone().any(|block| block / CHUNK == chunk);
                layer.forget(|chunk, stamp| touched(chunk) && stamp < write.floor);
                for (at, number) in write.range.blocks().enumerate() {
                    let value = match &write.change {
                        Change::Zero => 0,
                        Change::Data { bytes, .. } => {
                            value(&bytes[at * BLOCK..(at + 1) * BLOCK]).unwrap_or(0)
                        }
                    };
                    layer.blocks.insert(number, value);
                    layer.chunks.insert(number / CHUNK, write.stamp);
                }
                if !rows {
                    self.doubt(write.object.layer.0);
                }
            }
            StorageRequest::Level { delta, .. } | StorageRequest::Replace { delta, .. } => {
                let rows = is_rows(delta.object.index);
                let layers = if rows { &mut self.rows } else { &mut self.layers };
                let layer = layers.entry(delta.object.layer.0).or_default();
                layer.stamp = delta.stamp;
                if matches!(request, StorageRequest::Replace { .. }) {
                    let named = |chunk| delta.chunks.iter().any(|state| u32::from(state.chunk) == chunk);
                    layer.forget(|chunk, _| named(chunk));
                }
                let mut bytes = delta.bytes.chunks(BLOCK);
                for state in delta.chunks.iter().filter(|state| state.present != 0) {
                    layer.chunks.insert(u32::from(state.chunk), state.stamp);
                    for number in (0..16).filter(|number| state.present >> number & 1 == 1) {
                        let zero = state.zero >> number & 1 == 1;
                        let found = if zero {
                            0
                        } else {
                            bytes.next().and_then(value).unwrap_or(0)
                        };
                        layer.blocks.insert(u32::from(state.chunk) * 16 + number, found);
                    }
                }
                if !rows {
                    self.doubt(delta.object.layer.0);
                }
            }
            StorageRequest::Merge {
                parent,
                child,
                row_chunks,
                ..
            } => {
                let Some(mut old) = self.layers.remove(&parent.0) else {
                    return;
                };
                if let Some(row_chunks) = row_chunks {
                    let both = [parent, child].map(|layer| self.rows.get(&layer.0));
                    old.forget(|chunk, stamp| {
                        let row = chunk / u32::from(*row_chunks);
                        let places = both.iter().flatten().flat_map(|rows| &rows.chunks);
                        let mut newer = places.filter(|(_, written)| **written > stamp);
                        newer.any(|(place, _)| RowPlace::of_chunk(*place).0 == row)
                    });
                }
                let new = self.layers.entry(child.0).or_default();
                for (number, value) in old.blocks {
                    new.blocks.entry(number).or_insert(value);
                }
                for (number, stamp) in old.chunks {
                    new.chunks.entry(number).or_insert(stamp);
                }
                if let Some(doubt) = self.doubts.remove(&parent.0) {
                    let of_child = self.doubts.entry(child.0).or_insert(doubt);
                    *of_child = doubt.max(*of_child);
                }
            }
            StorageRequest::Drop(object) => {
                self.layers.remove(&object.layer.0);
                self.doubts.remove(&object.layer.0);
            }
            StorageRequest::Settle(objects) => {
                for (object, _) in objects {
                    if let Some(doubt) = self.doubts.get_mut(&object.layer.0) {
                        *doubt = Doubt::Settled;
                    }
                }
            }
            StorageRequest::RaiseGeneration(_, generation) => {
                self.generation = self.generation.max(generation.0);
            }
            StorageRequest::RaiseInterval(_, interval) => self.interval = self.interval.max(interval.0),
            _ => {}
        }
    }

    fn doubt(&mut self, layer: u64) {
        self.doubts.insert(layer, Doubt::Certain);
    }

    /// What is seen of it.
    pub fn view(&self) -> View {
        let through = |head: u64| {
            let block = |number| {
                let layers = (1..=head).rev().filter_map(|layer| self.layers.get(&layer));
                layers
                    .filter_map(|layer| layer.blocks.get(&number))
                    .copied()
                    .next()
                    .unwrap_or(0)
            };
            (0..BLOCKS).map(block).collect()
        };
        let doubts = |wanted| {
            let known = self.doubts.iter().filter(move |(_, doubt)| **doubt == wanted);
            known.map(|(layer, _)| (*layer, self.stamp(*layer))).collect()
        };
        View {
            chains: (1..=LAYERS).map(through).collect(),
            stamps: (1..=LAYERS).map(|layer| self.stamp(layer)).collect(),
            rows: (1..=LAYERS).map(|layer| self.rows_stamp(layer)).collect(),
            highest: (self.generation, self.interval),
            doubts: doubts(Doubt::Certain),
            settled: doubts(Doubt::Settled),
        }
    }

    /// The stamp of a layer's rows.
    pub fn rows_stamp(&self, layer: u64) -> Stamp {
        self.rows.get(&layer).map_or(Stamp::ZERO, |layer| layer.stamp)
    }

    /// A layer's stamp.
    pub fn stamp(&self, layer: u64) -> Stamp {
        self.layers.get(&layer).map_or(Stamp::ZERO, |layer| layer.stamp)
    }
}
