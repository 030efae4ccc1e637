//! A node that was stopped while its store was restored puts back what its file remembers, once.
use coordination::Embedded;
use coordination::map::{MapKeeper, Remembered};
use coordination::records::{DiskRecord, NewerFields, SchemaRecord};
use protocol::DiskId;

use tokio::time::timeout;

use super::*;

const OWN: Identity = Identity {
    cluster: [7; 16],
    node: NodeId(1),
    serial: [1; 16],
};
/// The last transaction that the node saw, of which the store knows nothing.
const SEEN: Revision = Revision(500);

async fn recalls() -> Recalls {
    let store: Arc<dyn Coordination> = Arc::new(Embedded::in_memory().unwrap());
    let schema = SchemaRecord {
        cluster: OWN.cluster,
        created_ms: 0,
    };
    let made = Transaction::new().put(Key::Schema.to_text(), encode(&schema).unwrap());
    store.commit(made).await.unwrap();
    let (keeper, map) = MapKeeper::start(store.clone()).await.unwrap();
    tokio::spawn(keeper.run());
    Recalls {
        identities: Arc::new(Identities::new(store.clone())),
        store,
        map,
        without: BTreeSet::new(),
    }
}

/// A disk that was added after the backup.
fn memory() -> Memory {
    let disk = DiskRecord {
        node: OWN.node,
        path: "/d".to_owned(),
        weight: 1,
        share: None,
        draining: false,
        addresses: Vec::new(),
        capacity: None,
        created_ms: 0,
        newer: NewerFields::default(),
    };
    let record = Remembered {
        value: encode(&disk).unwrap(),
        modified: Some(Revision(400)),
    };
    Memory {
        revision: SEEN,
        up: [OWN.node].into(),
        records: [(Key::Disk(DiskId(1)).to_text(), record)].into(),
    }
}

#[tokio::test]
async fn what_the_file_remembers_is_put_back_and_what_is_changed_afterwards_stays() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    memory().write(folder.path(), &OWN).unwrap();
    let map = recalls.at_start(folder.path(), Some(&OWN)).await;
    assert!(map.disks().contains_key(&DiskId(1)));
    assert!(map.revision() > SEEN);

    // The file is as old as before: the store goes on without it.
    delete(&recalls, Key::Disk(DiskId(1))).await;
    let map = recalls.at_start(folder.path(), Some(&OWN)).await;
    assert!(map.disks().is_empty());
}

#[tokio::test]
async fn a_node_that_remembers_no_more_than_the_store_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    let before = recalls.fresh_map().await.unwrap().revision();
    let known = Memory {
        revision: before,
        ..memory()
    };
    known.write(folder.path(), &OWN).unwrap();
    for own in [Some(&OWN), None] {
        let map = recalls.at_start(folder.path(), own).await;
        assert_eq!((map.revision(), map.disks().len()), (before, 0));
    }
}

#[tokio::test]
async fn a_node_that_remembers_nothing_waits_for_one_that_does_and_deletes_nothing() {
    let (empty, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recalls = recalls().await;
    memory().write(folder.path(), &OWN).unwrap();
    let other = Identity {
        node: NodeId(2),
        ..OWN
    };
    let joins = async {
        let mut watch = recalls.map.clone();
        while !watch.current_and_seen().recalls() {
            watch.changed().await;
        }
        recalls.at_start(empty.path(), Some(&other)).await
    };
    let (first, second) = tokio::join!(recalls.at_start(folder.path(), Some(&OWN)), joins);
    for map in [first, second] {
        assert!(map.disks().contains_key(&DiskId(1)));
    }
}

/// Of a node that saw its last change while others were up.
fn memory_with(others: &[u32]) -> Memory {
    let others = others.iter().map(|other| NodeId(*other));
    Memory {
        up: others.chain([OWN.node]).collect(),
        ..memory()
    }
}

fn without(recalls: &Recalls, lost: u32) -> Recalls {
    Recalls {
        without: [NodeId(lost)].into(),
        ..recalls.clone()
    }
}

/// It waits longer than it listens, and is stopped then; told who is lost, it puts its records back.
async fn waits_until_it_is_told_that_node_2_is_lost(recalls: &Recalls, work_dir: &Path) {
    let waits = timeout(HEARS_OTHERS * 2, recalls.at_start(work_dir, Some(&OWN)));
    assert!(waits.await.is_err());
    let map = without(recalls, 2).at_start(work_dir, Some(&OWN)).await;
    assert!(map.disks().contains_key(&DiskId(1)));
    assert!(!map.recalls());
}

async fn delete(recalls: &Recalls, key: Key) {
    let gone = Transaction::new().delete(key.to_text());
    recalls.store.commit(gone).await.unwrap();
    recalls.fresh_map().await.unwrap();
}

/// Waits until so many say what they remember, and the map shows it.
async fn until_said(recalls: &Recalls, count: usize) {
    while recalls.notes().await.unwrap().0.len() < count {
        tokio::task::yield_now().await;
    }
    recalls.fresh_map().await.unwrap();
}

#[tokio::test]
async fn a_node_that_waits_spoils_nothing_and_goes_on_when_it_is_told_who_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    memory_with(&[2]).write(folder.path(), &OWN).unwrap();
    waits_until_it_is_told_that_node_2_is_lost(&recalls, folder.path()).await;
}

