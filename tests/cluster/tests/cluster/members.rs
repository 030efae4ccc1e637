//! Nodes enter the cluster, stay who they are, and leave it.

use admin_api::disks::DiskList;
use admin_api::nodes::{Node as Told, NodeList, NodeState};
use test_node::{Cluster, Node};

use crate::guest::{ask, refused, run, until};

async fn listed(node: &Node) -> Vec<Told> {
    ask::<NodeList>(node, "node list").await.nodes
}

#[test]
fn a_node_is_the_same_when_it_starts_again_and_leaves_only_when_nothing_lies_on_it() {
    run(async {
        let mut cluster = Cluster::start(2, 1).unwrap();
        let nodes = listed(&cluster.nodes[0]).await;
        let told: Vec<_> = nodes
            .iter()
            .map(|node| {
                (
                    node.id,
                    node.name.as_str(),
                    node.zone.as_str(),
                    node.disks.as_slice(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (1, "host-1", "zone-1", &[1][..]),
                (2, "host-2", "zone-2", &[2][..])
            ]
        );
        assert!(nodes.iter().all(|node| node.state == NodeState::Up));
        assert!(nodes[0].answers && !nodes[1].answers);
        let table = cluster.nodes[1].storagectl(&["node", "list"]).unwrap();
        assert!(table.contains("zone-2") && table.contains("up"), "{table}");

        // Killed, it is up again at once: its former process is known to be gone.
        cluster.nodes[1].kill().unwrap();
        cluster.nodes[1].start_again().unwrap();
        assert_eq!(listed(&cluster.nodes[0]).await.len(), 2);

        let pool = "pool create main --copies 2 --groups 4";
        cluster.nodes[0]
            .storagectl(&pool.split(' ').collect::<Vec<_>>())
            .unwrap();
        let says = refused(&cluster.nodes[0], "node remove 2 --yes");
        assert!(says.contains("is up"), "{says}");
        cluster.nodes[1].stop().unwrap();
        assert_eq!(listed(&cluster.nodes[0]).await[1].state, NodeState::Down);
        let says = refused(&cluster.nodes[0], "node remove 2 --yes");
        assert!(says.contains("disk-2 (4 placement groups)"), "{says}");
        let status = cluster.nodes[0].storagectl(&["status"]).unwrap();
        assert!(status.contains("node-2 (host-2) is down"), "{status}");
        cluster.nodes[0]
            .storagectl(&["pool", "delete", "main", "--yes"])
            .unwrap();
        cluster.nodes[0]
            .storagectl(&["node", "remove", "2", "--yes"])
            .unwrap();
        assert_eq!(listed(&cluster.nodes[0]).await.len(), 1);
        let says = cluster.nodes[1].refused().unwrap();
        assert!(says.contains("node-2 was removed"), "{says}");
    });
}

#[test]
fn a_node_that_stood_still_for_longer_than_its_lease_is_down_meanwhile_and_up_afterwards() {
    run(async {
        let cluster = Cluster::start(2, 0).unwrap();
        let storaged = cluster.nodes[1].storaged();
        let until_it_is =
            async |state| until(async || listed(&cluster.nodes[0]).await[1].state == state).await;
        storaged.freeze().unwrap();
        until_it_is(NodeState::Down).await;
        storaged.thaw().unwrap();
        until_it_is(NodeState::Up).await;
    });
}

#[test]
fn a_node_without_the_authority_of_the_cluster_is_refused() {
    let cluster = Cluster::secured(1, 1).unwrap();
    let key = cluster.nodes[0].folder().join("authority/key.pem");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let configuration = cluster.configuration(2, "/cluster").unwrap();
    let refused = Node::configured(1, &configuration).err().unwrap().to_string();
    assert!(refused.contains("storagectl cluster join"), "{refused}");
    let listed = cluster.nodes[0].storagectl(&["--json", "disk", "list"]).unwrap();
    let listed: DiskList = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.disks.len(), 1);
}

#[test]
fn a_work_directory_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(1, 0).unwrap();
    let other = cluster.configuration(1, "/other").unwrap();
    cluster.nodes[0].configure(&other).unwrap();
    let says = cluster.nodes[0].refused().unwrap();
    assert!(says.contains("belongs to node-1 of cluster"), "{says}");
    let same = cluster.configuration(1, "/cluster").unwrap();
    cluster.nodes[0].configure(&same).unwrap();
    cluster.nodes[0].start_again().unwrap();
}
