//! Every node answers for the whole cluster: how full disks and pools are, and whether all copies of a volume are well.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use admin_api::disks::{Disk, DiskList};
use admin_api::pools::Pool;
use admin_api::scrubs::{FindingKind, ScrubReport};
use admin_api::status::Status;
use admin_api::volumes::{Space, Volume};
use serde::de::DeserializeOwned;
use serde_json::Value;
use test_node::{Cluster, Node};

use crate::guest::{ask, fill, open, run_for, until};

const LIMIT: Duration = Duration::from_mins(2);
const MIB: u64 = 1 << 20;
/// The volume, in MiB: objects of 4 MiB, which lie on different disks.
const SIZE: u64 = 32;
/// What its blocks are filled with: unlike anything that a disk writes of itself.
const VALUE: u8 = 0xA7;

async fn filled(cluster: &Cluster, copies: u32) {
    let pool = format!("pool create main --copies {copies} --groups 16");
    let _: Pool = ask(&cluster.nodes[0], &pool).await;
    let _: Value = ask(&cluster.nodes[0], &format!("volume create a {SIZE}M")).await;
    let device = open(&cluster.nodes[0], "a").await;
    for step in 0..SIZE {
        fill(&device, step * MIB, 1 << 20, VALUE).await;
    }
    device.close().await;
}

async fn disks(node: &Node) -> Vec<Disk> {
    ask::<DiskList>(node, "disk list").await.disks
}

/// What the volume takes.
async fn space(node: &Node) -> Space {
    ask::<Volume>(node, "volume info a").await.space.unwrap()
}

#[test]
fn every_node_tells_how_full_all_disks_are_and_of_a_silent_one_that_it_does_not_know() {
    run_for(LIMIT, async {
        let cluster = Cluster::secured(3, 1).unwrap();
        filled(&cluster, 3).await;
        for node in &cluster.nodes {
            // What other nodes' disks hold is known as of a moment ago.
            let full = |disk: &Disk| disk.used.is_some_and(|used| used >= SIZE * MIB);
            until(async || disks(node).await.iter().all(full)).await;
            for disk in disks(node).await {
                assert_eq!(disk.unknown, None, "{disk:?}");
                assert!(disk.free.unwrap() > 0 && disk.capacity.unwrap() > 0, "{disk:?}");
                assert!(disk.log_size.is_some() && disk.medium.is_some(), "{disk:?}");
            }
            let pool: Pool = ask(node, "pool info main").await;
            assert_eq!(pool.unknown, None);
            assert!(pool.available.unwrap() < pool.total.unwrap(), "{pool:?}");
            let status: Status = ask(node, "status").await;
            assert_eq!((status.disks_up, status.disks_unknown), (3, 0));
            assert!(status.used.unwrap() >= 3 * SIZE * MIB, "{status:?}");
            let space = space(node).await;
            assert_eq!((space.own, space.unknown.len()), (3 * SIZE * MIB, 0), "{space:?}");
        }

        // It neither answers nor counts as down at first; what it would say is not invented.
        cluster.nodes[2].storaged().freeze().unwrap();
        until(async || disks(&cluster.nodes[0]).await[2].unknown.is_some()).await;
        let silent = disks(&cluster.nodes[0]).await.remove(2);
        let nothing = (silent.used, silent.free, silent.capacity, silent.log_used);
        assert_eq!(nothing, (None, None, None, None), "{silent:?}");
        assert!(
            silent
                .unknown
                .unwrap()
                .starts_with("node-3 (host-3) does not tell")
        );
        let others = disks(&cluster.nodes[0]).await;
        assert!(others[0].used.is_some() && others[1].used.is_some());
        let table = cluster.nodes[0].storagectl(&["disk", "list"]).unwrap();
        assert!(table.contains("node-3 (host-3)"), "{table}");
        let status: Status = ask(&cluster.nodes[0], "status").await;
        assert_eq!(status.disks_unknown, 1);
        assert!(status.used.unwrap() >= 2 * SIZE * MIB, "{status:?}");
        let part = space(&cluster.nodes[0]).await;
        assert_eq!(part.own, 2 * SIZE * MIB);
        assert!(
            part.unknown[0].starts_with("node-3 (host-3) does not tell"),
            "{part:?}"
        );
        // The pool's figures may be some seconds old, and say so.
        let main = async || ask::<Pool>(&cluster.nodes[0], "pool info main").await;
        until(async || main().await.unknown.is_some()).await;
        let pool = main().await;
        assert!(pool.unknown.unwrap().contains("disk-3"));
        assert!(pool.available.is_some());

        cluster.nodes[2].storaged().thaw().unwrap();
        until(async || disks(&cluster.nodes[0]).await[2].unknown.is_none()).await;
    });
}

