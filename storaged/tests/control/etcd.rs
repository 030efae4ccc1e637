//! The same daemon with its records in a real etcd: what the embedded store does for one node, etcd does
//! for it as well, also while it is away.

use std::path::Path;
use std::time::{Duration, Instant};

use admin_api::events::{Event, EventPage};
use admin_api::snapshots::SnapshotList;
use admin_api::volumes::VolumeList;
use client::request;
use serde_json::json;
use storaged::config::{EtcdSettings, Settings};

use crate::node::{LIMIT, Node, run, settings};

const SIZE: u64 = 1 << 20;

/// What a daemon is told whose records are in this etcd.
pub(crate) fn told(directory: &Path, etcd: &test_node::Etcd) -> Settings {
    Settings {
        etcd: Some(EtcdSettings {
            endpoints: etcd.endpoints(),
            prefix: Some("/site".to_owned()),
            ca: None,
            certificate: None,
            key: None,
            user: None,
            password_file: None,
        }),
        ..settings(directory, 3)
    }
}

#[test]
fn volumes_live_the_same_life_with_their_records_in_etcd_and_outlive_restarts_of_both() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut etcd = test_node::Etcd::start(1).unwrap();
        let node = Node::configured(told(directory.path(), &etcd)).await;
        // With the groups of a pool that nobody has asked for few of: more than one transaction takes.
        node.post("/v1/pools", json!({"name": "pool"})).await;
        node.create("a", "1M").await;
        node.fill("a", 0, 1 << 20, 1).await;
        node.post("/v1/volumes/a/snapshots", json!({"name": "s"})).await;
        node.fill("a", 4096, 8192, 2).await;
        node.post("/v1/volumes/a/snapshots/s/clone", json!({"name": "b"}))
            .await;
        node.fill("b", 0, 4096, 3).await;
        let before = (
            node.content("a", None, SIZE).await,
            node.content("a", Some("s"), SIZE).await,
            node.content("b", None, SIZE).await,
        );
        node.stop().await;
        etcd.kill().unwrap();
        etcd.start_again().unwrap();

        let node = Node::configured(told(directory.path(), &etcd)).await;
        assert!(before.1.iter().all(|byte| *byte == 1));
        let after = (
            node.content("a", None, SIZE).await,
            node.content("a", Some("s"), SIZE).await,
            node.content("b", None, SIZE).await,
        );
        assert!(before == after, "content has changed over a restart");
        node.post("/v1/volumes/a/rollback", json!({"snapshot": "s"}))
            .await;
        assert_eq!(node.content("a", None, SIZE).await, before.1);
        for (path, task) in [("/v1/volumes/b", "b"), ("/v1/volumes/a?with_snapshots=true", "a")] {
            let deleted = node.delete(path).await;
            node.done(deleted.task).await;
            let volumes: VolumeList = node.get("/v1/volumes").await;
            assert!(volumes.volumes.iter().all(|volume| volume.name != task));
        }
        let (status, body) = node.send("DELETE", "/v1/pools/pool", None).await;
        assert!((200..300).contains(&status), "{body}");
        node.stop().await;
    });
}

#[test]
fn while_etcd_is_away_an_open_volume_goes_on_and_changes_are_refused_until_it_is_back() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut etcd = test_node::Etcd::start(1).unwrap();
        let settings = Settings {
            // etcd is away for less than that.
            lease_ms: Some(30_000),
            ..told(directory.path(), &etcd)
        };
        let node = Node::configured(settings).await;
        node.make_pool().await;
        node.create("a", "1M").await;
        let device = node.open("a", None).await;
        etcd.kill().unwrap();
        request::write(&device, 0, vec![7; 4096].into()).await.unwrap();
        assert_eq!(request::read(&device, 0, 4096).await.unwrap(), vec![7; 4096]);
        let refused = node
            .refused("POST", "/v1/volumes", Some(json!({"name": "b", "size": "1M"})))
            .await;
        assert_eq!(refused.kind.status(), 503, "{}", refused.message);
        etcd.start_again().unwrap();
        node.post("/v1/volumes/a/snapshots", json!({"name": "s"})).await;
        node.create("b", "1M").await;
        let followed = async {
            let of_b = |event: &Event| event.kind == "volume_created" && event.subject == "b";
            loop {
                let told: EventPage = node.get("/v1/events?after=0").await;
                if told.events.iter().any(of_b) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(LIMIT, followed).await.is_ok();
        assert!(in_time, "the event log ended with etcd");
        let snapshots: SnapshotList = node.get("/v1/volumes/a/snapshots").await;
        assert_eq!(snapshots.snapshots.len(), 1);
        request::write(&device, 0, vec![8; 4096].into()).await.unwrap();
        device.close().await;
        let content = node.content("a", Some("s"), 4096).await;
        assert!(content.iter().all(|byte| *byte == 7));
        node.stop().await;
    });
}

