//! Volumes that several front ends have open at once: what one had acknowledged the others see, and when the owner dies
//! nobody notices but by a pause.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::device::{BlockDevice, DeviceError};
use client::request;
use client::shared::SharedVolume;
use client::volume::{OpenError, Options, Volume};
use protocol::session::SessionRefusal;
use serde_json::Value;
use test_node::{Cluster, Node};

use crate::gateway::{Client, Gateway};
use crate::guest::{ask, open, options, run};

const BLOCK: u64 = 4096;
/// Between looks.
const LOOK_LIMIT: Duration = Duration::from_millis(200);

async fn prepare(cluster: &Cluster) {
    let _: Value = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
    let _: Value = ask(&cluster.nodes[1], "volume create a 16M").await;
}

/// How many attachments there are.
async fn attachments(cluster: &Cluster) -> usize {
    let mut etcdctl = tokio::process::Command::new(test_node::etcd::program("etcdctl").unwrap());
    etcdctl
        .env("ETCDCTL_API", "3")
        .arg("--endpoints")
        .arg(cluster.etcd.endpoint(0));
    let keys = ["get", "--prefix", "--keys-only", "/cluster/storaged/attached/"];
    let output = etcdctl.args(keys).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout)
        .matches("attached")
        .count()
}

async fn share(node: &Node) -> SharedVolume {
    SharedVolume::open(options(node, "a")).await.unwrap()
}

async fn fill(device: &SharedVolume, offset: u64, length: usize, value: u8) {
    request::write(device, offset, Bytes::from(vec![value; length]))
        .await
        .unwrap();
}

async fn value(device: &SharedVolume, offset: u64, length: u64) -> u8 {
    let bytes = request::read(device, offset, length).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "the range is mixed");
    bytes[0]
}

#[test]
fn each_sees_at_once_what_the_others_had_acknowledged_and_any_of_them_may_leave() {
    run(async {
        let cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let first = share(&cluster.nodes[0]).await;
        // One on the same node, by its socket, and one on another node, over TLS.
        let second = share(&cluster.nodes[0]).await;
        let third = share(&cluster.nodes[2]).await;
        assert!(first.volume().is_some() && second.volume().is_none() && third.volume().is_none());
        let all = [&first, &second, &third];
        for (round, writer) in (1..).zip(all) {
            // Over the border of two objects, and in several pieces.
            fill(writer, 3 << 20, 2 << 20, round).await;
            for reader in all {
                assert_eq!(value(reader, 3 << 20, 2 << 20).await, round);
            }
        }
        request::discard(&third, 3 << 20, 1 << 20).await.unwrap();
        request::flush(&third).await.unwrap();
        assert_eq!(value(&second, 3 << 20, 1 << 20).await, 0);
        let _: Value = ask(&cluster.nodes[1], "volume snapshot a monday").await;

        first.close().await;
        fill(&third, 0, 1 << 20, 7).await;
        assert_eq!(value(&second, 0, 1 << 20).await, 7);
        let fourth = share(&cluster.nodes[1]).await;
        assert_eq!(value(&fourth, 0, 1 << 20).await, 7);
        for leaves in [second, third] {
            leaves.close().await;
        }
        fill(&fourth, 0, 4096, 8).await;
        fourth.close().await;
        // Nothing is left of it.
        let alone = open(&cluster.nodes[0], "a").await;
        assert_eq!(crate::guest::value(&alone, 0, 4096).await, 8);
        alone.close().await;
        let snapshot = open(&cluster.nodes[0], "a@monday").await;
        assert_eq!(crate::guest::value(&snapshot, 4 << 20, 1 << 20).await, 3);
        snapshot.close().await;
    });
}

