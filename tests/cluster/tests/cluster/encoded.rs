//! A pool 4+2 over six nodes: two of them die while a guest writes and reads, come back, and then two others are missed.

use std::cell::Cell;

use admin_api::pools::Pool;
use admin_api::status::{Health, Status};
use client::volume::Volume;
use serde_json::Value;
use test_node::Cluster;

use crate::guest::{ask, fill, open, run_for, until_well, value};

const BLOCK: u64 = 4096;
/// Four chunks of 64 KiB.
const ROW: u64 = 256 << 10;
/// The volume, in rows.
const ROWS: u64 = 24;
/// Six nodes start and come back on two processors.
const LIMIT: std::time::Duration = std::time::Duration::from_mins(3);

/// Every row whole, and then one block of it.
async fn write(device: &Volume, rows: u8, blocks: u8) {
    for row in 0..ROWS {
        fill(device, row * ROW, 256 << 10, rows).await;
        fill(device, row * ROW + 17 * BLOCK, 4096, blocks).await;
    }
}

async fn check(device: &Volume, rows: u8, blocks: u8) {
    for row in 0..ROWS {
        let at = row * ROW;
        assert_eq!(value(device, at, 17 * BLOCK).await, rows, "row {row}");
        assert_eq!(value(device, at + 17 * BLOCK, BLOCK).await, blocks, "row {row}");
        assert_eq!(
            value(device, at + 18 * BLOCK, ROW - 18 * BLOCK).await,
            rows,
            "row {row}"
        );
    }
}

#[test]
fn of_six_nodes_with_rows_4_and_2_any_two_may_die_and_come_back_under_io() {
    run_for(LIMIT, async {
        let mut cluster = Cluster::secured(6, 1).unwrap();
        let pool = "pool create main --erasure 4+2 --min-in-sync 4 --groups 8";
        let pool: Pool = ask(&cluster.nodes[0], pool).await;
        assert_eq!((pool.erasure.as_deref(), pool.copies), (Some("4+2"), 3));
        let _: Value = ask(&cluster.nodes[0], "volume create a 6M").await;
        let device = open(&cluster.nodes[0], "a").await;
        write(&device, 1, 2).await;
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;
        write(&device, 3, 4).await;

        // Nobody waits for one after the other: both are missed at once.
        for dead in [4, 5] {
            cluster.nodes[dead].kill().unwrap();
        }
        check(&device, 3, 4).await;
        write(&device, 5, 6).await;
        check(&device, 5, 6).await;
        let status: Status = ask(&cluster.nodes[0], "status").await;
        assert_eq!(status.health, Health::Degraded, "{status:?}");

        for dead in [4, 5] {
            cluster.nodes[dead].start_again().unwrap();
        }
        let (whole, rounds) = (Cell::new(false), Cell::new(6));
        let guest = async {
            while !whole.get() {
                rounds.set(rounds.get() % 200 + 7);
                write(&device, rounds.get(), rounds.get() + 1).await;
            }
        };
        let comes = async {
            until_well(&cluster.nodes[0]).await;
            whole.set(true);
        };
        tokio::join!(guest, comes);

        // What the returned nodes have is needed now: k of the six are left.
        for dead in [1, 2] {
            cluster.nodes[dead].kill().unwrap();
        }
        check(&device, rounds.get(), rounds.get() + 1).await;
        device.close().await;
        let there = open(&cluster.nodes[5], "a").await;
        check(&there, rounds.get(), rounds.get() + 1).await;
        write(&there, 210, 211).await;
        check(&there, 210, 211).await;
        there.close().await;
        let snapshot = open(&cluster.nodes[4], "a@monday").await;
        check(&snapshot, 1, 2).await;
        snapshot.close().await;
    });
}
