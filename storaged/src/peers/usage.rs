//! What the layers of a family take on all disks of the cluster: asked of every node when somebody wants to know, for each
//! disk keeps its sums itself.

use std::collections::{BTreeMap, BTreeSet};

use admin_api::volumes::Space;
use coordination::ClusterMap;
use coordination::map::Family;
use protocol::{FamilyId, LayerChain, LayerId, NodeId, VolumeId};

use super::survey::{Surveyor, named};
use super::words::{NodeUsage, USAGE};

/// The sums of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes by layer, on all disks that tell. None is zero.
    pub layers: BTreeMap<LayerId, u64>,
    /// Which disks do not tell, and why, in sentences.
    pub unknown: Vec<String>,
}

impl Usage {
    /// So many more.
    fn add(&mut self, told: &NodeUsage) {
        for (layer, bytes) in &told.layers {
            *self.layers.entry(LayerId(*layer)).or_default() += bytes;
        }
        let silent = told.silent.iter();
        self.unknown
            .extend(silent.map(|disk| format!("disk-{disk} does not answer; what it holds is left out")));
    }
}

impl Surveyor {
    /// Asks all nodes that are up and have disks.
    pub async fn usage(&self, map: &ClusterMap, family: FamilyId) -> Usage {
        let ours = self.disks.node();
        let nodes: BTreeSet<NodeId> = map.disks().values().map(|disk| disk.record.node).collect();
        let (up, down): (Vec<NodeId>, Vec<NodeId>) = nodes
            .into_iter()
            .filter(|node| *node != ours)
            .partition(|node| map.up().contains_key(node));
        let path = USAGE.replace("{family}", &family.0.to_string());
        let (own, others) = tokio::join!(self.disks.usage(family), self.peers.ask_all(up, &path));
        let mut usage = Usage::default();
        usage.add(&own);
        for (node, answer) in others {
            match answer {
                Ok(told) => usage.add(&told),
                Err(why) => usage.unknown.push(untold(map, node, &why)),
            }
        }
        let down = down.into_iter().map(|node| untold(map, node, "it is down"));
        usage.unknown.extend(down);
        usage
    }

    /// What a volume takes, by the sums of its family, and of the one that it comes from while it moves between pools.
    pub async fn space(&self, map: &ClusterMap, id: VolumeId) -> Option<Space> {
        let moving = map.moving(id).map(|moving| moving.record.source);
        let mut space = Space::default();
        for id in [Some(id), moving].into_iter().flatten() {
            let (family, volume) = map.volume(id)?;
            let usage = self.usage(map, volume.record.family).await;
            add(&mut space, family, volume.record.head, usage);
        }
        space.unknown.sort();
        space.unknown.dedup();
        Some(space)
    }
}

/// Adds what a volume's layers take: its newest one is its own, those below are shared with snapshots and clones.
fn add(space: &mut Space, family: &Family, head: LayerId, usage: Usage) {
    let chain = family.chain(head);
    for layer in chain.iter().flat_map(LayerChain::layers) {
        let bytes = usage.layers.get(layer).copied().unwrap_or(0);
        if *layer == head {
            space.own += bytes;
        } else {
            space.shared += bytes;
        }
    }
    space.unknown.extend(usage.unknown);
}

fn untold(map: &ClusterMap, node: NodeId, why: &str) -> String {
    format!(
        "{} does not tell what its disks hold: {why}; that is left out",
        named(map, node)
    )
}

#[cfg(test)]
mod tests {
    //! What is not told is said, and not counted as nothing.
    use super::*;

    #[test]
    fn sums_of_nodes_are_added_and_silent_disks_are_named() {
        let mut usage = Usage::default();
        let told = |silent: &[u32]| NodeUsage {
            layers: vec![(3, 100), (5, 7)],
            silent: silent.to_vec(),
        };
        usage.add(&told(&[]));
        usage.add(&told(&[4]));
        assert_eq!(
            usage.layers,
            BTreeMap::from([(LayerId(3), 200), (LayerId(5), 14)])
        );
        assert_eq!(
            usage.unknown,
            ["disk-4 does not answer; what it holds is left out"]
        );
    }
}