#[test]
fn an_open_volume_is_written_to_while_etcd_is_away_for_many_leases_and_changes_hands_afterwards() {
    // Defect guarded: an owner stopped when its lease could not be renewed, though nobody could take its volume.
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut etcd = test_node::Etcd::start(1).unwrap();
        let lease = Duration::from_secs(1);
        let settings = Settings {
            lease_ms: Some(1_000),
            ..told(directory.path(), &etcd)
        };
        let node = Node::configured(settings).await;
        node.make_pool().await;
        node.create("a", "1M").await;
        let device = node.open("a", None).await;
        etcd.kill().unwrap();
        let deadline = Instant::now() + 6 * lease;
        let mut value = 0;
        while Instant::now() < deadline {
            value = value % 200 + 1;
            let write = request::write(&device, 0, vec![value; 4096].into());
            tokio::time::timeout(LIMIT, write).await.unwrap().unwrap();
        }
        etcd.start_again().unwrap();
        assert_eq!(request::read(&device, 0, 4096).await.unwrap(), vec![value; 4096]);
        device.close().await;
        // The disks have vouched for the former owner; the next one waits that out, and no longer.
        let content = node.content("a", None, 4096).await;
        assert!(content.iter().all(|byte| *byte == value));
        node.stop().await;
    });
}

#[test]
fn a_volume_is_opened_and_its_data_is_there_after_etcd_was_restored_from_an_older_backup() {
    // The next owner needs a generation that no disk has seen. The number that etcd would give is one
    // that the disks refuse.
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut etcd = test_node::Etcd::start(1).unwrap();
        let node = Node::configured(told(directory.path(), &etcd)).await;
        node.make_pool().await;
        node.create("a", "1M").await;
        let backup = etcd.save("backup").unwrap();
        // It takes new blocks of numbers, which the backup knows nothing of.
        node.stop().await;
        let node = Node::configured(told(directory.path(), &etcd)).await;
        node.create("lost", "1M").await;
        node.fill("lost", 0, 1 << 20, 9).await;
        for value in 1..5 {
            node.fill("a", 0, 4096, value).await;
        }
        node.stop().await;
        etcd.restore(&backup).unwrap();

        let node = Node::configured(told(directory.path(), &etcd)).await;
        assert!(node.content("a", None, 4096).await.iter().all(|byte| *byte == 4));
        // A layer of the lost volume is still on the disks: nobody may get its number.
        node.create("new", "1M").await;
        assert!(
            node.content("new", None, SIZE)
                .await
                .iter()
                .all(|byte| *byte == 0)
        );
        node.fill("a", 0, 4096, 5).await;
        assert!(node.content("a", None, 4096).await.iter().all(|byte| *byte == 5));
        node.stop().await;
    });
}

#[test]
fn a_daemon_with_records_of_its_own_does_not_forget_them_for_etcd() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let etcd = test_node::Etcd::start(1).unwrap();
        Node::start(directory.path()).await.stop().await;
        let config = told(directory.path(), &etcd).check().unwrap();
        let refused = storaged::daemon::Daemon::start(&config)
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("coordination.redb"), "{refused}");
    });
}
