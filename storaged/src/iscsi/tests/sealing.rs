//! Secrets are not in the coordination store for whoever reads it, and one that cannot be opened lets nobody in.

use admin_api::iscsi::{Configuration, SecretsState, TargetInfo};
use coordination::records::{FORMAT_OF_SEALS, encode};

use super::*;
use crate::cluster::seal::Seal;
use crate::volumes::tests::up_reading;

const OF_HOST: &str = "secret-of-the-host";
const OF_TARGET: &str = "secret-of-the-target";

/// What a node has of the authority of cluster `number`.
fn of_cluster(number: u8) -> Secrets {
    let seal = Seal::new([number; 16], b"the authority's key").unwrap();
    Secrets::new(Some(Arc::new(seal)))
}

fn with(world: &World, secrets: Secrets) -> Iscsi {
    Iscsi::new(world.volumes.clone(), world.store.clone(), NodeId(1), secrets)
}

async fn set_both(iscsi: &Iscsi) {
    iscsi
        .add_access(TARGET, &access(HOST, Some(OF_HOST)))
        .await
        .unwrap();
    iscsi
        .set_mutual(TARGET, Some(&credentials(OF_TARGET)))
        .await
        .unwrap();
}

fn told(world: &World, iscsi: &Iscsi) -> Configuration {
    describe::configuration(&world.volumes.map(), iscsi.secrets())
}

fn shown(world: &World, iscsi: &Iscsi) -> TargetInfo {
    describe::target(&world.volumes.map(), TARGET, iscsi.secrets()).unwrap()
}

async fn kept(world: &World) -> String {
    let mut lines = world.stored().await;
    lines.retain(|line| line.contains("/iscsi-target/"));
    lines.concat()
}

/// A node that is up and reads records up to a format.
async fn bring_up(world: &World, records: u32) {
    let up = up_reading(records);
    let put = Transaction::new().put(Key::NodeUp(NodeId(2)).to_text(), encode(&up).unwrap());
    world.store.commit(put).await.unwrap();
    world.volumes.fresh_map().await.unwrap();
}

#[tokio::test]
async fn gateways_are_told_the_secrets_and_the_store_has_none() {
    let (world, _, _) = world().await;
    let iscsi = with(&world, of_cluster(1));
    set_both(&iscsi).await;
    let kept_first = kept(&world).await;
    assert!(!world.stored().await.concat().contains("secret-of"));
    assert!(
        kept_first.contains(&format!("\"format\":{FORMAT_OF_SEALS}")),
        "{kept_first}"
    );
    let target = &told(&world, &iscsi).targets[0];
    assert_eq!(target.access[0].chap, Some(credentials(OF_HOST)));
    assert_eq!(target.mutual, Some(credentials(OF_TARGET)));
    assert_eq!(shown(&world, &iscsi).secrets, Some(SecretsState::Sealed));
    // Each seal is another text: that it says the same must be seen all the same.
    set_both(&iscsi).await;
    assert_eq!(kept(&world).await, kept_first);
    let same = access(HOST, Some(OF_TARGET));
    let own = "a secret of its own";
    refused(
        &world,
        iscsi.add_access(TARGET, &same),
        ErrorKind::InvalidRequest,
        own,
    )
    .await;
}

#[tokio::test]
async fn secrets_are_sealed_when_no_older_program_is_up_any_more() {
    let (world, _, _) = world().await;
    let iscsi = with(&world, of_cluster(1));
    bring_up(&world, FORMAT_OF_SEALS - 1).await;
    set_both(&iscsi).await;
    assert!(kept(&world).await.contains(OF_HOST));
    assert_eq!(shown(&world, &iscsi).secrets, Some(SecretsState::Clear));
    bring_up(&world, FORMAT_OF_SEALS).await;
    iscsi.add_lun(TARGET, &lun("a")).await.unwrap();
    assert!(!kept(&world).await.contains("secret-of"));
    let target = &told(&world, &iscsi).targets[0];
    assert_eq!(target.access[0].chap, Some(credentials(OF_HOST)));
    assert_eq!(shown(&world, &iscsi).secrets, Some(SecretsState::Sealed));
}

#[tokio::test]
async fn who_should_show_a_secret_that_does_not_open_is_not_let_in() {
    let (world, plain, _) = world().await;
    set_both(&with(&world, of_cluster(1))).await;
    for iscsi in [plain, with(&world, of_cluster(2))] {
        let target = &told(&world, &iscsi).targets[0];
        assert_eq!((target.access.len(), &target.mutual), (0, &None));
        assert_eq!(shown(&world, &iscsi).secrets, Some(SecretsState::Lost));
        // People see who it was, and what it must show.
        assert_eq!(
            shown(&world, &iscsi).access[0].chap_user.as_deref(),
            Some("someone")
        );
    }
    let iscsi = with(&world, of_cluster(2));
    set_both(&iscsi).await;
    assert_eq!(
        told(&world, &iscsi).targets[0].access[0].chap,
        Some(credentials(OF_HOST))
    );
    assert_eq!(shown(&world, &iscsi).secrets, Some(SecretsState::Sealed));
}
