//! Targets by hand: every refusal has its sentence and changes nothing, and who waits is woken.

mod sealing;

use admin_api::ErrorKind;
use admin_api::iscsi::{
    AddAccess, AddLun, AnnouncePortals, Credentials, Holder, Registration, Reservations, WaitQuery,
};
use coordination::{Compare, Transaction};
use protocol::VolumeId;

use super::*;
use crate::volumes::tests::{World, refused};

const TARGET: &str = "iqn.2026-11.org.example:disks";
const OTHER: &str = "iqn.2026-11.org.example:other";
const HOST: &str = "iqn.1993-08.org.debian:01:host";
/// Nothing here waits that long.
const LONG_MS: u64 = 30_000;

fn iscsi(world: &World) -> Iscsi {
    Iscsi::new(
        world.volumes.clone(),
        world.store.clone(),
        NodeId(1),
        Secrets::new(None),
    )
}

async fn world() -> (World, Iscsi, VolumeId) {
    let world = World::new().await;
    let volume = world.create("a", 1 << 20).await.unwrap();
    let iscsi = iscsi(&world);
    iscsi.create_target(TARGET).await.unwrap();
    (world, iscsi, volume)
}

fn lun(volume: &str) -> AddLun {
    AddLun {
        volume: volume.to_owned(),
        number: None,
        read_only: false,
        block_size: None,
    }
}

fn credentials(secret: &str) -> Credentials {
    Credentials {
        user: "someone".to_owned(),
        secret: secret.to_owned(),
    }
}

fn access(initiator: &str, secret: Option<&str>) -> AddAccess {
    AddAccess {
        initiator: initiator.to_owned(),
        chap: secret.map(credentials),
    }
}

fn reserved(revision: u64, key: u64) -> Reservations {
    let (initiator, isid) = (HOST.to_owned(), "0123456789ab".to_owned());
    let registration = Registration {
        initiator: initiator.clone(),
        isid: isid.clone(),
        target: TARGET.to_owned(),
        portal_group: 1,
        key,
    };
    Reservations {
        revision,
        generation: 1,
        registrations: vec![registration],
        holder: Some(Holder {
            initiator,
            isid,
            target: TARGET.to_owned(),
            portal_group: 1,
            scope_type: 5,
        }),
        aptpl: true,
        reserved: None,
        resets: 0,
    }
}

fn after(revision: u64, wait_ms: u64) -> WaitQuery {
    WaitQuery {
        after: Some(revision),
        wait_ms: Some(wait_ms),
    }
}

#[tokio::test]
async fn a_wrong_request_gets_a_sentence_and_changes_nothing() {
    let (world, iscsi, _) = world().await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    world.create("b", 4096).await.unwrap();
    let w = &world;
    let exists = ErrorKind::AlreadyExists;
    refused(
        w,
        iscsi.create_target(&TARGET.to_uppercase()),
        exists,
        "another name",
    )
    .await;
    refused(
        w,
        iscsi.create_target("disks"),
        ErrorKind::InvalidName,
        "write iqn.",
    )
    .await;
    refused(
        w,
        iscsi.delete_target(OTHER),
        ErrorKind::NotFound,
        "no iSCSI target",
    )
    .await;
    let missing = ErrorKind::NotFound;
    refused(w, iscsi.add_lun(OTHER, &lun("b")), missing, "no iSCSI target").await;
    refused(w, iscsi.add_lun(TARGET, &lun("c")), missing, "no volume").await;
    refused(
        w,
        iscsi.add_lun(TARGET, &lun("a")),
        ErrorKind::InUse,
        "once at most",
    )
    .await;
    let mut odd = lun("b");
    odd.number = Some(0);
    refused(w, iscsi.add_lun(TARGET, &odd), exists, "lowest free").await;
    odd.number = Some(256);
    let invalid = ErrorKind::InvalidRequest;
    refused(w, iscsi.add_lun(TARGET, &odd), invalid, "0 to 255").await;
    odd = AddLun {
        block_size: Some(1024),
        ..lun("b")
    };
    refused(w, iscsi.add_lun(TARGET, &odd), invalid, "512 or 4096").await;
    refused(w, iscsi.remove_lun(TARGET, 7), missing, "no LUN 7").await;
    let short = access(HOST, Some("short"));
    refused(w, iscsi.add_access(TARGET, &short), invalid, "12 to 255").await;
    let wild = access("iqn.2026-11.org.example:*", None);
    refused(w, iscsi.add_access(TARGET, &wild), ErrorKind::InvalidName, "'*'").await;
    refused(w, iscsi.remove_access(TARGET, HOST), missing, "does not let").await;
}

