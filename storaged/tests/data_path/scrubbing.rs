//! Bits rot on one disk, and a scrub stores them again from other disks' copies, while a guest writes.

use std::cell::Cell;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use client::request;
use client::volume::Volume;
use coordination::ClusterMap;
use protocol::session::SlotState;
use protocol::{DiskId, checksum};
use replication::scrub::{Finding, Order};
use storaged::disk::{Remote, Report, Totals};

use super::node::{CLUSTER, Node};
use super::{BLOCK, OBJECT, filled, on_one_thread};

const OBJECTS: u64 = 4;
const ROTTEN: DiskId = DiskId(1);
/// What is written where bits rot.
const CONTENT: u8 = 0xa5;
/// Blocks of it in each object.
const BLOCKS: u64 = 40;
/// Between questions for a scrub's progress.
const LOOK: Duration = Duration::from_millis(20);

/// Flips a bit in every third block of a disk's file that has the content; tells in how many.
fn rot(directory: &Path) -> u64 {
    let path = directory.join(ROTTEN.to_string()).join("data");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let (mut page, mut found, mut flipped) = ([0; 4096], 0, 0);
    for number in 0..file.metadata().unwrap().len() / BLOCK {
        file.read_exact_at(&mut page, number * BLOCK).unwrap();
        if page.iter().all(|byte| *byte == CONTENT) {
            found += 1;
            if found % 3 == 0 {
                file.write_all_at(&[CONTENT ^ 0x10], number * BLOCK + 100)
                    .unwrap();
                flipped += 1;
            }
        }
    }
    assert_eq!(found, OBJECTS * BLOCKS);
    flipped
}

/// A deep scrub to its end.
async fn scrub(remote: &Remote) -> (Totals, Vec<Finding>) {
    let (report, findings) = scrub_told(remote).await;
    (report.totals, findings)
}

/// The same, with its last report.
async fn scrub_told(remote: &Remote) -> (Report, Vec<Finding>) {
    let order = Order {
        deep: true,
        ..Order::default()
    };
    let run = remote.scrub(order).await.unwrap().unwrap();
    let mut findings = Vec::new();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let mut report = remote.scrubbed(run).await.unwrap().unwrap();
        findings.append(&mut report.findings);
        if report.done {
            return (report, findings);
        }
    }
}

/// A node, and a volume whose objects begin with the content.
async fn with_content(directory: &Path) -> (Node, Volume) {
    let node = Node::with_min_in_sync(directory, 1).await;
    node.create_volume("alpha", OBJECTS * OBJECT).await;
    let volume = node.open("alpha").await.unwrap();
    for object in 0..OBJECTS {
        let data = filled(CONTENT, BLOCKS * BLOCK);
        request::write(&volume, object * OBJECT, data).await.unwrap();
    }
    (node, volume)
}

fn in_sync(map: &ClusterMap) -> bool {
    let mut slots = map.groups_on(ROTTEN);
    slots.all(|(_, slot)| slot.state == SlotState::InSync)
}

/// Law: blocks that rot on one disk are good again after a deep scrub, and no write of a guest is lost by that.
#[test]
fn a_deep_scrub_stores_rotten_blocks_again_from_other_copies_while_a_guest_writes() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, volume) = with_content(directory.path()).await;
        node.stop_disk(ROTTEN).await;
        let flipped = rot(directory.path());
        assert!(flipped > 50);
        node.start_disk(ROTTEN).await;
        // Whoever was away is noticed by what is written.
        request::write(&volume, 100 * BLOCK, filled(2, BLOCK))
            .await
            .unwrap();
        node.until("the disk is in sync", in_sync).await;

        let (done, rounds) = (Cell::new(false), Cell::new(0u8));
        let guest = async {
            while !done.get() {
                rounds.set(rounds.get().wrapping_add(1));
                for object in 0..OBJECTS {
                    // In objects that rot, beside their rotten chunks.
                    let data = filled(rounds.get(), BLOCK);
                    request::write(&volume, object * OBJECT + 60 * BLOCK, data.clone())
                        .await
                        .unwrap();
                    request::write(&volume, object * OBJECT + 200 * BLOCK, data)
                        .await
                        .unwrap();
                }
            }
        };
        let remote = node.remote(ROTTEN);
        let looks = async {
            let found = scrub(&remote).await;
            done.set(true);
            found
        };
        let ((), (totals, findings)) = tokio::join!(guest, looks);
        assert_eq!(
            (totals.unmended, totals.differing, totals.skipped),
            (0, 0, 0),
            "{findings:?}"
        );
        assert_eq!(totals.mended, flipped);
        let mended = |finding: &Finding| matches!(finding, Finding::Mended { from, .. } if *from != ROTTEN);
        assert!(findings.iter().all(mended), "{findings:?}");

        let (again, findings) = scrub(&remote).await;
        assert_eq!((again.mended, findings), (0, Vec::new()));
        assert!(again.blocks >= OBJECTS * BLOCKS, "{again:?}");
        for other in [DiskId(2), DiskId(3)] {
            node.stop_disk(other).await;
            request::write(&volume, 101 * BLOCK, filled(3, BLOCK))
                .await
                .unwrap();
        }
        for object in 0..OBJECTS {
            let read = request::read(&volume, object * OBJECT, BLOCKS * BLOCK)
                .await
                .unwrap();
            assert_eq!(read, filled(CONTENT, BLOCKS * BLOCK), "object {object}");
            let last = request::read(&volume, object * OBJECT + 60 * BLOCK, BLOCK)
                .await
                .unwrap();
            assert_eq!(last, filled(rounds.get(), BLOCK), "object {object}");
        }
        volume.close().await;
        node.stop().await;
    });
}

/// Law: a deep scrub that a restart cut short reads what it had not read, and the next one reads all.
#[test]
fn a_deep_scrub_that_was_cut_short_goes_on_where_it_was() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut node, volume) = with_content(directory.path()).await;
        let family = Cell::new(0);
        let named = |map: &ClusterMap| {
            let (_, record) = map.volume(map.volume_named("alpha")?)?;
            family.set(record.record.family.0);
            Some(())
        };
        node.until("the volume is there", |map| named(map).is_some())
            .await;
        volume.close().await;
        node.stop_disk(ROTTEN).await;
        let flipped = rot(directory.path());
        // As the process before would have left it: half of the objects were read.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let text = format!(
            "1 {:032x} {} {} {} 7 0 0 {now}",
            u128::from_be_bytes(CLUSTER),
            ROTTEN.0,
            family.get(),
            OBJECTS / 2 - 1
        );
        let sum = checksum::crc(text.as_bytes());
        let file = directory.path().join(ROTTEN.to_string()).join("scrubbed");
        std::fs::write(&file, format!("{text} {sum}\n")).unwrap();
        node.start_disk(ROTTEN).await;
        node.until("the disk is in sync", in_sync).await;

        let remote = node.remote(ROTTEN);
        let (rest, findings) = scrub_told(&remote).await;
        assert!(rest.resumed);
        assert_eq!(rest.totals.blocks, 7 + OBJECTS / 2 * BLOCKS, "{findings:?}");
        assert_eq!(rest.totals.objects, OBJECTS, "all are compared");
        assert!(0 < rest.totals.mended && rest.totals.mended < flipped);
        assert!(!file.exists());
        let (all, _) = scrub_told(&remote).await;
        assert!(!all.resumed);
        assert_eq!(all.totals.blocks, OBJECTS * BLOCKS);
        assert_eq!(rest.totals.mended + all.totals.mended, flipped);
        node.stop().await;
    });
}
