//! How far an upgrade is, and which node may be restarted next: judged by the map. Who does it is not known here.

use std::collections::BTreeMap;

use admin_api::nodes::NodeState;
use admin_api::upgrade::{NodeProgram, UpgradeStatus, VersionRange};
use coordination::ClusterMap;
use coordination::records::FORMAT;
use protocol::message::common_version;
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, NodeId};
use replication::membership::{count, held};

/// How far an upgrade is. `sick`: disks that are known not to serve though their nodes are up, and why.
pub fn judge(map: &ClusterMap, sick: &BTreeMap<DiskId, String>) -> UpgradeStatus {
    let versions = map.up().values().map(|up| up.record.version.as_str());
    let newest = versions.max_by_key(|version| order(version)).unwrap_or_default();
    let nodes: Vec<NodeProgram> = map.nodes().keys().map(|id| program(map, *id, newest)).collect();
    let mut reasons = not_whole(map);
    reasons.extend(
        sick.iter()
            .map(|(disk, why)| format!("{disk} does not serve ({why})")),
    );
    reasons.extend(speechless(&nodes));
    let down = |node: &&NodeProgram| node.state == NodeState::Down;
    let outdated = || nodes.iter().filter(|node| node.outdated);
    // First those that nothing waits for.
    let next = outdated().min_by_key(|node| (!node.waits.is_empty(), node.node));
    let complete = nodes
        .iter()
        .all(|node| !node.outdated && node.state == NodeState::Up);
    let down = nodes.iter().find(down);
    let safe = reasons.is_empty();
    let advice = advice(newest, down, next, &reasons);
    UpgradeStatus {
        newest: newest.to_owned(),
        records: FORMAT,
        complete,
        safe,
        reasons,
        next: next.map(|node| node.node),
        advice,
        nodes,
    }
}

fn advice(
    newest: &str,
    down: Option<&NodeProgram>,
    next: Option<&NodeProgram>,
    reasons: &[String],
) -> String {
    if let Some(down) = down {
        return format!(
            "node {} ({}) is down: if you are upgrading it, start it; restart no other one before it is up and all \
             copies are in sync",
            down.node, down.name
        );
    }
    if !reasons.is_empty() {
        return "restart nothing now: wait until all copies are in sync, and put right what is named"
            .to_owned();
    }
    match next {
        Some(next) if next.waits.is_empty() => format!(
            "upgrade node {} ({}) now: install the new version there and restart its storaged; I/O goes on",
            next.node, next.name
        ),
        Some(next) => format!(
            "upgrade node {} ({}) now: install the new version there and restart its storaged; writes to {} wait until \
             it is up again",
            next.node,
            next.name,
            next.waits.join(", ")
        ),
        None => format!(
            "all nodes run {newest}: to begin an upgrade, install the new version on one node and restart its storaged"
        ),
    }
}

fn program(map: &ClusterMap, id: NodeId, newest: &str) -> NodeProgram {
    let up = map.up().get(&id).map(|up| &up.record);
    let speaks = up.and_then(|up| up.speaks);
    NodeProgram {
        node: id.0,
        name: map
            .nodes()
            .get(&id)
            .map(|node| node.record.name.clone())
            .unwrap_or_default(),
        state: if up.is_some() {
            NodeState::Up
        } else {
            NodeState::Down
        },
        version: up.map(|up| up.version.clone()),
        messages: speaks.map(|speaks| VersionRange {
            lowest: speaks.wire_lowest,
            highest: speaks.wire_highest,
        }),
        records: speaks.map(|speaks| speaks.records),
        outdated: up.is_some_and(|up| order(&up.version) < order(newest)),
        waits: waits_for(map, id),
    }
}

/// The pools with a group in which too few would be in sync without this node's disks.
fn waits_for(map: &ClusterMap, node: NodeId) -> Vec<String> {
    let here = |disk: &DiskId| map.disks().get(disk).is_some_and(|disk| disk.record.node == node);
    let waits = map.pools().filter(|(pool, record)| {
        map.groups(*pool).any(|group| {
            let mut left = group.slots.clone();
            let in_sync = |slot: &&mut Slot| slot.state == SlotState::InSync;
            for slot in left.iter_mut().filter(in_sync).filter(|slot| here(&slot.disk)) {
                slot.state = SlotState::Down;
            }
            left != group.slots && held(&left) < usize::from(record.record.min_in_sync).max(1)
        })
    });
    waits
        .map(|(_, record)| format!("pool {}", record.record.name))
        .collect()
}

/// What must be whole before one more disk goes away.
fn not_whole(map: &ClusterMap) -> Vec<String> {
    let mut reasons: Vec<String> = map
        .nodes()
        .iter()
        .filter(|(id, _)| !map.up().contains_key(id))
        .map(|(id, node)| format!("{id} ({}) is down", node.record.name))
        .collect();
    for (id, pool) in map.pools() {
        let lacks = map
            .groups(id)
            .filter(|group| count(&group.slots, SlotState::InSync) < group.slots.len());
        let lacking = lacks.count();
        if lacking > 0 {
            let coming = map
                .comes_back(id)
                .map_or_else(String::new, |disk| format!(", and {disk} is coming back"));
            reasons.push(format!(
                "pool {}: {lacking} of {} placement groups are not whole{coming}",
                pool.record.name, pool.record.groups
            ));
        }
    }
    reasons
}

