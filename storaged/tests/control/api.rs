//! What goes wrong is answered with a kind and a sentence, whatever is sent.

use admin_api::events::EventPage;
use admin_api::status::{Health, Status};
use admin_api::volumes::{Volume, VolumeList};
use serde_json::json;

use crate::node::{Node, run};

/// Method, path, body, the kind of the answer, and what its sentence must say.
const WRONG: &str = r#"
GET    | /v1/volumes/none         |                                  | not_found          | no volume "none"
GET    | /v1/nothing              |                                  | not_found          | /v1/openapi.json
PUT    | /v1/volumes              |                                  | method_not_allowed | does not answer
POST   | /v1/volumes              |                                  | invalid_request    | the body is not
POST   | /v1/volumes              | {"name": "b"}                    | invalid_request    | size
POST   | /v1/volumes              | {"name": "b", "size": 1, "siez": 2} | invalid_request | siez
POST   | /v1/volumes              | {"name": "b", "size": "ten"}     | invalid_size       | 10G
POST   | /v1/volumes              | {"name": "b", "size": "2P"}      | invalid_size       | 1 PiB
GET    | /v1/volumes?pol=x        |                                  | invalid_request    | pol
GET    | /v1/volumes/a%20b        |                                  | invalid_name       | letters
GET    | /v1/volumes/..%2F        |                                  | invalid_name       | contains
GET    | /v1/disks/x              |                                  | invalid_request    | not a disk
GET    | /v1/disks/77             |                                  | not_found          | no disk 77
GET    | /v1/tasks/77             |                                  | not_found          | no task 77
GET    | /v1/events?limit=0       |                                  | invalid_request    | 1 to
GET    | /v1/events?wait_ms=99999999 |                               | invalid_request    | at most
POST   | /v1/disks                | {"path": "here"}                 | invalid_request    | absolute
POST   | /v1/disks                | {"path": "/proc"}                | invalid_request    | other things
PATCH  | /v1/disks/1              | {"weight": 10000000}             | invalid_request    | 0 to
POST   | /v1/disks/77/scrub       | {}                               | not_found          | no disk 77
POST   | /v1/pools/none/scrub     | {}                               | not_found          | no pool
POST   | /v1/volumes/none/check   | {}                               | not_found          | no volume
POST   | /v1/volumes/a/check      | {"snapshot": "x"}                | not_found          | no snapshot a@x
PATCH  | /v1/volumes/none/labels  | {"labels": {"a": "b"}}           | not_found          | no volume
PATCH  | /v1/volumes/a/labels     | {"labels": {"a b": ""}}          | invalid_request    | no label is called so
PATCH  | /v1/volumes/a/labels     | {"labels": {"a": 1}}             | invalid_request    | the body is not
GET    | /v1/scrubs/77            |                                  | not_found          | no scrub
POST   | /v1/pools                | {"name": "p", "copies": 0}       | invalid_request    | 1 to
POST   | /v1/pools                | {"name": "p", "copies": 5}       | not_enough_disks   | there are 3
POST   | /v1/pools                | {"name": "p", "min_in_sync": 4}  | invalid_request    | min_in_sync
POST   | /v1/pools                | {"name": "p", "erasure": "4"}    | invalid_request    | as in 4+2
POST   | /v1/pools                | {"name": "p", "erasure": "4+9"}  | invalid_request    | 1 to 4 of parity
POST   | /v1/pools                | {"name": "p", "erasure": "2+1", "copies": 2} | invalid_request | one of them
POST   | /v1/pools                | {"name": "p", "erasure": "2+1", "min_in_sync": 1} | invalid_request | nothing can be read
POST   | /v1/pools                | {"name": "p", "erasure": "4+2"}  | not_enough_disks   | there are 3
POST   | /v1/pools                | {"name": "p", "disks": [1, 2, 9]} | not_found         | no disk 9
DELETE | /v1/pools/pool           |                                  | in_use             | 1 volume
POST   | /v1/iscsi/targets        | {"name": "disk"}                 | invalid_name       | iqn.YEAR-MONTH
GET    | /v1/iscsi/targets/iqn.2026-11.org.example:x |               | not_found          | no iSCSI target
GET    | /v1/iscsi/targets/x      |                                  | invalid_name       | is no iSCSI name
DELETE | /v1/iscsi/targets/iqn.2026-11.org.example:x/luns/z |        | invalid_request    | not a LUN
POST   | /v1/iscsi/targets/iqn.2026-11.org.example:x/luns | {"volume": "a"} | not_found     | no iSCSI target
PUT    | /v1/iscsi/portals        | {"addresses": ["here"]}          | invalid_request    | IP:PORT
GET    | /v1/iscsi/reservations/x |                                  | invalid_request    | volume's number
GET    | /v1/iscsi/reservations/77 |                                 | not_found          | no LUN
GET    | /v1/iscsi/reservations/77?after=1&wait_ms=30001 |           | invalid_request    | at most 30000
PUT    | /v1/iscsi/reservations/77 | {"revision": 0, "generation": 1, "registrations": [], "aptpl": false} | not_found | no LUN
DELETE | /v1/pools/none           |                                  | not_found          | no pool
"#;

#[test]
fn whatever_is_wrong_is_answered_with_a_kind_and_a_sentence() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        for row in WRONG.trim().lines() {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let body = (!cells[2].is_empty()).then(|| serde_json::from_str(cells[2]).unwrap());
            let error = node.refused(cells[0], cells[1], body).await;
            let kind = serde_json::to_value(error.kind).unwrap();
            assert_eq!(kind, cells[3], "{row}: {error:?}");
            assert!(error.message.contains(cells[4]), "{row}: {error:?}");
        }
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(300_000));
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

/// What is written on a volume stays on it, whatever happens to the volume, and is no clone's.
#[test]
fn labels_stay_on_their_volume() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::with_pool(directory.path()).await;
        node.create("a", "1G").await;
        let label = async |node: &Node, body: serde_json::Value| {
            let (status, text) = node
                .send("PATCH", "/v1/volumes/a/labels", Some(body.to_string()))
                .await;
            assert_eq!(status, 200, "{text}");
        };
        label(&node, json!({"labels": {"owner": "anna", "notes": "two\nlines"}})).await;
        label(&node, json!({"labels": {"owner": null, "none": null, "use": ""}})).await;
        node.post("/v1/volumes/a/snapshots", json!({"name": "s"})).await;
        node.post("/v1/volumes/a/snapshots/s/clone", json!({"name": "c"}))
            .await;
        node.post("/v1/volumes/a/rollback", json!({"snapshot": "s"}))
            .await;
        node.post("/v1/volumes/a/resize", json!({"size": "2G"})).await;
        node.post("/v1/volumes/a/rename", json!({"name": "b"})).await;
        let node = node.restart().await;
        let told: Volume = node.get("/v1/volumes/b").await;
        assert_eq!(json!(told.labels), json!({"notes": "two\nlines", "use": ""}));
        let clone: Volume = node.get("/v1/volumes/c").await;
        assert!(clone.labels.is_empty(), "{clone:?}");
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
