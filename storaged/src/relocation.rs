//! Moves placement groups to the disks where they belong: when disks come, are emptied or stay away.
//!
//! Where a group belongs follows from the disks alone (`coordination::placement`), and its next step from its
//! record (`replication::relocation`). Every node looks; the one with the lowest number of those that are up acts.
//! Two that take themselves for that do no harm: each change is on the condition that the group is as it was. How
//! the new disk gets what the others have is that disk's business.
//!
//! Few groups move at once, so that guests go first; how fast each is copied, `recovery_rate` says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::records::Severity;
use coordination::{ClusterMap, Transaction};
use protocol::{DiskId, NodeId};
use tokio::time::Instant;
use tracing::warn;

use crate::config::Rebalance;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event};

mod absent;
mod breath;
mod drain;
mod plan;
mod report;
mod wanted;

use absent::Absent;
use breath::Breath;
pub use report::Progress;
use wanted::Wanted;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// After the coordination store was away.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Moves groups, and knows how far that is. Cheap to clone.
#[derive(Clone)]
pub struct Relocations(Arc<Shared>);

struct Shared {
    volumes: Arc<Volumes>,
    node: NodeId,
    rules: Rebalance,
    progress: Mutex<Progress>,
}

/// What is remembered from look to look.
#[derive(Default)]
struct Memory {
    absent: Absent,
    wanted: Wanted,
    breath: Breath,
    /// The disks that were out when last looked at, and those that were being emptied, with their groups.
    out: BTreeSet<DiskId>,
    draining: BTreeMap<DiskId, usize>,
}

impl Relocations {
    /// Works by these rules, for this node.
    pub fn new(volumes: Arc<Volumes>, node: NodeId, rules: Rebalance) -> Self {
        Self(Arc::new(Shared {
            volumes,
            node,
            rules,
            progress: Mutex::default(),
        }))
    }

    /// How far it is, by the last look.
    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Works for ever: run it as a task.
    pub async fn run(self) {
        let mut memory = Memory::default();
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.look(&mut memory).await {
                warn!(%error, "placement groups cannot be moved now");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }

    async fn look(&self, memory: &mut Memory) -> Result<(), OperationError> {
        let map = self.0.volumes.map();
        let now = Instant::now();
        memory.absent.look(&map, now);
        let out = memory.absent.out(&map, self.0.rules.down_out, now);
        memory.wanted.follow(&map, &out.disks);
        *self.lock() = Progress::of(&map, &memory.wanted, &out);
        let leads = map.up().keys().next() == Some(&self.0.node);
        if !leads || !self.0.rules.enabled {
            memory.out = out.disks;
            memory.draining = draining(&map);
            return Ok(());
        }
        self.tell(&map, memory, &out.disks).await?;
        let begins = memory.breath.may_begin(&map, now);
        let away = memory.absent.away();
        let moves = |map: &ClusterMap| plan::transaction(map, &memory.wanted, &away, begins);
        // The coordination store is not asked where nothing is to be done.
        if matches!(moves(&map)?, Decision::Unchanged(())) {
            return Ok(());
        }
        self.0.volumes.carry_out(moves).await
    }

    /// Tells people that a disk's data goes elsewhere, and that a disk is empty.
    async fn tell(
        &self,
        map: &ClusterMap,
        memory: &mut Memory,
        out: &BTreeSet<DiskId>,
    ) -> Result<(), OperationError> {
        for disk in out.difference(&memory.out) {
            let groups = map.groups_on(*disk).count();
            let message = format!(
                "{disk} has been away for too long: its {groups} placement groups get other disks where there are some"
            );
            self.say("disk_out", *disk, Severity::Warning, message).await?;
        }
        memory.out.clone_from(out);
        let now = draining(map);
        for (disk, groups) in &now {
            let before = memory.draining.get(disk);
            if *groups == 0 && before.is_some_and(|before| *before > 0) {
                let message = format!("{disk} is empty: it can be removed");
                self.say("disk_drained", *disk, Severity::Info, message).await?;
            }
        }
        memory.draining = now;
        Ok(())
    }

    async fn say(
        &self,
        kind: &str,
        disk: DiskId,
        severity: Severity,
        message: String,
    ) -> Result<(), OperationError> {
        let mut told = event(kind, disk.to_string(), message);
        told.severity = severity;
        let plan = |_: &ClusterMap| Ok(Plan::decide(Transaction::new(), told.clone(), ()));
        self.0.volumes.carry_out(plan).await
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing panics while it is held.
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disks that are being emptied, with how many groups they still have.
fn draining(map: &ClusterMap) -> BTreeMap<DiskId, usize> {
    let disks = map.disks().iter().filter(|(_, disk)| disk.record.draining);
    disks.map(|(id, _)| (*id, map.groups_on(*id).count())).collect()
}
