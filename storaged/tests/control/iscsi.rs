//! iSCSI as operators set it up over HTTP, and as a gateway asks for it over the admin socket: with records in a file
//! and in a real etcd, also over a restart.

use std::time::Duration;

use admin_api::ErrorKind;
use admin_api::events::EventPage;
use admin_api::iscsi::{
    AnnouncePortals, Configuration, Holder, PortalList, Registration, Reservations, TargetInfo,
};
use admin_api::volumes::Volume;
use admin_client::IscsiDirectory;
use serde_json::{Value, json};

use crate::etcd::told;
use crate::node::{LIMIT, Node, run};

const TARGET: &str = "iqn.2026-11.org.example:disks";
const HOST: &str = "iqn.1993-08.org.debian:01:host";
const SECRET: &str = "secret-of-the-host";
const NOW: Duration = Duration::ZERO;

fn under_target(rest: &str) -> String {
    format!("/v1/iscsi/targets/{TARGET}{rest}")
}

fn directory(node: &Node) -> IscsiDirectory {
    IscsiDirectory::new(&node.admin_socket()).unwrap()
}

/// One target with one LUN for one host; the volume's number.
async fn set_up(node: &Node) -> u64 {
    node.make_pool().await;
    node.create("a", "1M").await;
    node.post("/v1/iscsi/targets", json!({"name": TARGET.to_uppercase()}))
        .await;
    node.post(&under_target("/luns"), json!({"volume": "a"})).await;
    let access = json!({"initiator": HOST, "chap": {"user": "host", "secret": SECRET}});
    let said = node.post(&under_target("/access"), access).await;
    assert!(!said.to_string().contains(SECRET), "{said}");
    let volume: Volume = node.get("/v1/volumes/a").await;
    volume.id
}

fn reserved(revision: u64) -> Reservations {
    let (initiator, target, isid) = (HOST.to_owned(), TARGET.to_owned(), "0123456789ab".to_owned());
    Reservations {
        revision,
        generation: 1,
        registrations: vec![Registration {
            initiator: initiator.clone(),
            isid: isid.clone(),
            target: target.clone(),
            portal_group: 1,
            key: u64::MAX,
        }],
        holder: Some(Holder {
            initiator,
            isid,
            target,
            portal_group: 1,
            scope_type: 6,
        }),
        aptpl: true,
        reserved: None,
        resets: 0,
    }
}

fn announcement() -> AnnouncePortals {
    AnnouncePortals {
        group: None,
        addresses: vec!["127.0.0.1:3260".to_owned()],
    }
}

/// What a gateway sees from its first question to a reservation; the configuration at the end.
async fn serve(node: &Node, volume: u64) -> (Configuration, Reservations) {
    let gateway = directory(node);
    let first = gateway.configuration(None, NOW).await.unwrap();
    let target = &first.targets[0];
    assert_eq!((target.name.as_str(), target.luns[0].volume_id), (TARGET, volume));
    assert_eq!(target.access[0].chap.as_ref().unwrap().secret, SECRET);
    let word = announcement();
    let (woken, announced) = tokio::join!(
        gateway.configuration(Some(first.revision), LIMIT),
        gateway.announce(&word)
    );
    assert_eq!(announced.unwrap().portals, woken.as_ref().unwrap().portals);
    assert_eq!(woken.unwrap().targets[0].portals[0].address, "127.0.0.1:3260");
    assert_eq!(
        gateway.reservations(volume, None, NOW).await.unwrap(),
        Reservations::default()
    );
    let kept = gateway.set_reservations(volume, &reserved(0)).await.unwrap();
    let stale = gateway.set_reservations(volume, &reserved(0)).await.unwrap_err();
    assert!(stale.is_conflict(), "{stale}");
    assert_eq!(gateway.reservations(volume, None, NOW).await.unwrap(), kept);
    (gateway.configuration(None, NOW).await.unwrap(), kept)
}