#[tokio::test]
async fn who_waits_for_one_that_is_stopped_before_it_put_anything_back_goes_on_waiting() {
    let (empty, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recalls = recalls().await;
    memory_with(&[3]).write(folder.path(), &OWN).unwrap();
    let (first, work_dir) = (recalls.clone(), folder.path().to_owned());
    let first = tokio::spawn(async move { first.at_start(&work_dir, Some(&OWN)).await });
    until_said(&recalls, 1).await;
    let (second, work_dir) = (recalls.clone(), empty.path().to_owned());
    let other = Identity {
        node: NodeId(2),
        ..OWN
    };
    let mut second = tokio::spawn(async move { second.at_start(&work_dir, Some(&other)).await });
    until_said(&recalls, 2).await;
    // It looks once more at what the first says, at least.
    assert!(timeout(AGAIN * 3, &mut second).await.is_err());
    first.abort();
    assert!(first.await.is_err());
    delete(&recalls, Key::Recall(OWN.node)).await;
    assert!(timeout(AGAIN * 3, &mut second).await.is_err());

    let told = without(&recalls, 3);
    told.at_start(folder.path(), Some(&OWN)).await;
    assert!(second.await.unwrap().disks().contains_key(&DiskId(1)));
}

/// A store whose numbers a node has raised, which was killed before it put anything back.
async fn cut_off(recalls: &Recalls, node: NodeId) {
    let said = RecallRecord {
        revision: SEEN.0,
        cold: true,
        unused: false,
        raised: true,
    };
    let said = Transaction::new().put(Key::Recall(node).to_text(), encode(&said).unwrap());
    recalls.store.commit(said).await.unwrap();
    recalls.store.raise_revision(SEEN).await.unwrap();
    recalls.fresh_map().await.unwrap();
}

#[tokio::test]
async fn a_node_that_was_killed_after_it_raised_the_numbers_puts_its_records_back_when_it_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    memory().write(folder.path(), &OWN).unwrap();
    cut_off(&recalls, OWN.node).await;
    assert!(recalls.map.current().revision() > SEEN);
    let map = recalls.at_start(folder.path(), Some(&OWN)).await;
    assert!(map.disks().contains_key(&DiskId(1)));
    assert!(!map.recalls());
}

#[tokio::test]
async fn one_that_is_lost_in_the_middle_of_it_is_waited_for_until_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    let less = Memory {
        revision: Revision(450),
        ..memory()
    };
    less.write(folder.path(), &OWN).unwrap();
    cut_off(&recalls, NodeId(2)).await;
    waits_until_it_is_told_that_node_2_is_lost(&recalls, folder.path()).await;
}

#[tokio::test]
async fn a_node_that_was_away_while_others_went_on_with_a_restored_store_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    memory().write(folder.path(), &OWN).unwrap();
    let far = Revision(SEEN.0 + 2_000_000);
    recalls.store.raise_revision(far).await.unwrap();
    recalls.fresh_map().await.unwrap();
    let map = recalls.at_start(folder.path(), Some(&OWN)).await;
    assert!(map.revision() > far && map.disks().is_empty());
}

#[tokio::test]
async fn a_new_node_waits_until_the_records_are_back() {
    let folder = tempfile::tempdir().unwrap();
    let recalls = recalls().await;
    cut_off(&recalls, OWN.node).await;
    memory().write(folder.path(), &OWN).unwrap();
    let new = recalls.at_start(Path::new("/nowhere"), None);
    let (first, new) = tokio::join!(recalls.at_start(folder.path(), Some(&OWN)), new);
    for map in [first, new] {
        assert!(map.disks().contains_key(&DiskId(1)));
    }
}
