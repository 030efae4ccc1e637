//! Layers that leave the tree when many nodes have given back what they held of them.

use coordination::records::{DiskRecord, GroupRecord, NewerFields};
use protocol::session::{Slot, SlotState};
use protocol::{DiskId, PgId};

use super::*;

#[tokio::test]
async fn a_layer_goes_when_more_nodes_have_said_so_than_one_transaction_forgets() {
    let world = World::new().await;
    let nodes = 1..=102u32;
    let mut slots = Vec::new();
    for number in nodes.clone() {
        let disk = DiskRecord {
            node: NodeId(number),
            path: String::new(),
            weight: 1,
            share: None,
            draining: false,
            addresses: Vec::new(),
            capacity: None,
            created_ms: 0,
            newer: NewerFields::default(),
        };
        let key = Key::Disk(DiskId(number)).to_text();
        let put = Transaction::new().put(key, encode(&disk).unwrap());
        world.store.commit(put).await.unwrap();
        slots.push(Slot::of_copy(DiskId(number), SlotState::InSync));
    }
    let pg = PgId {
        pool: PoolId(1),
        number: 0,
    };
    let put = Transaction::new().put(Key::Group(pg).to_text(), encode(&GroupRecord { slots }).unwrap());
    world.store.commit(put).await.unwrap();
    world.create("alpha", 1 << 20).await.unwrap();
    world.volumes.delete("alpha", false).await.unwrap();
    let map = world.volumes.fresh_map().await.unwrap();
    let (family, what) = map
        .families()
        .map(|(id, family)| (id, family.reclaimable()[0]))
        .next()
        .unwrap();
    let done = |node| (NodeId(node), map.revision());

    world.volumes.retire(family, what, done(1)).await.unwrap();
    assert!(
        world.volumes.map().family(family).is_some(),
        "the others have not said so"
    );
    for node in nodes.skip(1) {
        world
            .volumes
            .note_reclaimed(family, what.layer(), done(node))
            .await
            .unwrap();
    }
    world.volumes.retire(family, what, done(1)).await.unwrap();
    assert!(world.volumes.map().family(family).is_none());
}