/// The same targets and reservations as before; the volume cannot be deleted until the target is.
async fn tear_down(node: &Node, volume: u64, before: &Configuration, kept: &Reservations) {
    let gateway = directory(node);
    let after = gateway.configuration(None, NOW).await.unwrap();
    assert_eq!(
        (&after.targets[0].luns, &after.targets[0].access),
        (&before.targets[0].luns, &before.targets[0].access)
    );
    assert_eq!(&gateway.reservations(volume, None, NOW).await.unwrap(), kept);
    let error = node.refused("DELETE", "/v1/volumes/a", None).await;
    assert_eq!(error.kind, ErrorKind::InUse, "{error:?}");
    assert!(error.message.contains(TARGET), "{error:?}");
    node.post("/v1/volumes/a/rename", json!({"name": "b"})).await;
    let shown: TargetInfo = node.get(&under_target("")).await;
    assert_eq!(shown.luns[0].volume, "b");
    let (status, body) = node.send("DELETE", &under_target(""), None).await;
    assert_eq!(status, 204, "{body}");
    let gone = gateway.reservations(volume, None, NOW).await.unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
    node.delete("/v1/volumes/b").await;
    let events: EventPage = node.get("/v1/events?after=0&limit=1000").await;
    let kinds: Vec<&str> = events.events.iter().map(|event| event.kind.as_str()).collect();
    for kind in [
        "iscsi_target_created",
        "iscsi_lun_added",
        "iscsi_access_added",
        "iscsi_target_deleted",
    ] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let told = serde_json::to_string(&events).unwrap();
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn a_target_is_set_up_served_and_outlives_a_restart() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path()).await;
        let volume = set_up(&node).await;
        let (before, kept) = serve(&node, volume).await;
        let node = node.restart().await;
        tear_down(&node, volume, &before, &kept).await;
        node.stop().await;
    });
}

#[test]
fn the_same_with_the_records_in_an_etcd_that_is_killed_in_between() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut etcd = test_node::Etcd::start(1).unwrap();
        let node = Node::configured(told(folder.path(), &etcd)).await;
        let volume = set_up(&node).await;
        let (before, kept) = serve(&node, volume).await;
        node.stop().await;
        etcd.kill().unwrap();
        etcd.start_again().unwrap();
        let node = Node::configured(told(folder.path(), &etcd)).await;
        tear_down(&node, volume, &before, &kept).await;
        node.stop().await;
    });
}

#[test]
fn secrets_are_given_out_on_the_unix_socket_only() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path()).await;
        set_up(&node).await;
        let error = node.refused("GET", "/v1/iscsi/configuration", None).await;
        assert!(error.message.contains("unix socket"), "{error:?}");
        for path in [
            "/v1/iscsi/targets",
            &under_target(""),
            "/v1/status",
            "/v1/figures",
        ] {
            let shown: Value = node.get(path).await;
            assert!(!shown.to_string().contains(SECRET), "{path}: {shown}");
        }
        let kept = directory(&node).configuration(None, NOW).await.unwrap();
        assert_eq!(kept.targets[0].access[0].chap.as_ref().unwrap().secret, SECRET);
        // What the node writes down for its next start has them too, for nobody else to read.
        node.stop().await;
        let memory = std::fs::metadata(folder.path().join("memory")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&memory.permissions());
        assert_eq!(mode & 0o777, 0o600);
    });
}

/// A gateway always waits for the next change: that must not hold up the end.
#[test]
fn who_waits_for_a_change_does_not_hold_up_the_end_of_storaged() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path()).await;
        let gateway = directory(&node);
        let known = gateway.configuration(None, NOW).await.unwrap();
        let (answered, ()) = tokio::join!(gateway.configuration(Some(known.revision), LIMIT), async {
            // The question is under way when a later one is answered.
            let shown: PortalList = node.get("/v1/iscsi/portals").await;
            assert!(shown.portals.is_empty());
            node.stop().await;
        });
        match answered {
            Ok(same) => assert_eq!(same, known),
            // It came when nobody listened any more.
            Err(error) => assert!(!error.is_conflict() && !error.is_not_found(), "{error}"),
        }
    });
}