#[test]
fn who_shares_and_who_does_not_exclude_each_other() {
    run(async {
        let cluster = Cluster::start(2, 1).unwrap();
        let _: Value = ask(&cluster.nodes[0], "pool create main --copies 2 --groups 4").await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 4M").await;
        let impatient = |node| Options {
            wait: Duration::from_millis(300),
            ..options(node, "a")
        };
        let alone = open(&cluster.nodes[0], "a").await;
        let refused = SharedVolume::open(impatient(&cluster.nodes[1])).await;
        let Err(OpenError::Refused { kind, message }) = refused.map(drop) else {
            panic!("a volume is shared with one who does not share it");
        };
        assert_eq!(kind, SessionRefusal::Busy);
        assert!(message.contains("does not share it"), "{message}");
        alone.close().await;
        let shared = share(&cluster.nodes[1]).await;
        let refused = Volume::open(impatient(&cluster.nodes[0])).await;
        assert!(matches!(refused.map(drop), Err(OpenError::Refused { .. })));
        shared.close().await;
        open(&cluster.nodes[0], "a").await.close().await;
    });
}

/// Writes its own stripe of blocks through a gateway, one number after the other, until it is told to stop or the
/// gateway dies; what every block holds by then, and what it may hold.
struct Writer {
    thread: JoinHandle<Written>,
    progress: Arc<AtomicU64>,
}

struct Written {
    /// Acknowledged last, by block.
    acknowledged: Vec<u64>,
    /// What was not answered: block and number.
    open: Option<(usize, u64)>,
    longest: Duration,
    count: u64,
}

const STRIPE: usize = 64;
/// Nothing takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Writer {
    fn start(socket: &Path, stripe: u64, stop: &Arc<AtomicBool>) -> Self {
        let mut client = Client::connect(socket, "a");
        let stop = Arc::clone(stop);
        let progress = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&progress);
        let thread = std::thread::spawn(move || {
            let mut written = Written {
                acknowledged: vec![0; STRIPE],
                open: None,
                longest: Duration::ZERO,
                count: 0,
            };
            while !stop.load(Ordering::Relaxed) {
                written.count += 1;
                let number = written.count << 8 | stripe;
                let block = usize::try_from(written.count).unwrap() % STRIPE;
                let began = Instant::now();
                if client.write(at(stripe, block), &filled(number)).is_err() {
                    written.open = Some((block, number));
                    return written;
                }
                written.longest = written.longest.max(began.elapsed());
                written.acknowledged[block] = number;
                told.store(written.count, Ordering::Relaxed);
            }
            written
        });
        Self { thread, progress }
    }

    /// Waits until it has written so many blocks more.
    async fn until_it_wrote(&self, more: u64) {
        let goal = self.progress.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + PATIENCE;
        while self.progress.load(Ordering::Relaxed) < goal {
            assert!(Instant::now() < deadline, "nothing is written any more");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends it, and reads what it wrote through another gateway.
    fn check(self, stripe: u64, reader: &mut Client) -> Written {
        let written = self.thread.join().unwrap();
        for (block, acknowledged) in written.acknowledged.iter().enumerate() {
            let found = number(&reader.read(at(stripe, block), 4096).unwrap());
            let may = written.open == Some((block, found));
            assert!(
                found == *acknowledged || may,
                "block {block} of stripe {stripe} has {found}, not {acknowledged}"
            );
        }
        written
    }
}

fn at(stripe: u64, block: usize) -> u64 {
    (stripe * u64::try_from(STRIPE).unwrap() + u64::try_from(block).unwrap()) * BLOCK
}

fn filled(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(512)
}

fn number(block: &[u8]) -> u64 {
    let number = u64::from_le_bytes(block[..8].try_into().unwrap());
    assert_eq!(block, filled(number), "a block is mixed");
    number
}

/// Writes one block that others write too, and reads it: what was overwritten must never come up again.
fn contend(socket: &Path, who: u64, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let mut client = Client::connect(socket, "a");
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let (mut count, mut last, mut over) = (0, 0, BTreeSet::new());
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            client.write(15 << 20, &filled(count << 8 | who)).unwrap();
            for _ in 0..3 {
                let found = number(&client.read(15 << 20, 4096).unwrap());
                if found != last {
                    over.insert(last);
                    last = found;
                }
                assert!(!over.contains(&found), "{found:#x} came up again");
            }
        }
        count
    })
}

