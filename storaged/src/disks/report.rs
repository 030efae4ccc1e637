//! How this node's disks are, in the words in which other nodes are told, and what is not as it should be with them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use admin_api::disks::DiskState;
use admin_api::sizes::format_size;
use coordination::records::DiskRecord;
use protocol::{DiskId, FamilyId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ANSWER_LIMIT, Condition, Disks, capacity_of};
use crate::peers::words::{DiskReport, NodeUsage, Room};

/// Of its room, in percent: a disk with less left is told of.
const NEARLY_FULL_PERCENT: u64 = 10;
/// An operation of a disk's medium that takes so long is told of: guests notice it.
const STANDSTILL: Duration = Duration::from_secs(3);

impl Disks {
    /// How all disks of this node are. They are asked at the same time: those that stand still cost no more than one.
    pub async fn reports(self: &Arc<Self>) -> Vec<DiskReport> {
        let map = self.map();
        let mut asked = JoinSet::new();
        for id in self.ids().await {
            let Some(disk) = map.disks().get(&id) else {
                continue;
            };
            let (this, record) = (Arc::clone(self), disk.record.clone());
            asked.spawn(async move { report(id, &record, this.condition(id).await) });
        }
        let mut reports = Vec::new();
        while let Some(report) = asked.join_next().await {
            reports.extend(report);
        }
        reports.sort_by_key(|report: &DiskReport| report.disk);
        reports
    }

    /// What the layers of a family take on all disks of this node.
    pub async fn usage(self: &Arc<Self>, family: FamilyId) -> NodeUsage {
        let mut asked = JoinSet::new();
        for id in self.ids().await {
            let this = Arc::clone(self);
            asked.spawn(async move {
                let told = async { this.remote(id).await?.usage(family).await.ok() };
                (id, timeout(ANSWER_LIMIT, told).await.ok().flatten())
            });
        }
        let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
        let mut silent = Vec::new();
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((_, Some(layers))) => {
                    for (layer, bytes) in layers {
                        *sums.entry(layer.0).or_default() += bytes;
                    }
                }
                Ok((id, None)) => silent.push(id.0),
                Err(_) => {}
            }
        }
        silent.sort_unstable();
        NodeUsage {
            layers: sums.into_iter().collect(),
            silent,
        }
    }
}

fn report(id: DiskId, record: &DiskRecord, condition: Condition) -> DiskReport {
    let complaints = complaints(id, &condition);
    let store = condition.figures.store;
    let answers = matches!(condition.state, DiskState::Up | DiskState::Poisoned);
    DiskReport {
        disk: id.0,
        state: condition.state,
        reason: condition.reason,
        slow: condition.slow,
        // A disk without a limit of its own has what its file system has.
        capacity: capacity_of(Path::new(&record.path), record.capacity).ok(),
        room: answers.then(|| Room {
            used: store.used_bytes,
            free: store.free_bytes,
            log_used: store.log_used_bytes,
            log_size: store.log_bytes,
            medium: store.medium.to_owned(),
        }),
        complaints,
    }
}

/// What is not as it should be with a disk that serves.
fn complaints(id: DiskId, condition: &Condition) -> Vec<String> {
    let mut complaints = Vec::new();
    if condition.state != DiskState::Up {
        return complaints;
    }
    if let Some(oldest) = condition.figures.oldest.filter(|oldest| *oldest >= STANDSTILL) {
        complaints.push(format!(
            "{id} stands still: an operation of its medium has taken {} s so far",
            oldest.as_secs()
        ));
    }
    let store = &condition.figures.store;
    if store.free_bytes < store.used_bytes.saturating_add(store.free_bytes) / 100 * NEARLY_FULL_PERCENT {
        let free = format_size(store.free_bytes);
        complaints.push(format!(
            "{id} has only {free} of room: delete something, or add disks"
        ));
    }
    if store.damaged_blocks > 0 {
        complaints.push(format!(
            "{id} found {} damaged blocks: replace it soon",
            store.damaged_blocks
        ));
    }
    complaints.extend(scrubbed(id, condition));
    complaints
}

/// What a disk's scrubs could not put right since it was started.
fn scrubbed(id: DiskId, condition: &Condition) -> Option<String> {
    let found = condition.figures.scrubbed;
    let damaged =
        (found.unmended > 0).then(|| format!("{} damaged blocks without a good copy", found.unmended));
    let differing =
        (found.differing > 0).then(|| format!("{} objects that differ from other copies", found.differing));
    let all: Vec<String> = damaged.into_iter().chain(differing).collect();
    (!all.is_empty()).then(|| {
        format!(
            "a scrub of {id} found {}: see storagectl events",
            all.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    //! A disk tells of what is wrong with it, and a disk that does not serve has no figures rather than zeros.
    use super::*;
    use crate::disk::Figures;

    fn condition(state: DiskState) -> Condition {
        let mut figures = Figures::default();
        (figures.store.used_bytes, figures.store.free_bytes) = (10, 90);
        Condition {
            state,
            reason: None,
            slow: None,
            figures,
            here: true,
        }
    }

    #[test]
    fn what_a_scrub_could_not_put_right_is_told_of_and_what_it_did_is_not() {
        let mut condition = condition(DiskState::Up);
        condition.figures.scrubbed.mended = 3;
        assert_eq!(complaints(DiskId(1), &condition), Vec::<String>::new());
        condition.figures.scrubbed.unmended = 2;
        assert_eq!(
            complaints(DiskId(1), &condition),
            ["a scrub of disk-1 found 2 damaged blocks without a good copy: see storagectl events"]
        );
    }

    #[test]
    fn a_disk_that_does_not_serve_has_no_figures_and_one_that_is_nearly_full_says_so() {
        let record = DiskRecord {
            node: protocol::NodeId(1),
            path: "/".to_owned(),
            weight: 1,
            share: None,
            draining: false,
            addresses: Vec::new(),
            capacity: Some(100),
            created_ms: 0,
            newer: coordination::records::NewerFields::default(),
        };
        let down = report(DiskId(1), &record, condition(DiskState::Down));
        assert_eq!((down.room, down.capacity), (None, Some(100)));
        let mut full = condition(DiskState::Up);
        (full.figures.store.used_bytes, full.figures.store.free_bytes) = (9_600, 400);
        let told = report(DiskId(1), &record, full);
        assert_eq!(told.room.unwrap().free, 400);
        assert!(told.complaints[0].contains("of room"), "{:?}", told.complaints);
    }
}
