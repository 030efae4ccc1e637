//! Finds out which disks are to leave their groups because of what they are, and says so to those who change
//! sets: disks of this node that do not serve, and the disks of nodes whose leases have lapsed.
//!
//! An owner complains only of what keeps it waiting; nobody complains of a disk whose volumes are all closed, and
//! the next owner would wait for it. Whether a disk can be spared is not known here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin_api::disks::DiskState;
use coordination::ClusterMap;
use coordination::map::MapWatch;
use protocol::{DiskId, NodeId};
use tracing::warn;

use crate::cluster::presence::Presence;
use crate::disks::{Condition, Disks};
use crate::membership::leaving::plan_trust;
use crate::membership::{Leave, Wish, Wishes};
use crate::moment::wall_clock_ms;
use crate::slow::exile;
use crate::volumes::Volumes;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a disk that does not answer may be away before it is thought to have failed: its thread may be busy, or
/// the whole machine. One that says that it is out of service is believed at once.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long an operation of a disk's medium may take before the disk is thought to have failed: a large flush of a
/// rotating disk under load takes some seconds.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

/// What it looks at, and whom it tells.
pub struct Departures {
    /// The disks of this node.
    pub disks: Arc<Disks>,
    /// Where a good name is given back.
    pub volumes: Arc<Volumes>,
    /// The newest map.
    pub map: MapWatch,
    /// Who changes sets.
    pub wishes: Wishes,
    /// Whether the coordination store is there.
    pub presence: Presence,
    /// How long a node counts as up after its last renewal, and how long it is waited for beyond that.
    pub lease: Duration,
}