#[test]
fn the_owner_is_killed_under_load_and_the_others_lose_nothing_and_see_no_error() {
    run(async {
        let cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let mut gateways: Vec<Gateway> = cluster.nodes.iter().map(Gateway::start).collect();
        let stop = Arc::new(AtomicBool::new(false));
        // The first that is used owns the volume.
        let mut owner = Client::connect(&gateways[0].socket(), "a");
        owner.write(0, &filled(1)).unwrap();
        assert!(gateways[0].said().contains("owns the shared volume"));
        let writers: Vec<Writer> = (0..3)
            .map(|index| Writer::start(&gateways[usize::try_from(index).unwrap()].socket(), index, &stop))
            .collect();
        let contenders: Vec<_> = (1..3)
            .map(|index| contend(&gateways[usize::try_from(index).unwrap()].socket(), index, &stop))
            .collect();
        for writer in &writers {
            writer.until_it_wrote(200).await;
        }
        gateways[0].process.kill().unwrap();
        for writer in &writers[1..] {
            writer.until_it_wrote(200).await;
        }
        stop.store(true, Ordering::Relaxed);
        for contender in contenders {
            assert!(contender.join().unwrap() > 0);
        }
        let mut reader = Client::connect(&gateways[2].socket(), "a");
        for (index, writer) in (0..).zip(writers) {
            let written = writer.check(index, &mut reader);
            println!(
                "stripe {index}: {} writes, the longest {:?}",
                written.count, written.longest
            );
            assert_eq!(written.open.is_some(), index == 0);
        }
        // A third one comes, where the dead one was.
        let again = Gateway::start(&cluster.nodes[0]);
        let mut third = Client::connect(&again.socket(), "a");
        let mut second = Client::connect(&gateways[1].socket(), "a");
        third.write(14 << 20, &filled(77)).unwrap();
        assert_eq!(number(&second.read(14 << 20, 4096).unwrap()), 77);
    });
}

#[test]
fn the_owner_s_whole_node_is_lost_and_the_others_go_on_when_its_lease_has_lapsed() {
    run(async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let mut gateways: Vec<Gateway> = cluster.nodes.iter().map(Gateway::start).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut owner = Client::connect(&gateways[0].socket(), "a");
        owner.write(0, &filled(1)).unwrap();
        let writers: Vec<Writer> = (1..3)
            .map(|index| Writer::start(&gateways[usize::try_from(index).unwrap()].socket(), index, &stop))
            .collect();
        for writer in &writers {
            writer.until_it_wrote(100).await;
        }
        cluster.nodes[0].kill().unwrap();
        gateways[0].process.kill().unwrap();
        for writer in &writers {
            writer.until_it_wrote(100).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut reader = Client::connect(&gateways[2].socket(), "a");
        for (index, writer) in (1..).zip(writers) {
            let written = writer.check(index, &mut reader);
            println!(
                "stripe {index}: {} writes, the longest {:?}",
                written.count, written.longest
            );
            assert_eq!(written.open, None);
        }
    });
}