#[tokio::test]
async fn a_volume_that_is_a_lun_is_renamed_but_not_deleted() {
    let (world, iscsi, id) = world().await;
    assert_eq!(iscsi.add_lun(TARGET, &lun("a")).await.unwrap(), 0);
    refused(&world, world.volumes.delete("a", false), ErrorKind::InUse, TARGET).await;
    world.volumes.rename("a", "b").await.unwrap();
    let told = describe::configuration(&world.volumes.map(), iscsi.secrets());
    let told = &told.targets[0].luns[0];
    assert_eq!(
        (told.volume.as_str(), told.volume_id, told.block_size),
        ("b", id.0, 512)
    );
    iscsi.remove_lun(TARGET, 0).await.unwrap();
    world.volumes.delete("b", false).await.unwrap();
}

/// The plan of a deletion that was made before the volume became a LUN: an older map must not win.
#[tokio::test]
async fn a_deletion_that_did_not_see_the_lun_is_not_made() {
    let (world, iscsi, id) = world().await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    let deletion = Transaction::new()
        .when(Compare::Absent(Key::IscsiLun(id).to_text()))
        .delete(Key::Volume(id).to_text());
    let outcome = world.store.commit(deletion).await.unwrap();
    assert!(
        matches!(outcome, coordination::Outcome::Conflict(_)),
        "{outcome:?}"
    );
}

/// A `storaged` from before iSCSI deletes a volume without asking; the LUN that is left can be seen and removed.
#[tokio::test]
async fn a_lun_whose_volume_an_older_program_deleted_is_shown_without_a_name_and_removed() {
    let (world, iscsi, id) = world().await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    let deletion = Transaction::new()
        .delete(Key::Volume(id).to_text())
        .delete(Key::VolumeName("a".to_owned()).to_text());
    world.store.commit(deletion).await.unwrap();
    let told = iscsi.configuration(WaitQuery::default()).await.unwrap();
    assert_eq!(told.targets[0].luns[0].volume, "");
    iscsi.remove_lun(TARGET, 0).await.unwrap();
    assert!(!world.stored().await.iter().any(|line| line.contains("iscsi-lun")));
}

#[tokio::test]
async fn a_target_with_more_luns_than_a_transaction_takes_is_deleted_with_their_reservations() {
    let (world, iscsi, first) = world().await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    iscsi.set_reservations(first, reserved(0, 7)).await.unwrap();
    for number in 0..120 {
        let name = format!("v{number}");
        world.create(&name, 4096).await.unwrap();
        iscsi.add_lun(TARGET, &lun(&name)).await.unwrap();
    }
    iscsi.delete_target(TARGET).await.unwrap();
    let left = world.stored().await;
    let left: Vec<_> = left
        .iter()
        .filter(|line| line.starts_with(coordination::keys::ISCSI))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    world.volumes.delete("a", false).await.unwrap();
}

