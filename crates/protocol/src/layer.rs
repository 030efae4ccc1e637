//! The chain of layers that a read looks through, newest first.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::LayerId;

/// A layer and its ancestors, newest first, made once per tree revision and shared by all reads.
///
/// Cloning is cheap. `depth_of` is constant time, so a store that knows which layers of an object
/// exist need not walk a thousand snapshots to read one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerChain(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    layers: Vec<LayerId>,
    depth: HashMap<LayerId, usize>,
}

impl LayerChain {
    /// A chain of `layers`, newest first. A layer that is named twice counts where it is first.
    pub fn new(layers: Vec<LayerId>) -> Self {
        let mut depth = HashMap::with_capacity(layers.len());
        for (position, layer) in layers.iter().enumerate() {
            depth.entry(*layer).or_insert(position);
        }
        Self(Arc::new(Inner { layers, depth }))
    }

    /// The layers, newest first.
    pub fn layers(&self) -> &[LayerId] {
        &self.0.layers
    }

    /// How far `layer` is from the newest (0), or nothing if it is not in the chain.
    pub fn depth_of(&self, layer: LayerId) -> Option<usize> {
        self.0.depth.get(&layer).copied()
    }

    /// The newest layer, or nothing in an empty chain.
    pub fn head(&self) -> Option<LayerId> {
        self.0.layers.first().copied()
    }
}
