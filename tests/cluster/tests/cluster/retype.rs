//! A volume moves from copies to rows over nodes that die meanwhile, from the hand of one owner into that of another on
//! another node, and from there into `storaged`'s.

use std::cell::Cell;

use admin_api::volumes::Volume as Told;
use client::volume::Volume;
use serde_json::Value;
use test_node::{Cluster, Node};

use crate::guest::{ask, fill, open, run_for, until, until_well, value};

/// A row 2+1.
const ROW: u64 = 128 << 10;
/// The volume, in rows: sixteen objects.
const ROWS: u64 = 16 * 32;
/// Four nodes start, and two of them come back, on two processors.
const LIMIT: std::time::Duration = std::time::Duration::from_mins(3);

/// What all of the volume is filled with first, so that each step takes as long as the rate says.
const GROUND: u8 = 255;

/// Writes parts of each object: rows, and blocks behind them.
async fn write(device: &Volume, byte: u8) {
    for row in (0..ROWS).step_by(16) {
        fill(device, row * ROW, 128 << 10, byte).await;
        fill(device, (row + 1) * ROW + 4096, 4096, byte).await;
    }
}

async fn check(device: &Volume, byte: u8) {
    for row in (0..ROWS).step_by(16) {
        assert_eq!(value(device, row * ROW, ROW).await, byte, "row {row}");
        let behind = (row + 1) * ROW;
        assert_eq!(value(device, behind, 4096).await, GROUND, "behind row {row}");
        assert_eq!(value(device, behind + 4096, 4096).await, byte, "behind row {row}");
    }
}

/// Lets the guest write for as long as something else goes on; gives what it wrote last.
async fn write_during(device: &Volume, first: u8, other: impl Future<Output = ()>) -> u8 {
    let (over, byte) = (Cell::new(false), Cell::new(first));
    let guest = async {
        while !over.get() {
            byte.set(byte.get() % 250 + 1);
            write(device, byte.get()).await;
        }
    };
    let other = async {
        other.await;
        over.set(true);
    };
    tokio::join!(guest, other);
    byte.get()
}

async fn moved(node: &Node) -> Option<u64> {
    let told: Told = ask(node, "volume info a").await;
    told.moving.map(|moving| moving.moved)
}

/// Waits until more than this is moved, or all.
async fn moves_on(node: &Node, from: u64) {
    until(async || moved(node).await.is_none_or(|moved| moved > from)).await;
}

#[test]
fn a_volume_moves_to_rows_while_nodes_die_and_its_owner_is_another_one_in_the_end() {
    run_for(LIMIT, async {
        let mut cluster = Cluster::secured(4, 1).unwrap();
        let nodes = "--failure-domain node --groups 8";
        let _: Value = ask(
            &cluster.nodes[0],
            &format!("pool create copies --copies 3 {nodes}"),
        )
        .await;
        let _: Value = ask(
            &cluster.nodes[0],
            &format!("pool create rows --erasure 2+1 {nodes}"),
        )
        .await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 64M --pool copies").await;
        let device = open(&cluster.nodes[0], "a").await;
        for object in 0..ROWS / 32 {
            fill(&device, object * 32 * ROW, 4 << 20, GROUND).await;
        }
        write(&device, 1).await;
        // Slow enough to be met on its way again and again: a step in four seconds, and one more for each who opens it. On
        // a machine that is slow itself it may be there sooner than all this is done.
        let begun: Told = ask(
            &cluster.nodes[0],
            "volume retype a --pool rows --rate 1M --detach",
        )
        .await;
        assert_eq!(
            (begun.pool.as_str(), begun.moving.unwrap().from.as_str()),
            ("rows", "copies")
        );
        let byte = write_during(&device, 1, moves_on(&cluster.nodes[0], 0)).await;

        cluster.nodes[2].kill().unwrap();
        let byte = write_during(&device, byte, async {
            if let Some(before) = moved(&cluster.nodes[0]).await {
                moves_on(&cluster.nodes[0], before).await;
            }
        })
        .await;
        check(&device, byte).await;
        cluster.nodes[2].start_again().unwrap();
        let byte = write_during(&device, byte, until_well(&cluster.nodes[0])).await;

        // The storaged that notes how far it is dies at any point, and the front end goes on with the next one.
        cluster.nodes[0].kill().unwrap();
        cluster.nodes[0].start_again().unwrap();
        let byte = write_during(&device, byte, until_well(&cluster.nodes[0])).await;
        check(&device, byte).await;

        // Its owner goes without a word; who comes after it finds everything, and moves it on.
        drop(device);
        let device = open(&cluster.nodes[3], "a").await;
        check(&device, byte).await;
        write(&device, 251).await;
        device.close().await;
        if moved(&cluster.nodes[1]).await.is_some() {
            let there: Told = ask(&cluster.nodes[1], "volume retype a --pool rows --rate 1G").await;
            assert!(there.moving.is_none(), "{there:?}");
        }
        let there: Told = ask(&cluster.nodes[1], "volume info a").await;
        assert_eq!((there.pool.as_str(), there.moving), ("rows", None));
        let device = open(&cluster.nodes[2], "a").await;
        check(&device, 251).await;
        device.close().await;
        let _: Value = ask(&cluster.nodes[1], "volume snapshot a monday").await;
    });
}
