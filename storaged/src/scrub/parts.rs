//! Other nodes' parts of a check: each looks after the copies on its own disks and is asked how far it is. A node that
//! does not answer is named in the report; the check goes on without it.

use std::time::{Duration, Instant};

use admin_api::routes::fill;
use admin_api::scrubs::{FINDINGS_MAX, ScrubReport};
use admin_api::tasks::TaskState;
use coordination::{ClusterMap, Revision};
use protocol::{DiskId, NodeId};
use tokio::time::{sleep, timeout};

use super::Scrubs;
use crate::peers::Silence;
use crate::peers::words::{CHECK, CHECKS, PartBegun, PartOfCheck, PartOrder};
use crate::tasks::Worker;
use crate::volumes::OperationError;

/// How often another node is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// A node that does not answer for so long is given up: a busy one answers sooner, and one that is started again has
/// forgotten its part.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a node waits until its map shows what the asker's did. It does within milliseconds, or not soon.
const MAP_LIMIT: Duration = Duration::from_secs(1);

/// A node and those of its disks that have copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) node: NodeId,
    pub(super) disks: Vec<DiskId>,
}

/// The parts of all nodes that these disks are of.
pub(super) fn parts(map: &ClusterMap, disks: &[DiskId]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for disk in disks {
        let Some(known) = map.disks().get(disk) else {
            continue;
        };
        let node = known.record.node;
        match parts.iter_mut().find(|part| part.node == node) {
            Some(part) => part.disks.push(*disk),
            None => parts.push(Part {
                node,
                disks: vec![*disk],
            }),
        }
    }
    parts
}

impl Scrubs {
    /// Begins this node's part of a check that another one carries out; gives its task.
    pub async fn part(&self, order: &PartOrder) -> Result<u64, OperationError> {
        let mut watch = self.0.volumes.watch();
        let knows = async {
            while watch.current_and_seen().revision() < Revision(order.revision) && watch.changed().await {}
        };
        // One that does not know it yet refuses in words.
        let _ = timeout(MAP_LIMIT, knows).await;
        self.volume_here(&order.volume, order.snapshot.as_deref(), order.deep)
            .await
    }

    /// How far this node's part of a check is; nothing if it knows no such task any more.
    pub fn part_so_far(&self, task: u64) -> Option<PartOfCheck> {
        // First the task: its report is whole when it has ended.
        let known = self.0.tasks.get(task)?;
        Some(PartOfCheck {
            state: known.state,
            message: known.message,
            total: known.total,
            report: self.report(task)?,
        })
    }

    /// Has another node look after its copies, to the end, or says in the report why it did not.
    pub(super) async fn have_looked_after(&self, part: &Part, order: &PartOrder, worker: &Worker) {
        if let Err(why) = self.follow(part, order, worker).await {
            let map = self.0.volumes.map();
            let name = map
                .nodes()
                .get(&part.node)
                .map_or("", |node| node.record.name.as_str());
            let disks: Vec<String> = part.disks.iter().map(DiskId::to_string).collect();
            self.miss(
                worker.id(),
                format!(
                    "{} ({name}) did not look after all of its copies, on {}: {why}",
                    part.node,
                    disks.join(", ")
                ),
            );
        }
    }

    /// Says in a report what was not looked at.
    pub(super) fn miss(&self, task: u64, sentence: String) {
        if let Some(report) = self.reports().get_mut(&task) {
            report.silent.push(sentence);
        }
    }

    async fn follow(&self, part: &Part, order: &PartOrder, worker: &Worker) -> Result<(), String> {
        let begun = self.0.peers.post::<PartBegun>(part.node, CHECKS, order).await;
        let begun = begun.map_err(|silence| silence.to_string())?;
        self.takes_part(worker.id(), part);
        let path = fill(CHECK, &[&begun.task.to_string()]);
        let mut heard = Instant::now();
        let (mut known, mut expected) = (ScrubReport::default(), 0);
        loop {
            sleep(LOOK).await;
            let so_far: PartOfCheck = match self.0.peers.get(part.node, &path).await {
                Ok(so_far) => so_far,
                Err(Silence::Late | Silence::Broken(_)) if heard.elapsed() < PATIENCE => continue,
                Err(silence) => return Err(silence.to_string()),
            };
            heard = Instant::now();
            worker.expect(so_far.total.saturating_sub(expected));
            expected = expected.max(so_far.total);
            worker.advance(so_far.report.objects.saturating_sub(known.objects));
            if let Some(report) = self.reports().get_mut(&worker.id()) {
                merge(report, &known, &so_far.report);
            }
            known = so_far.report;
            match so_far.state {
                TaskState::Running => {}
                TaskState::Done => return Ok(()),
                TaskState::Failed => return Err(so_far.message),
            }
        }
    }

    /// Its disks are looked after, and no more only compared with.
    fn takes_part(&self, task: u64, part: &Part) {
        if let Some(report) = self.reports().get_mut(&task) {
            let has = |disk: &u32| part.disks.contains(&DiskId(*disk));
            report.elsewhere.retain(|disk| !has(disk));
            report.disks.extend(part.disks.iter().map(|disk| disk.0));
            report.disks.sort_unstable();
        }
    }
}

/// Adds what a node found since it was asked last.
fn merge(report: &mut ScrubReport, before: &ScrubReport, now: &ScrubReport) {
    let more = |now: u64, before: u64| now.saturating_sub(before);
    report.objects += more(now.objects, before.objects);
    report.blocks += more(now.blocks, before.blocks);
    report.mended += more(now.mended, before.mended);
    report.unmended += more(now.unmended, before.unmended);
    report.differing += more(now.differing, before.differing);
    report.skipped += more(now.skipped, before.skipped);
    let room = FINDINGS_MAX.saturating_sub(report.findings.len());
    let found = now.findings.iter().skip(before.findings.len());
    report.findings.extend(found.take(room).cloned());
}

#[cfg(test)]
mod tests {
    //! Reports of several nodes are added up, each thing once.
    use admin_api::scrubs::{FindingKind, ScrubFinding};
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    fn finding(message: &str) -> ScrubFinding {
        ScrubFinding {
            disk: 1,
            kind: FindingKind::Mended,
            volumes: Vec::new(),
            snapshots: Vec::new(),
            offset: 0,
            length: 4096,
            message: message.to_owned(),
        }
    }

    #[test]
    fn what_a_node_found_is_added_once_however_often_it_is_asked() {
        let mut report = ScrubReport {
            objects: 10,
            findings: vec![finding("ours")],
            ..ScrubReport::default()
        };
        let none = ScrubReport::default();
        let first = ScrubReport {
            objects: 3,
            mended: 1,
            findings: vec![finding("theirs")],
            ..ScrubReport::default()
        };
        let second = ScrubReport {
            objects: 5,
            mended: 2,
            findings: vec![finding("theirs"), finding("another")],
            ..ScrubReport::default()
        };
        merge(&mut report, &none, &first);
        merge(&mut report, &first, &second);
        assert_eq!((report.objects, report.mended), (15, 2));
        let told: Vec<_> = report
            .findings
            .iter()
            .map(|finding| finding.message.as_str())
            .collect();
        assert_eq!(told, ["ours", "theirs", "another"]);
    }

    #[test]
    fn each_node_is_asked_once_for_all_of_its_disks() {
        let map = fixture::map_on_two_nodes(SlotState::InSync, None);
        let parts = parts(&map, &[DiskId(1), DiskId(2), DiskId(3)]);
        let told: Vec<_> = parts.iter().map(|part| (part.node.0, part.disks.len())).collect();
        assert_eq!(told, [(1, 2), (2, 1)]);
    }
}