/// Pairs of nodes whose programs have no version of the messages in common.
fn speechless(nodes: &[NodeProgram]) -> Vec<String> {
    let speaks = || {
        nodes
            .iter()
            .filter_map(|node| Some((node, node.messages.map(|range| range.lowest..=range.highest)?)))
    };
    let pairs = speaks().flat_map(|one| speaks().map(move |other| (one.clone(), other)));
    pairs
        .filter(|((one, ours), (other, theirs))| {
            one.node < other.node && common_version(ours, theirs).is_none()
        })
        .map(|((one, _), (other, _))| {
            format!(
                "node {} and node {} have no version of the messages in common: upgrade in smaller steps",
                one.node, other.node
            )
        })
        .collect()
}

/// By what versions are compared: their numbers.
fn order(version: &str) -> Vec<u64> {
    let parts = version.split(['.', '-', '+']);
    parts.map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    //! One node after the other, and none while anything is not whole.
    use coordination::Revision;
    use coordination::keys::Key;
    use coordination::records::{NewerFields, NodeRecord, NodeUpRecord, Speaks, encode};
    use coordination::store::{Batch, Entry, Event};

    use super::*;
    use crate::membership::fixture;

    fn put(key: &Key, value: std::sync::Arc<[u8]>) -> Event {
        Event::Put(Entry {
            key: key.to_text(),
            value,
            created: Revision(51),
            modified: Revision(51),
            lease: None,
        })
    }

    /// Two nodes, disks 1 and 2 on the first and 3 on the second, with programs of these versions, or down.
    fn cluster(third: SlotState, programs: [Option<(&str, u16)>; 2]) -> ClusterMap {
        let mut events = Vec::new();
        for (id, program) in (1..).zip(programs) {
            let node = NodeRecord {
                name: format!("host-{id}"),
                zone: String::new(),
                serial: [1; 16],
                addresses: Vec::new(),
                created_ms: 0,
                newer: NewerFields::default(),
            };
            events.push(put(&Key::Node(NodeId(id)), encode(&node).unwrap()));
            if let Some((version, wire)) = program {
                let up = NodeUpRecord {
                    world: String::new(),
                    pid: 1,
                    lease_ms: 5000,
                    version: version.to_owned(),
                    since_ms: 0,
                    speaks: (wire > 0).then_some(Speaks {
                        wire_lowest: wire,
                        wire_highest: wire,
                        records: 1,
                    }),
                };
                events.push(put(&Key::NodeUp(NodeId(id)), encode(&up).unwrap()));
            }
        }
        let batch = Batch {
            revision: Revision(51),
            events,
        };
        fixture::map_on_two_nodes(third, None).apply(&batch).unwrap()
    }

    fn judged(map: &ClusterMap) -> UpgradeStatus {
        judge(map, &BTreeMap::new())
    }

    #[test]
    fn the_older_node_is_upgraded_next_and_older_means_by_number() {
        let status = judged(&cluster(
            SlotState::InSync,
            [Some(("0.10.0", 3)), Some(("0.9.1", 3))],
        ));
        assert_eq!((status.newest.as_str(), status.next), ("0.10.0", Some(2)));
        assert!(status.safe && !status.complete, "{status:?}");
        assert!(status.nodes[1].outdated && !status.nodes[0].outdated);
        assert!(
            status.advice.starts_with("upgrade node 2 (host-2) now")
                && status.advice.ends_with("I/O goes on"),
            "{}",
            status.advice
        );
    }

    #[test]
    fn what_waits_while_a_node_is_away_is_said_before() {
        // Two of three copies lie on node 1, and two must be in sync.
        let status = judged(&cluster(
            SlotState::InSync,
            [Some(("0.1.0", 3)), Some(("0.2.0", 3))],
        ));
        assert_eq!(status.next, Some(1));
        assert_eq!(status.nodes[0].waits, ["pool fast"]);
        assert!(status.nodes[1].waits.is_empty());
        assert!(
            status.advice.contains("writes to pool fast wait"),
            "{}",
            status.advice
        );
    }

    #[test]
    fn nothing_is_restarted_while_a_disk_comes_back_or_a_node_is_down() {
        for third in [SlotState::Syncing, SlotState::Down] {
            let status = judged(&cluster(third, [Some(("0.2.0", 3)), Some(("0.1.0", 3))]));
            assert!(!status.safe, "{status:?}");
            assert!(
                status.advice.starts_with("restart nothing now"),
                "{}",
                status.advice
            );
        }
        let status = judged(&cluster(SlotState::InSync, [Some(("0.2.0", 3)), None]));
        assert!(!status.safe && !status.complete);
        assert!(
            status.advice.contains("node 2 (host-2) is down"),
            "{}",
            status.advice
        );
        let whole = cluster(SlotState::InSync, [Some(("0.2.0", 3)), Some(("0.1.0", 3))]);
        let sick = BTreeMap::from([(DiskId(1), "a flush failed".to_owned())]);
        assert!(!judge(&whole, &sick).safe);
    }

    #[test]
    fn an_upgrade_is_complete_when_all_run_the_same_version() {
        let status = judged(&cluster(
            SlotState::InSync,
            [Some(("0.2.0", 3)), Some(("0.2.0", 3))],
        ));
        assert!(status.complete && status.safe && status.next.is_none());
        assert!(
            status.advice.starts_with("all nodes run 0.2.0"),
            "{}",
            status.advice
        );
    }

    #[test]
    fn programs_without_a_common_version_of_the_messages_are_named_and_older_ones_say_nothing() {
        let status = judged(&cluster(
            SlotState::InSync,
            [Some(("0.2.0", 4)), Some(("0.1.0", 3))],
        ));
        assert!(
            status.reasons[0].contains("node 1 and node 2 have no version"),
            "{status:?}"
        );
        let status = judged(&cluster(
            SlotState::InSync,
            [Some(("0.2.0", 4)), Some(("0.1.0", 0))],
        ));
        assert!(status.safe, "{status:?}");
        assert_eq!(status.nodes[1].messages, None);
    }
}