#[test]
fn an_attachment_that_stood_still_until_it_lapsed_fails_and_what_it_had_sent_is_not_done_later() {
    run(async {
        let cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let first = share(&cluster.nodes[0]).await;
        fill(&first, 0, 4096, 1).await;
        let gateway = Gateway::start(&cluster.nodes[1]);
        let stop = Arc::new(AtomicBool::new(false));
        // On another thread: the owner that the gateway asks lives on this one.
        let socket = gateway.socket();
        let started = tokio::task::spawn_blocking(move || Writer::start(&socket, 1, &stop));
        let writer = started.await.unwrap();
        writer.until_it_wrote(100).await;
        gateway.process.freeze().unwrap();
        // On other tasks of this thread the first one's leases are kept meanwhile.
        until_attachments(&cluster, 1).await;
        fill(&first, 64 * BLOCK, 64 * 4096, 9).await;
        gateway.process.thaw().unwrap();
        let written = tokio::task::spawn_blocking(|| writer.thread.join().unwrap());
        assert!(written.await.unwrap().open.is_some());
        assert_eq!(value(&first, 64 * BLOCK, 64 * 4096).await, 9);
        first.close().await;
    });
}

/// Waits until there are no more attachments than so many: the others have lapsed.
async fn until_attachments(cluster: &Cluster, number: usize) {
    let deadline = Instant::now() + PATIENCE;
    while attachments(cluster).await > number {
        assert!(Instant::now() < deadline, "an attachment does not lapse");
        tokio::time::sleep(LOOK_LIMIT).await;
    }
}

#[test]
fn storaged_is_away_until_an_attachment_has_lapsed_and_the_guest_only_waits() {
    // Defect guarded: a host's block devices failed for good when its `storaged` was away for longer than a lease.
    run(async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let gateway = Gateway::start(&cluster.nodes[0]);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = Writer::start(&gateway.socket(), 0, &stop);
        for time in 0..3 {
            writer.until_it_wrote(100).await;
            cluster.nodes[0].kill().unwrap();
            until_attachments(&cluster, 0).await;
            cluster.nodes[0].start_again().unwrap();
            writer.until_it_wrote(100).await;
            assert_eq!(attachments(&cluster).await, 1, "time {time}");
        }
        stop.store(true, Ordering::Relaxed);
        // Another one sees it all: who came back counts among those who share.
        let other = Gateway::start(&cluster.nodes[1]);
        let mut reader = Client::connect(&other.socket(), "a");
        let written = writer.check(0, &mut reader);
        println!("{} writes, the longest {:?}", written.count, written.longest);
        assert_eq!(written.open, None);
        assert!(gateway.said().contains("the attachment is connected again"));
    });
}

#[test]
fn an_attachment_does_not_come_back_when_another_one_has_owned_the_volume_meanwhile() {
    run(async {
        let mut cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let gateways: Vec<Gateway> = cluster.nodes[..2].iter().map(Gateway::start).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let first = Writer::start(&gateways[0].socket(), 0, &stop);
        first.until_it_wrote(100).await;
        let second = Writer::start(&gateways[1].socket(), 1, &stop);
        second.until_it_wrote(100).await;
        cluster.nodes[0].kill().unwrap();
        until_attachments(&cluster, 1).await;
        second.until_it_wrote(100).await;
        cluster.nodes[0].start_again().unwrap();
        let said = || gateways[0].said();
        let deadline = Instant::now() + PATIENCE;
        while !said().contains("does not come back") {
            assert!(Instant::now() < deadline, "it is not refused: {}", said());
            tokio::time::sleep(LOOK_LIMIT).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut reader = Client::connect(&gateways[1].socket(), "a");
        assert!(first.check(0, &mut reader).open.is_some());
        assert_eq!(second.check(1, &mut reader).open, None);
    });
}

#[test]
fn a_shared_volume_takes_whole_blocks_only_but_by_the_layer_for_parts_of_them() {
    run(async {
        let cluster = Cluster::start(1, 1).unwrap();
        let _: Value = ask(&cluster.nodes[0], "pool create main --copies 1 --groups 4").await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 4M").await;
        let device = share(&cluster.nodes[0]).await;
        assert_eq!(device.info().alignment, 4096);
        let part = request::write(&device, 512, Bytes::from(vec![1; 512])).await;
        assert!(matches!(part, Err(DeviceError::Invalid { .. })));
        device.close().await;
    });
}
