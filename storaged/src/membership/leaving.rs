//! Disks that leave all their groups because of what they are, whoever owns what there: one that a node knows to
//! have failed, one that is much slower than its peers, all disks of a node whose lease has lapsed.
//!
//! Nobody leaves where he is needed (rule 4). When somebody is to leave is not known here.

use coordination::keys::Key;
use coordination::records::{EventRecord, Severity, SlowRecord, encode};
use coordination::{ClusterMap, Compare, Revision, Transaction};
use protocol::{DiskId, NodeId};
use replication::membership::{Eviction, evict};

use super::{GROUPS_MAX, Outcome, with_group};
use crate::moment::wall_clock_ms;
use crate::volumes::{Decision, OperationError, Plan, event};

/// Who is to leave, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// A disk does not serve, as its own node says. The reason follows the disk's name.
    Failed(DiskId, String),
    /// A disk is much slower than its peers. The reason is a sentence about its times.
    Slow(DiskId, String),
    /// A node's lease has lapsed: all its disks.
    Lapsed(NodeId),
}

impl Leave {
    fn disks(&self, map: &ClusterMap) -> Vec<DiskId> {
        match self {
            Self::Failed(disk, _) | Self::Slow(disk, _) => vec![*disk],
            Self::Lapsed(node) => map.disks_on(*node).map(|(disk, _)| disk).collect(),
        }
    }

    /// Whether it would change anything, by this map.
    pub fn matters(&self, map: &ClusterMap) -> bool {
        matches!(plan_leave(map, self), Ok(Decision::Change(_)))
    }

    fn event(&self, map: &ClusterMap, groups: usize) -> EventRecord {
        let (subject, message) = match self {
            Self::Failed(disk, reason) => (
                disk.to_string(),
                format!("{disk} was taken out of {groups} placement groups: {reason}"),
            ),
            Self::Slow(disk, reason) => (
                disk.to_string(),
                format!("{disk} was taken out of {groups} placement groups because it is slow: {reason}"),
            ),
            Self::Lapsed(node) => {
                let name = map.nodes().get(node).map_or("", |node| node.record.name.as_str());
                let message =
                    format!("{node} ({name}) is down: its disks were taken out of {groups} placement groups");
                (node.to_string(), message)
            }
        };
        let mut told = event("disk_evicted", subject, message);
        told.severity = Severity::Error;
        told
    }
}

/// Takes the disks out of the groups that can spare them, as many as one transaction changes.
pub(super) fn plan_leave(map: &ClusterMap, leave: &Leave) -> Result<Decision<Outcome>, OperationError> {
    let mut outcome = Outcome::default();
    let mut transaction = Transaction::new();
    match leave {
        // Somebody else may see it up again by now.
        Leave::Lapsed(node) if map.up().contains_key(node) => return Ok(Decision::Unchanged(outcome)),
        Leave::Lapsed(node) => transaction = transaction.when(Compare::Absent(Key::NodeUp(*node).to_text())),
        Leave::Failed(..) | Leave::Slow(..) => {}
    }
    let disks = leave.disks(map);
    for (pool, record) in map.pools() {
        for group in map.groups(pool) {
            let mut slots = group.slots.clone();
            let mut needed = false;
            for disk in &disks {
                match evict(&slots, *disk, record.record.min_in_sync) {
                    Eviction::Down(without) => slots = without,
                    Eviction::Needed { .. } => needed = true,
                    Eviction::Absent => {}
                }
            }
            outcome.needed += usize::from(needed);
            if slots != group.slots && outcome.left < GROUPS_MAX {
                outcome.left += 1;
                transaction = with_group(transaction, group.pg, Revision(group.interval.0), slots)?;
            }
        }
    }
    if outcome.left == 0 {
        return Ok(Decision::Unchanged(outcome));
    }
    if let Leave::Slow(disk, reason) = leave {
        transaction = remembered(transaction, map, *disk, reason)?;
    }
    let told = leave.event(map, outcome.left);
    Ok(Plan::decide(transaction, told, outcome))
}

/// Notes that a disk is put out because it is slow, so that it does not come back at once. Groups that it leaves
/// in further transactions are one event.
pub(super) fn remembered(
    transaction: Transaction,
    map: &ClusterMap,
    disk: DiskId,
    reason: &str,
) -> Result<Transaction, OperationError> {
    let key = Key::Slow(disk).to_text();
    let former = map.slow().get(&disk);
    let now = wall_clock_ms();
    if former.is_some_and(|former| now.saturating_sub(former.record.since_ms) < ONE_EVENT_MS) {
        return Ok(transaction);
    }
    let record = SlowRecord {
        since_ms: now,
        times: former.map_or(0, |former| former.record.times).saturating_add(1),
        reason: reason.to_owned(),
    };
    let condition = match former {
        Some(former) => Compare::Modified(key.clone(), former.modified),
        None => Compare::Absent(key.clone()),
    };
    Ok(transaction.when(condition).put(key, encode(&record)?))
}

/// Transactions within such a time put a disk out once: many groups take several of them, and owners of several
/// volumes find out at the same time.
const ONE_EVENT_MS: u64 = 60_000;

/// Tells people that an owner finds a disk slow.
pub(super) fn tell_of_slow(disk: DiskId, reason: &str) -> Decision<()> {
    let mut told = event("disk_slow", disk.to_string(), format!("{disk} is slow: {reason}"));
    told.severity = Severity::Warning;
    Plan::decide(Transaction::new(), told, ())
}

