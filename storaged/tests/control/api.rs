//! What goes wrong is answered with a kind and a sentence, whatever is sent.

use admin_api::ErrorKind;
use admin_api::events::EventPage;
use admin_api::status::{Health, Status};
use admin_api::volumes::VolumeList;
use serde_json::json;

use crate::node::{Node, run};

#[test]
fn whatever_is_wrong_is_answered_with_a_kind_and_a_sentence() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        let volume = |size| Some(json!({"name": "b", "size": size}));
        for (method, path, body, kind, says) in [
            (
                "GET",
                "/v1/volumes/none",
                None,
                ErrorKind::NotFound,
                "no volume \"none\"",
            ),
            (
                "GET",
                "/v1/nothing",
                None,
                ErrorKind::NotFound,
                "/v1/openapi.json",
            ),
            (
                "PUT",
                "/v1/volumes",
                None,
                ErrorKind::MethodNotAllowed,
                "does not answer",
            ),
            (
                "POST",
                "/v1/volumes",
                None,
                ErrorKind::InvalidRequest,
                "the body is not",
            ),
            (
                "POST",
                "/v1/volumes",
                Some(json!({"name": "b"})),
                ErrorKind::InvalidRequest,
                "size",
            ),
            (
                "POST",
                "/v1/volumes",
                Some(json!({"name": "b", "size": 1, "siez": 2})),
                ErrorKind::InvalidRequest,
                "siez",
            ),
            (
                "POST",
                "/v1/volumes",
                volume("ten"),
                ErrorKind::InvalidSize,
                "10G",
            ),
            (
                "POST",
                "/v1/volumes",
                volume("2P"),
                ErrorKind::InvalidSize,
                "1 PiB",
            ),
            ("GET", "/v1/volumes?pol=x", None, ErrorKind::InvalidRequest, "pol"),
            (
                "GET",
                "/v1/volumes/a%20b",
                None,
                ErrorKind::InvalidName,
                "letters",
            ),
            (
                "GET",
                "/v1/volumes/..%2F",
                None,
                ErrorKind::InvalidName,
                "contains",
            ),
            (
                "GET",
                "/v1/disks/x",
                None,
                ErrorKind::InvalidRequest,
                "not a disk",
            ),
            ("GET", "/v1/disks/77", None, ErrorKind::NotFound, "no disk 77"),
            ("GET", "/v1/tasks/77", None, ErrorKind::NotFound, "no task 77"),
            (
                "GET",
                "/v1/events?limit=0",
                None,
                ErrorKind::InvalidRequest,
                "1 to",
            ),
            (
                "GET",
                "/v1/events?wait_ms=99999999",
                None,
                ErrorKind::InvalidRequest,
                "at most",
            ),
            (
                "POST",
                "/v1/disks",
                Some(json!({"path": "here"})),
                ErrorKind::InvalidRequest,
                "absolute",
            ),
            (
                "POST",
                "/v1/disks",
                Some(json!({"path": "/proc"})),
                ErrorKind::InvalidRequest,
                "other things",
            ),
            (
                "PATCH",
                "/v1/disks/1",
                Some(json!({"weight": 10_000_000})),
                ErrorKind::InvalidRequest,
                "0 to",
            ),
            (
                "POST",
                "/v1/pools",
                Some(json!({"name": "p", "copies": 0})),
                ErrorKind::InvalidRequest,
                "1 to",
            ),
            (
                "POST",
                "/v1/pools",
                Some(json!({"name": "p", "copies": 5})),
                ErrorKind::NotEnoughDisks,
                "there are 3",
            ),
            (
                "POST",
                "/v1/pools",
                Some(json!({"name": "p", "min_in_sync": 4})),
                ErrorKind::InvalidRequest,
                "min_in_sync",
            ),
            (
                "POST",
                "/v1/pools",
                Some(json!({"name": "p", "disks": [1, 2, 9]})),
                ErrorKind::NotFound,
                "no disk 9",
            ),
            ("DELETE", "/v1/pools/pool", None, ErrorKind::InUse, "1 volume"),
            ("DELETE", "/v1/pools/none", None, ErrorKind::NotFound, "no pool"),
        ] {
            let error = node.refused(method, path, body).await;
            assert_eq!(error.kind, kind, "{method} {path}: {error:?}");
            assert!(error.message.contains(says), "{method} {path}: {error:?}");
        }
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(100_000));
        let (status, body) = node.send("POST", "/v1/volumes", Some(long)).await;
        assert_eq!(status, 413, "{body}");
        assert!(body.contains("too_large"), "{body}");
        // None of it changed anything; and a pool that was not deleted takes volumes again.
        let volumes: VolumeList = node.get("/v1/volumes").await;
        assert_eq!(volumes.volumes.len(), 1);
        node.create("b", "1G").await;
        node.stop().await;
    });
}

#[test]
fn status_metrics_and_events_tell_of_what_is_there() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        let status: Status = node.get("/v1/status").await;
        assert_eq!(
            (status.health, status.disks_up, status.volumes),
            (Health::Ok, 3, 1)
        );
        let (_, metrics) = node.send("GET", "/v1/metrics", None).await;
        for line in [
            "storaged_disk_up{disk=\"3\"} 1",
            "storaged_volumes 1",
            "# TYPE storaged_disk_writes_total counter",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        let page: EventPage = node.get("/v1/events").await;
        let kinds: Vec<_> = page.events.iter().map(|event| event.kind.as_str()).collect();
        let expected = [
            "disk_added",
            "disk_added",
            "disk_added",
            "pool_created",
            "volume_created",
        ];
        assert_eq!(kinds, expected);
        // Whoever follows gets the next one as soon as it is there, and only that.
        let path = format!("/v1/events?wait_ms=60000&after={}", page.next_after);
        let (next, ()) = tokio::join!(node.get::<EventPage>(&path), node.create("b", "1G"));
        let kinds: Vec<_> = next.events.iter().map(|event| event.subject.as_str()).collect();
        assert_eq!(kinds, ["b"]);
        node.stop().await;
    });
}
