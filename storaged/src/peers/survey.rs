//! How all disks of the cluster are, at about this moment: each node is asked for its own, all at once, with a deadline.
//! A node that does not answer has disks of which nothing is known, which is not the same as nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::disks::DiskState;
use coordination::ClusterMap;
use protocol::{DiskId, NodeId};
use tokio::sync::Mutex;

use super::Peers;
use super::words::{DISKS, DiskReport, NodeDisks};
use crate::disks::Disks;

/// So old may the answer of another node be for who looks at disks. Scripts that ask in a loop, and several people at
/// once, cost one question.
pub const FRESH: Duration = Duration::from_secs(1);
/// So old may it be for who wants to know a pool's room: hypervisors ask for that every few seconds, on each node.
pub const ROOM_FRESH: Duration = Duration::from_secs(10);
/// So long a node that did not answer is not asked again.
const SILENT_FRESH: Duration = Duration::from_secs(1);

/// All disks that somebody asked for.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// By number.
    pub disks: BTreeMap<DiskId, Surveyed>,
    /// Nodes that are up and do not tell, and why, in a sentence.
    pub silent: Vec<String>,
}

/// What is known of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// How it is: of a disk whose node does not tell, what the map shows.
    pub report: DiskReport,
    /// Why its figures are not known, in a sentence.
    pub unknown: Option<String>,
    /// How old this is.
    pub age: Duration,
}

/// Asks. Cheap to share.
pub struct Surveyor {
    pub(super) peers: Peers,
    pub(super) disks: Arc<Disks>,
    /// What others told last. Held while they are asked, so that each is asked once by all who want to know.
    told: Mutex<BTreeMap<NodeId, Told>>,
}

struct Told {
    at: Instant,
    answer: Result<Vec<DiskReport>, String>,
}

impl Told {
    fn is_good(&self, max_age: Duration) -> bool {
        let limit = match self.answer {
            Ok(_) => max_age,
            Err(_) => max_age.min(SILENT_FRESH),
        };
        self.at.elapsed() <= limit
    }
}

impl Surveyor {
    /// Asks these disks, and others over this way.
    pub fn new(peers: Peers, disks: Arc<Disks>) -> Self {
        Self {
            peers,
            disks,
            told: Mutex::default(),
        }
    }

    /// How all disks are; of other nodes' disks, at most so long ago.
    pub async fn all(&self, max_age: Duration) -> Survey {
        let map = self.disks.map();
        let all = map.disks().keys().copied().collect();
        self.of(&map, &all, max_age).await
    }

    /// How these disks are; of other nodes' disks, at most so long ago.
    pub async fn of(&self, map: &ClusterMap, wanted: &BTreeSet<DiskId>, max_age: Duration) -> Survey {
        let ours = self.disks.node();
        let node_of = |disk: &DiskId| map.disks().get(disk).map(|disk| disk.record.node);
        let nodes: BTreeSet<NodeId> = wanted.iter().filter_map(node_of).collect();
        let (own, told) = tokio::join!(self.own(nodes.contains(&ours)), self.others(map, &nodes, max_age));
        let mut survey = Survey::default();
        for id in wanted {
            let Some(node) = node_of(id) else { continue };
            let surveyed = if node == ours {
                found(&own, *id)
                    .map_or_else(|| not_run(map, *id, node), |report| known(report, Duration::ZERO))
            } else {
                match told.get(&node) {
                    Some((age, Ok(reports))) => found(reports, *id)
                        .map_or_else(|| not_run(map, *id, node), |report| known(report, *age)),
                    Some((_, Err(why))) => unknown(map, *id, node, why),
                    None => unknown(map, *id, node, "it is down"),
                }
            };
            survey.disks.insert(*id, surveyed);
        }
        for (node, (_, answer)) in &told {
            if let Err(why) = answer {
                survey.silent.push(format!(
                    "{} does not tell how its disks are: {why}; their figures are left out",
                    named(map, *node)
                ));
            }
        }
        survey
    }

    async fn own(&self, wanted: bool) -> Vec<DiskReport> {
        if wanted {
            self.disks.reports().await
        } else {
            Vec::new()
        }
    }