#[tokio::test]
async fn people_are_shown_no_secret_and_neither_is_the_event_log() {
    let (world, iscsi, _) = world().await;
    let host = access(HOST, Some("secret-of-the-host"));
    iscsi.add_access(TARGET, &host).await.unwrap();
    let mutual = credentials("secret-of-the-target");
    iscsi.set_mutual(TARGET, Some(&mutual)).await.unwrap();
    let shown = serde_json::to_string(&describe::targets(&world.volumes.map(), iscsi.secrets())).unwrap();
    assert!(shown.contains(HOST) && shown.contains("someone"), "{shown}");
    assert!(!shown.contains("secret-of"), "{shown}");
    let told = describe::configuration(&world.volumes.map(), iscsi.secrets());
    assert_eq!(
        told.targets[0].access[0].chap,
        Some(credentials("secret-of-the-host"))
    );
    assert_eq!(told.targets[0].mutual, Some(mutual));
    let lines = world.stored().await;
    let mut events = lines.iter().filter(|line| line.contains("/event/"));
    assert!(events.all(|line| !line.contains("secret-of")), "{lines:?}");
    iscsi.set_mutual(TARGET, None).await.unwrap();
    iscsi.remove_access(TARGET, HOST).await.unwrap();
    assert!(!world.stored().await.concat().contains("secret-of"));
}

#[tokio::test]
async fn both_directions_with_one_secret_are_refused_in_either_order() {
    let (world, iscsi, _) = world().await;
    let secret = "the-same-secret";
    let host = access(HOST, Some(secret));
    iscsi.add_access(TARGET, &host).await.unwrap();
    let mutual = credentials(secret);
    let invalid = ErrorKind::InvalidRequest;
    let own = "a secret of its own";
    refused(&world, iscsi.set_mutual(TARGET, Some(&mutual)), invalid, own).await;
    iscsi.remove_access(TARGET, HOST).await.unwrap();
    iscsi.set_mutual(TARGET, Some(&mutual)).await.unwrap();
    refused(&world, iscsi.add_access(TARGET, &host), invalid, own).await;
}

#[tokio::test]
async fn who_waits_for_a_change_is_woken_by_it_and_others_wait_until_their_time_is_over() {
    let (world, iscsi, _) = world().await;
    let known = iscsi.configuration(WaitQuery::default()).await.unwrap();
    let same = iscsi.configuration(after(known.revision, 1)).await.unwrap();
    assert_eq!(same, known);
    let request = lun("a");
    let (woken, added) = tokio::join!(
        iscsi.configuration(after(known.revision, LONG_MS)),
        iscsi.add_lun(TARGET, &request)
    );
    added.unwrap();
    let woken = woken.unwrap();
    assert!(woken.revision > known.revision && woken.targets[0].luns.len() == 1);
    // Whoever knows of another `storaged`'s numbers, or an older state, is answered at once.
    let old = iscsi.configuration(after(known.revision, LONG_MS));
    assert_eq!(old.await.unwrap(), woken);
    let (stopped, ()) = tokio::join!(iscsi.configuration(after(woken.revision, LONG_MS)), async {
        iscsi.stop_waiting();
    });
    assert_eq!(stopped.unwrap(), woken);
    drop(world);
}

#[tokio::test]
async fn reservations_are_changed_by_those_only_who_know_the_present_ones() {
    let (world, iscsi, id) = world().await;
    let missing = ErrorKind::NotFound;
    refused(
        &world,
        iscsi.set_reservations(id, reserved(0, 7)),
        missing,
        "no LUN",
    )
    .await;
    refused(
        &world,
        iscsi.reservations(id, WaitQuery::default()),
        missing,
        "no LUN",
    )
    .await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    let none = iscsi.reservations(id, WaitQuery::default()).await.unwrap();
    assert_eq!(none, Reservations::default());
    let first = iscsi.set_reservations(id, reserved(0, 7)).await.unwrap();
    assert!(first.revision > 0);
    assert_eq!(iscsi.reservations(id, WaitQuery::default()).await.unwrap(), first);
    let conflict = ErrorKind::Conflict;
    refused(
        &world,
        iscsi.set_reservations(id, reserved(0, 8)),
        conflict,
        "again",
    )
    .await;
    let (woken, second) = tokio::join!(
        iscsi.reservations(id, after(first.revision, LONG_MS)),
        iscsi.set_reservations(id, reserved(first.revision, 8))
    );
    assert_eq!(woken.unwrap(), second.unwrap());
    let stale = reserved(first.revision, 9);
    refused(&world, iscsi.set_reservations(id, stale), conflict, "again").await;
}