/// Takes back that a disk is slow: it may come back at once, and has a good name.
pub(crate) fn plan_trust(map: &ClusterMap, disk: DiskId, why: &str) -> Result<Decision<()>, OperationError> {
    let Some(slow) = map.slow().get(&disk) else {
        return Ok(Decision::Unchanged(()));
    };
    let key = Key::Slow(disk).to_text();
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), slow.modified))
        .delete(key);
    let told = event(
        "disk_trusted",
        disk.to_string(),
        format!("{disk} is trusted again: {why}"),
    );
    Ok(Plan::decide(transaction, told, ()))
}

#[cfg(test)]
mod tests {
    //! Whoever leaves does so where he can be spared, and nobody else does.
    use protocol::session::SlotState;

    use super::super::fixture::{self, map, map_on_two_nodes};
    use super::*;

    const C: DiskId = DiskId(3);

    fn decided(map: &ClusterMap, leave: &Leave) -> Result<Box<Plan<Outcome>>, Outcome> {
        match plan_leave(map, leave).unwrap() {
            Decision::Change(plan) => Ok(plan),
            Decision::Unchanged(outcome) => Err(outcome),
        }
    }

    fn failed() -> Leave {
        Leave::Failed(C, "it does not serve".into())
    }

    #[test]
    fn a_disk_that_failed_leaves_its_groups_without_an_owner_that_complains() {
        let plan = decided(&map(2, 2), &failed()).unwrap();
        assert_eq!(plan.result, Outcome { left: 2, needed: 0 });
        let told = plan.event.unwrap().message;
        assert_eq!(
            told,
            "disk-3 was taken out of 2 placement groups: it does not serve"
        );
        assert_eq!(
            plan.transaction.compares.len(),
            2,
            "each group is as it was, and no owner is asked"
        );
    }

    #[test]
    fn a_disk_that_is_needed_stays_however_sick() {
        for leave in [failed(), Leave::Slow(C, "it takes long".into())] {
            assert_eq!(
                decided(&map(2, 3), &leave).unwrap_err(),
                Outcome { left: 0, needed: 2 }
            );
            assert!(!leave.matters(&map(2, 3)));
        }
    }

    #[test]
    fn who_is_out_already_need_not_leave() {
        let map = fixture::map_with(SlotState::Down, 2);
        assert_eq!(decided(&map, &failed()).unwrap_err(), Outcome::default());
    }

    #[test]
    fn many_groups_take_several_transactions_each_within_the_limit() {
        let leave = Leave::Slow(C, "it takes long".into());
        let plan = decided(&map(256, 2), &leave).unwrap();
        assert_eq!(plan.result.left, GROUPS_MAX);
        let most = coordination::store::TRANSACTION_STEPS_MAX;
        assert!(plan.transaction.compares.len() < most && plan.transaction.changes.len() < most);
    }

    #[test]
    fn that_a_slow_disk_was_put_out_is_written_down_in_the_same_transaction() {
        let plan = decided(&map(2, 2), &Leave::Slow(C, "it takes long".into())).unwrap();
        let key = Key::Slow(C).to_text();
        assert!(plan.transaction.compares.contains(&Compare::Absent(key.clone())));
        let text = format!("{:?}", plan.transaction.changes);
        assert!(text.contains(&key), "{text}");
    }

    #[test]
    fn a_disk_that_is_put_out_again_is_counted_once_more_and_one_time_is_one() {
        let again = |since_ms| {
            let map = fixture::with_slow(SlotState::InSync, since_ms);
            let plan = decided(&map, &Leave::Slow(C, "it takes long".into())).unwrap();
            let text = format!("{:?}", plan.transaction.compares);
            text.contains(&Key::Slow(C).to_text())
        };
        assert!(again(0));
        assert!(!again(wall_clock_ms()), "it is being put out just now");
    }

    #[test]
    fn a_good_name_is_given_back_on_the_condition_that_nothing_happened_since() {
        let Decision::Change(plan) = plan_trust(&fixture::with_slow(SlotState::Down, 0), C, "so").unwrap()
        else {
            panic!("it keeps its bad name");
        };
        assert_eq!(
            (plan.transaction.compares.len(), plan.transaction.changes.len()),
            (1, 1)
        );
        let decision = plan_trust(&map(2, 2), C, "so").unwrap();
        assert!(matches!(decision, Decision::Unchanged(())));
    }

    #[test]
    fn the_disks_of_a_node_that_is_down_leave_on_the_condition_that_it_still_is() {
        let map = map_on_two_nodes(SlotState::InSync, None);
        let plan = decided(&map, &Leave::Lapsed(NodeId(2))).unwrap();
        assert_eq!(plan.result, Outcome { left: 2, needed: 0 });
        let up = Key::NodeUp(NodeId(2)).to_text();
        assert_eq!(plan.transaction.compares[0], Compare::Absent(up));
        let told = plan.event.unwrap().message;
        assert!(told.starts_with("node-2"), "{told}");
    }

    #[test]
    fn of_two_disks_of_a_node_in_one_group_only_as_many_leave_as_can_be_spared() {
        // Disks 1 and 2 are on node 1; two must stay in sync.
        let map = map_on_two_nodes(SlotState::InSync, None);
        let plan = decided(&map, &Leave::Lapsed(NodeId(1))).unwrap();
        assert_eq!(plan.result, Outcome { left: 2, needed: 2 });
        assert_eq!(plan.transaction.changes.len(), 2);
        for change in &plan.transaction.changes {
            let coordination::store::Change::Put { value, .. } = change else {
                panic!("{change:?}");
            };
            let record = String::from_utf8_lossy(value);
            assert_eq!(record.matches("down").count(), 1, "{record}");
        }
    }
}