    /// What other nodes that are up say, and how old that is.
    async fn others(
        &self,
        map: &ClusterMap,
        nodes: &BTreeSet<NodeId>,
        max_age: Duration,
    ) -> BTreeMap<NodeId, (Duration, Result<Vec<DiskReport>, String>)> {
        let ours = self.disks.node();
        let others: Vec<NodeId> = nodes
            .iter()
            .filter(|node| **node != ours && map.up().contains_key(node))
            .copied()
            .collect();
        if others.is_empty() {
            return BTreeMap::new();
        }
        let mut told = self.told.lock().await;
        told.retain(|node, _| map.nodes().contains_key(node));
        let stale = |node: &&NodeId| told.get(node).is_none_or(|told| !told.is_good(max_age));
        let asked: Vec<NodeId> = others.iter().filter(stale).copied().collect();
        for (node, answer) in self.peers.ask_all::<NodeDisks>(asked, DISKS).await {
            let answer = answer.map(|told| told.disks);
            told.insert(
                node,
                Told {
                    at: Instant::now(),
                    answer,
                },
            );
        }
        let of = |node: NodeId| {
            let told = told.get(&node)?;
            Some((node, (told.at.elapsed(), told.answer.clone())))
        };
        others.into_iter().filter_map(of).collect()
    }
}

fn found(reports: &[DiskReport], id: DiskId) -> Option<DiskReport> {
    reports.iter().find(|report| report.disk == id.0).cloned()
}

fn known(report: DiskReport, age: Duration) -> Surveyed {
    let unknown = report.room.is_none().then(|| {
        let reason = report.reason.as_deref().unwrap_or("it does not say");
        format!("the disk does not serve: {reason}")
    });
    Surveyed { report, unknown, age }
}

/// A disk of a node that does not tell.
fn unknown(map: &ClusterMap, id: DiskId, node: NodeId, why: &str) -> Surveyed {
    let up = map.up().contains_key(&node);
    let named = named(map, node);
    Surveyed {
        report: DiskReport {
            disk: id.0,
            state: if up { DiskState::Up } else { DiskState::Down },
            reason: (!up).then(|| format!("{named} is down")),
            slow: None,
            capacity: map.disks().get(&id).and_then(|disk| disk.record.capacity),
            room: None,
            complaints: Vec::new(),
        },
        unknown: Some(format!("{named} does not tell: {why}")),
        age: Duration::ZERO,
    }
}

/// A disk that its node, which answers, does not have.
fn not_run(map: &ClusterMap, id: DiskId, node: NodeId) -> Surveyed {
    let why = format!("{} has not opened it", named(map, node));
    Surveyed {
        report: DiskReport {
            state: DiskState::Starting,
            reason: Some(why.clone()),
            ..unknown(map, id, node, &why).report
        },
        unknown: Some(why),
        age: Duration::ZERO,
    }
}

/// A node's number and name.
pub(super) fn named(map: &ClusterMap, node: NodeId) -> String {
    match map.nodes().get(&node) {
        Some(known) if !known.record.name.is_empty() => format!("{node} ({})", known.record.name),
        _ => node.to_string(),
    }
}

#[cfg(test)]
mod tests {
    //! What nobody tells is unknown, and never nothing.
    use protocol::session::SlotState;

    use super::*;
    use crate::membership::fixture;

    #[test]
    fn a_disk_whose_node_is_down_or_silent_has_no_figures_and_says_why() {
        let map = fixture::map_of_nodes(3, &[1, 2], SlotState::InSync);
        let node = |disk: u32| map.disks()[&DiskId(disk)].record.node;
        let silent = unknown(&map, DiskId(2), node(2), "it did not answer");
        assert_eq!((silent.report.state, &silent.report.room), (DiskState::Up, &None));
        assert!(silent.unknown.unwrap().contains("did not answer"));
        let down = unknown(&map, DiskId(3), node(3), "it is down");
        assert_eq!(down.report.state, DiskState::Down);
        assert!(down.report.reason.unwrap().contains("is down"));
        let starts = not_run(&map, DiskId(1), node(1));
        assert_eq!(starts.report.state, DiskState::Starting);
        assert!(starts.unknown.is_some());
    }

    #[test]
    fn an_answer_is_good_for_as_long_as_the_asker_says_and_a_silence_for_a_moment_only() {
        let old = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        let told = |answer| Told { at: old, answer };
        assert!(told(Ok(Vec::new())).is_good(ROOM_FRESH));
        assert!(!told(Ok(Vec::new())).is_good(FRESH));
        assert!(!told(Err("it is away".to_owned())).is_good(ROOM_FRESH));
    }
}