#[tokio::test]
async fn who_waits_for_reservations_is_told_when_the_lun_goes_and_a_new_one_has_none() {
    let (_world, iscsi, id) = world().await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    let first = iscsi.set_reservations(id, reserved(0, 7)).await.unwrap();
    let (woken, removed) = tokio::join!(
        iscsi.reservations(id, after(first.revision, LONG_MS)),
        iscsi.remove_lun(TARGET, 0)
    );
    removed.unwrap();
    assert_eq!(woken.unwrap_err().kind(), ErrorKind::NotFound);
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    let again = iscsi.reservations(id, WaitQuery::default()).await.unwrap();
    assert_eq!(again, Reservations::default());
}

fn announcement(group: Option<u16>, addresses: &[&str]) -> AnnouncePortals {
    AnnouncePortals {
        group,
        addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
    }
}

#[tokio::test]
async fn a_portal_is_shown_while_its_gateway_says_so_and_its_group_is_its_own() {
    let (world, iscsi, _) = world().await;
    let both = announcement(None, &["[::1]:3260", "127.0.0.1:3260"]);
    iscsi.announce(&both).await.unwrap();
    let shown = describe::portals(&world.volumes.map());
    let shown: Vec<_> = shown
        .iter()
        .map(|portal| (portal.address.as_str(), portal.group))
        .collect();
    assert_eq!(shown, [("127.0.0.1:3260", 1), ("[::1]:3260", 1)]);
    let before = world.volumes.map().iscsi().revision();
    iscsi.announce(&both).await.unwrap();
    assert_eq!(
        world.volumes.map().iscsi().revision(),
        before,
        "the same word changes nothing"
    );
    let neighbour = Iscsi::new(
        world.volumes.clone(),
        world.store.clone(),
        NodeId(2),
        Secrets::new(None),
    );
    let same = announcement(Some(1), &["127.0.0.2:3260"]);
    refused(&world, neighbour.announce(&same), ErrorKind::InUse, "another tag").await;
    iscsi.announce(&announcement(None, &[])).await.unwrap();
    assert!(describe::portals(&world.volumes.map()).is_empty());
    neighbour.announce(&same).await.unwrap();
    let invalid = ErrorKind::InvalidRequest;
    for wrong in ["localhost:3260", "127.0.0.1", "0.0.0.0:3260", "127.0.0.1:0"] {
        let wrong = announcement(None, &[wrong]);
        refused(&world, iscsi.announce(&wrong), invalid, "no portal's address").await;
    }
    let zero = announcement(Some(0), &["127.0.0.1:3260"]);
    refused(&world, iscsi.announce(&zero), invalid, "1 to 65535").await;
}

#[tokio::test]
async fn a_gateway_whose_lease_lapsed_is_shown_again_when_it_says_so_again() {
    let (world, iscsi, _) = world().await;
    let word = announcement(Some(9), &["127.0.0.1:3260"]);
    iscsi.announce(&word).await.unwrap();
    let key = Key::IscsiPortal(NodeId(1), 9).to_text();
    let entry = world.store.get(&key).await.unwrap().unwrap();
    world.store.revoke_lease(entry.lease.unwrap()).await.unwrap();
    assert_eq!(world.store.get(&key).await.unwrap(), None);
    iscsi.announce(&word).await.unwrap();
    let again = world.store.get(&key).await.unwrap().unwrap();
    assert!(again.lease.is_some() && again.modified > entry.modified);
}
