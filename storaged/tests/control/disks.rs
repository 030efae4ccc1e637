//! Disks that are added, that do not start, that come back.

use admin_api::ErrorKind;
use admin_api::disks::{Disk, DiskList, DiskState};
use admin_api::events::EventPage;
use admin_api::status::{Health, Status};
use serde_json::json;

use crate::node::{Node, run};

#[test]
fn a_first_start_that_was_cut_short_is_completed_by_the_next_one() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_disks(directory.path(), 1).await;
        node.stop().await;
        // As a crash leaves it: the disk is there, its directory is not named yet.
        std::fs::create_dir_all(directory.path().join("disks/.2.unfinished/rest")).unwrap();
        let node = Node::with_disks(directory.path(), 3).await;
        let disks: DiskList = node.get("/v1/disks").await;
        let ids: Vec<_> = disks.disks.iter().map(|disk| disk.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert!(
            disks.disks.iter().all(|disk| disk.state == DiskState::Up),
            "{disks:?}"
        );
        let told = |disk: &Disk| matches!(disk.medium.as_deref(), Some("io_uring" | "pread"));
        assert!(disks.disks.iter().all(told), "{disks:?}");
        node.stop().await;
    });
}

#[test]
fn a_disk_is_added_weighed_and_taken_up_again_but_not_twice() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        let path = directory.path().join("more").display().to_string();
        let answer = node
            .post("/v1/disks", json!({"path": path, "capacity": "1G"}))
            .await;
        assert_eq!(
            (answer["id"].as_u64(), answer["capacity"].as_u64()),
            (Some(4), Some(1 << 30))
        );
        let error = node
            .refused("POST", "/v1/disks", Some(json!({ "path": path })))
            .await;
        assert_eq!(error.kind, ErrorKind::AlreadyExists, "{error:?}");
        let (status, body) = node
            .send("PATCH", "/v1/disks/4", Some(json!({"weight": 9}).to_string()))
            .await;
        assert_eq!(status, 200, "{body}");
        let node = node.restart().await;
        let disk: Disk = node.get("/v1/disks/4").await;
        assert_eq!((disk.weight, disk.state), (9, DiskState::Up));
        // A copy of it is not it.
        let copy = directory.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let body = json!({"path": copy.display().to_string()});
        let error = node.refused("POST", "/v1/disks", Some(body)).await;
        assert_eq!(error.kind, ErrorKind::AlreadyExists, "{error:?}");
        assert!(error.message.contains("copy of disk-4"), "{error:?}");
        node.stop().await;
    });
}

#[test]
fn a_disk_of_another_cluster_is_not_taken_up() {
    run(async {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Node::with_disks(theirs.path(), 1).await.stop().await;
        let node = Node::with_disks(ours.path(), 1).await;
        let path = theirs.path().join("disks/1").display().to_string();
        let error = node
            .refused("POST", "/v1/disks", Some(json!({ "path": path })))
            .await;
        assert!(error.message.contains("another cluster"), "{error:?}");
        node.stop().await;
    });
}

#[test]
fn a_disk_that_does_not_start_is_told_of_and_holds_up_only_what_needs_it() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        node.fill("a", 0, 4096, 5).await;
        node.stop().await;
        let superblock = directory.path().join("disks/2/superblock");
        let sound = std::fs::read(&superblock).unwrap();
        std::fs::write(&superblock, vec![0xff; sound.len()]).unwrap();

        let node = Node::start(directory.path()).await;
        let status: Status = node.get("/v1/status").await;
        assert_eq!((status.health, status.disks_up), (Health::Waiting, 2));
        let reason = status.reasons.join(" ");
        assert!(
            reason.contains("disk-2") && reason.contains("pool pool wait"),
            "{reason}"
        );
        let events: EventPage = node.get("/v1/events?wait_ms=10000&after=0").await;
        let newest = events.next_after;
        let down = |page: &EventPage| page.events.iter().any(|event| event.kind == "disk_down");
        if !down(&events) {
            let more: EventPage = node
                .get(&format!("/v1/events?wait_ms=10000&after={newest}"))
                .await;
            assert!(down(&more), "{more:?}");
        }
        // What needs no disk goes on; so does the way back.
        node.create("b", "1G").await;
        std::fs::write(&superblock, &sound).unwrap();
        let path = directory.path().join("disks/2").display().to_string();
        node.post("/v1/disks", json!({ "path": path })).await;
        let status: Status = node.get("/v1/status").await;
        assert_eq!((status.health, status.disks_up), (Health::Ok, 3), "{status:?}");
        assert!(node.content("a", None, 4096).await.iter().all(|byte| *byte == 5));
        node.stop().await;
    });
}