impl Departures {
    /// Looks for ever: run it as a task.
    pub async fn run(self) {
        let mut failures = Failures::default();
        let mut lapses = Lapses::default();
        loop {
            tokio::time::sleep(EVERY).await;
            let map = self.map.current();
            let now = Instant::now();
            let mut leaves = Vec::new();
            for disk in self.disks.ids().await {
                let condition = self.disks.condition(disk).await;
                leaves.extend(failures.look(disk, &condition, now));
                if exile::is_forgotten(&map, disk, wall_clock_ms()) {
                    self.trust(disk).await;
                }
            }
            let (node, reached) = (self.presence.node(), self.presence.reached_since());
            let lapsed = lapses.look(&map, node, reached, now, self.lease);
            leaves.extend(lapsed.into_iter().map(Leave::Lapsed));
            for leave in leaves.into_iter().filter(|leave| leave.matters(&map)) {
                if self.wishes.send(Wish::Leave(leave)).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn trust(&self, disk: DiskId) {
        let why = "it has been in its groups for long";
        if let Err(error) = self.volumes.carry_out(|map| Ok(plan_trust(map, disk, why))).await {
            warn!(%disk, %error, "a disk cannot be trusted again now");
        }
    }
}

/// Remembers since when disks do not serve.
#[derive(Debug, Default)]
struct Failures(BTreeMap<DiskId, Instant>);

impl Failures {
    /// What follows from how a disk of this node is.
    fn look(&mut self, disk: DiskId, condition: &Condition, now: Instant) -> Option<Leave> {
        let stands_still = condition
            .figures
            .oldest
            .filter(|oldest| *oldest >= STANDSTILL_MAX);
        if let Some(oldest) = stands_still {
            let reason = format!(
                "it stands still: an operation of its medium has taken {} s so far",
                oldest.as_secs()
            );
            return Some(Leave::Failed(disk, reason));
        }
        let serves = matches!(condition.state, DiskState::Up | DiskState::Starting);
        if serves || !condition.here {
            self.0.remove(&disk);
            return None;
        }
        let since = *self.0.entry(disk).or_insert(now);
        let sure = condition.state == DiskState::Poisoned || now >= since + SILENCE_MAX;
        let reason = condition.reason.as_deref().unwrap_or("no reason is known");
        sure.then(|| Leave::Failed(disk, format!("it does not serve ({reason})")))
    }
}

/// Remembers since when nodes are down.
#[derive(Debug, Default)]
struct Lapses(BTreeMap<NodeId, Instant>);

impl Lapses {
    /// The nodes that have been down for longer than a lease time, if it is up to this node to say so: of those
    /// that are up, the one with the lowest number does. Several that think they are do no harm.
    ///
    /// `reached`: since when the coordination store answers without a pause. While it was away nobody could renew
    /// a lease, so in the first lease time after that nobody's lapse counts (P12).
    fn look(
        &mut self,
        map: &ClusterMap,
        ours: NodeId,
        reached: Option<Instant>,
        now: Instant,
        lease: Duration,
    ) -> Vec<NodeId> {
        let is_down = |node: &NodeId| !map.up().contains_key(node);
        self.0
            .retain(|node, _| map.nodes().contains_key(node) && is_down(node));
        for node in map.nodes().keys().filter(|node| is_down(node)) {
            self.0.entry(*node).or_insert(now);
        }
        let speaks = map.up().keys().next() == Some(&ours);
        let steady = reached.is_some_and(|reached| now >= reached + lease);
        if !speaks || !steady {
            return Vec::new();
        }
        let long = self.0.iter().filter(|(_, since)| now >= **since + lease);
        long.map(|(node, _)| *node).collect()
    }
}

#[cfg(test)]
mod tests {
    //! Nobody is given up too early, and everybody in the end.
    use coordination::Revision;
    use coordination::keys::Key;
    use coordination::records::{NewerFields, NodeRecord, NodeUpRecord, encode};
    use coordination::store::{Entry, Range};

    use super::*;
    use crate::disk::Figures;

    const LEASE: Duration = Duration::from_secs(5);

    fn condition(state: DiskState) -> Condition {
        Condition {
            state,
            reason: Some("a flush failed".to_owned()),
            slow: None,
            figures: Figures::default(),
            here: true,
        }
    }

    #[test]
    fn a_disk_that_is_out_of_service_leaves_at_once_and_one_that_is_silent_after_a_while() {
        let (mut failures, now, disk) = (Failures::default(), Instant::now(), DiskId(1));
        assert_eq!(failures.look(disk, &condition(DiskState::Up), now), None);
        let leave = failures.look(disk, &condition(DiskState::Poisoned), now).unwrap();
        assert_eq!(
            leave,
            Leave::Failed(disk, "it does not serve (a flush failed)".into())
        );
        let mut failures = Failures::default();
        let silent = condition(DiskState::Down);
        assert_eq!(failures.look(disk, &silent, now), None);
        let almost = now + SILENCE_MAX.mul_f64(0.99);
        assert_eq!(failures.look(disk, &silent, almost), None);
        assert!(failures.look(disk, &silent, now + SILENCE_MAX).is_some());
    }

    #[test]
    fn a_disk_that_stands_still_leaves_though_it_answers() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let mut condition = condition(DiskState::Up);
        condition.figures.oldest = Some(STANDSTILL_MAX.mul_f64(0.99));
        assert_eq!(failures.look(DiskId(1), &condition, now), None);
        condition.figures.oldest = Some(STANDSTILL_MAX);
        let Some(Leave::Failed(_, reason)) = failures.look(DiskId(1), &condition, now) else {
            panic!("it stays");
        };
        assert!(reason.contains("has taken 30 s so far"), "{reason}");
    }

    #[test]
    fn an_answer_in_between_begins_the_silence_anew() {
        let (mut failures, now, disk) = (Failures::default(), Instant::now(), DiskId(1));
        let silent = condition(DiskState::Down);
        assert_eq!(failures.look(disk, &silent, now), None);
        assert_eq!(failures.look(disk, &condition(DiskState::Up), now), None);
        assert_eq!(failures.look(disk, &silent, now + SILENCE_MAX), None);
    }

    /// Nodes 1 to 3, of which these are up.
    fn map(up: &[u32]) -> ClusterMap {
        let node = NodeRecord {
            name: "n".into(),
            zone: String::new(),
            serial: [1; 16],
            addresses: Vec::new(),
            created_ms: 0,
            newer: NewerFields::default(),
        };
        let alive = NodeUpRecord {
            world: String::new(),
            pid: 1,
            lease_ms: 5000,
            version: String::new(),
            since_ms: 0,
            speaks: None,
        };
        let entry = |key: Key, value| Entry {
            key: key.to_text(),
            value,
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        };
        let nodes = (1..=3).map(|id| entry(Key::Node(NodeId(id)), encode(&node).unwrap()));
        let alive = up
            .iter()
            .map(|id| entry(Key::NodeUp(NodeId(*id)), encode(&alive).unwrap()));
        ClusterMap::build(&Range {
            entries: nodes.chain(alive).collect(),
            revision: Revision(1),
        })
        .unwrap()
    }

    #[test]
    fn a_node_that_is_down_for_a_lease_time_is_given_up_by_the_first_that_is_up() {
        let start = Instant::now();
        for (ours, gives_up) in [(1, false), (2, true), (3, false)] {
            let mut lapses = Lapses::default();
            let mut look = |up: &[u32], now| lapses.look(&map(up), NodeId(ours), Some(start), now, LEASE);
            assert_eq!(look(&[1, 2, 3], start), []);
            assert_eq!(look(&[2, 3], start + LEASE), [], "it is down since now");
            let found = look(&[2, 3], start + 2 * LEASE);
            assert_eq!(found == [NodeId(1)], gives_up, "{ours}: {found:?}");
            assert_eq!(look(&[1, 2, 3], start + 3 * LEASE), []);
            assert_eq!(look(&[2, 3], start + 3 * LEASE), [], "it was up in between");
        }
    }

    #[test]
    fn p12_in_the_first_lease_time_after_the_store_was_away_no_lapse_counts() {
        let start = Instant::now();
        let mut lapses = Lapses::default();
        let mut look = |reached, now| lapses.look(&map(&[2, 3]), NodeId(2), reached, now, LEASE);
        assert_eq!(look(Some(start), start), []);
        assert_eq!(look(None, start + 9 * LEASE), [], "the store is away");
        let back = start + 10 * LEASE;
        assert_eq!(look(Some(back), back + LEASE / 2), []);
        assert_eq!(look(Some(back), back + LEASE), [NodeId(1)]);
    }
}
