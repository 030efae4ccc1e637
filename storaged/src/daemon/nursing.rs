//! Starts what looks after the disks while they serve: who finds out that one fails, is slow or nearly full, that a
//! node is gone, and how far one is that comes back.

use std::sync::Arc;

use coordination::map::MapWatch;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::caretaker::Caretaker;
use crate::cluster::presence::Presence;
use crate::config::Config;
use crate::departures::Departures;
use crate::disks::Disks;
use crate::events::Events;
use crate::membership::Wishes;
use crate::progress::Progress;
use crate::relocation::Relocations;
use crate::slow::Policy;
use crate::volumes::Volumes;
use crate::{absence, near_full, watchman};

/// Whom they look at, and whom they tell.
pub(super) struct Nursing {
    pub(super) disks: Arc<Disks>,
    pub(super) volumes: Arc<Volumes>,
    pub(super) map: MapWatch,
    pub(super) wishes: Wishes,
    pub(super) presence: Presence,
    pub(super) relocations: Relocations,
    pub(super) events: Events,
}

/// Whether disks that are too slow leave their groups.
pub(super) fn evicts_slow(config: &Config) -> bool {
    config.slow_disks.evict && config.evict_failed_disks
}

impl Nursing {
    /// Starts all that the configuration wants; gives how far disks are on their way back.
    pub(super) fn start(self, config: &Config, background: &mut JoinSet<()>) -> Arc<Progress> {
        let absence = absence::run(self.disks.clone(), self.map.clone(), self.wishes.clone());
        background.spawn(absence.in_current_span());
        background.spawn(self.disks.clone().follow().in_current_span());
        let node = self.presence.node();
        let caretaker = Caretaker::new(node, self.volumes.clone(), self.map.clone(), self.events.clone());
        background.spawn(caretaker.run().in_current_span());
        if config.evict_failed_disks {
            let departures = Departures {
                disks: self.disks.clone(),
                volumes: self.volumes.clone(),
                map: self.map,
                wishes: self.wishes.clone(),
                presence: self.presence,
                lease: config.node.lease,
            };
            background.spawn(departures.run().in_current_span());
        }
        if let Some(limits) = config.near_full.filter(|_| config.rebalance.enabled) {
            let keeper = near_full::Keeper {
                disks: self.disks.clone(),
                volumes: self.volumes,
                relocations: self.relocations,
                limits,
            };
            background.spawn(keeper.run().in_current_span());
        }
        let policy = Policy {
            evict: evicts_slow(config),
            ..config.slow_disks
        };
        let progress = Arc::<Progress>::default();
        let watch = watchman::run(self.disks, self.events, policy, self.wishes, progress.clone());
        background.spawn(watch.in_current_span());
        progress
    }
}