/// What `storagectl --json` shows, also if it says that not all is well; and whether it did.
async fn shown<T: DeserializeOwned>(node: &Node, words: &str) -> (bool, T) {
    let mut command = tokio::process::Command::new(test_node::program("storagectl").unwrap());
    command.arg("--socket").arg(node.admin_socket()).arg("--json");
    let output = command.args(words.split(' ')).output().await.unwrap();
    let shown = serde_json::from_slice(&output.stdout);
    let shown = shown.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), shown)
}

/// Spoils a block of a disk of which all bytes are [`VALUE`], behind the back of its `storaged`.
fn spoil(disk: &Path) {
    const BLOCK: usize = 4096;
    let data = disk.join("data");
    let file = OpenOptions::new().read(true).write(true).open(&data).unwrap();
    let at = found(&file, BLOCK);
    file.write_all_at(&[0x11; 64], at + 512).unwrap();
    file.sync_all().unwrap();
}

fn found(file: &File, block: usize) -> u64 {
    let mut bytes = vec![0; block];
    let length = file.metadata().unwrap().len();
    let full =
        |at: &u64| file.read_exact_at(&mut bytes, *at).is_ok() && bytes.iter().all(|byte| *byte == VALUE);
    (0..length).step_by(block).find(full).unwrap()
}

#[test]
fn a_check_reads_the_copies_on_all_nodes_mends_there_and_names_a_node_that_did_not_answer() {
    run_for(LIMIT, async {
        let mut cluster = Cluster::secured(4, 1).unwrap();
        // One node has no copy at all, and is asked.
        let pool = "pool create main --copies 2 --groups 16 --disks 1,2,3";
        let _: Pool = ask(&cluster.nodes[0], pool).await;
        let _: Value = ask(&cluster.nodes[0], &format!("volume create a {SIZE}M")).await;
        let device = open(&cluster.nodes[0], "a").await;
        for step in 0..SIZE {
            fill(&device, step * MIB, 1 << 20, VALUE).await;
        }
        device.close().await;

        let (well, report): (_, ScrubReport) = shown(&cluster.nodes[3], "volume check a").await;
        assert!(well, "{report:?}");
        assert_eq!(
            (report.disks.as_slice(), report.elsewhere.as_slice()),
            (&[1, 2, 3][..], &[][..])
        );
        // Both copies of each object.
        assert_eq!(report.objects, 2 * SIZE / 4);

        spoil(&cluster.nodes[1].disks()[0]);
        let (well, report): (_, ScrubReport) = shown(&cluster.nodes[3], "volume check a --deep").await;
        assert!(well, "{report:?}");
        assert_eq!(report.blocks, 2 * SIZE * MIB / 4096);
        assert_eq!((report.mended, report.findings.len()), (1, 1), "{report:?}");
        let finding = &report.findings[0];
        assert_eq!(
            (finding.disk, finding.kind),
            (2, FindingKind::Mended),
            "{report:?}"
        );

        cluster.nodes[2].kill().unwrap();
        let (well, report): (_, ScrubReport) = shown(&cluster.nodes[0], "volume check a").await;
        assert!(!well, "{report:?}");
        assert_eq!(report.disks, [1, 2]);
        assert!(
            report.silent[0].starts_with("node-3 (host-3) did not look after"),
            "{report:?}"
        );
        cluster.nodes[2].start_again().unwrap();
    });
}
