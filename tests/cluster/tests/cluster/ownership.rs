//! Whose volume it is when something dies, stands still, or is told to let go: with real processes, killed and stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use client::device::BlockDevice;
use client::greeting::reach;
use client::request;
use client::volume::Volume;
use protocol::checksum;
use protocol::codec::Message;
use protocol::message::{Refusal, Request, Response, Scope};
use protocol::placement::placement_group;
use protocol::session::VolumeView;
use protocol::storage::{Change, ObjectWrite};
use protocol::{BlockRange, Generation, ObjectId, Stamp};
use serde_json::Value;
use test_node::{Cluster, Node, Process};

use crate::guest::{ask, fill, look, open, options, refused, run, until, value};

/// The first blocks, which the other front end writes to.
const BUSY: u64 = 64 * 4096;

async fn prepare(cluster: &Cluster) {
    let _: Value = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
    let _: Value = ask(&cluster.nodes[1], "volume create a 4M").await;
}

/// A front end as a process of its own, which writes all the time.
struct Busy {
    process: Process,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Busy {
    fn start(node: &Node, byte: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let socket = node.session_socket().display().to_string();
        let words = [socket, "a".to_owned(), byte.to_string(), "busy".to_owned()];
        let path = Path::new(env!("CARGO_BIN_EXE_front-end"));
        let mut process = Process::start_at(path, words, &log).unwrap();
        let written = || said(&log).contains("written").then_some(());
        process.wait_for("the front end to write", written).unwrap();
        Self {
            process,
            log,
            _folder: folder,
        }
    }

    /// Waits until it has said this, and gives all that it has said.
    fn until_it_says(&mut self, what: &str) -> String {
        let log = self.log.clone();
        let look = || Some(said(&log)).filter(|text| text.contains(what));
        self.process.wait_for(what, look).unwrap()
    }
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Waits until the coordination store does not know the owner any more that the volume has now.
async fn until_its_lease_lapses(cluster: &Cluster) {
    let keys = ["get", "--prefix", "--keys-only", "/cluster/storaged/owner/"];
    until(async || cluster.etcd.etcdctl(&keys).unwrap().trim().is_empty()).await;
}

#[test]
fn the_volume_of_a_node_that_is_gone_is_served_elsewhere_by_itself() {
    run(async {
        let mut cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let mut busy = Busy::start(&cluster.nodes[2], 7);
        // As a guest that HA starts elsewhere: it waits before the old one is known to be gone.
        let next = tokio::task::spawn_local(Volume::open(options(&cluster.nodes[1], "a")));
        cluster.nodes[2].kill().unwrap();
        busy.process.kill().unwrap();
        let next = next.await.unwrap().unwrap();
        next.opened().await;
        assert_eq!(value(&next, 0, 4096).await, 7);
        fill(&next, 0, 1 << 20, 8).await;
        assert_eq!(value(&next, 0, 1 << 20).await, 8);
        next.close().await;
    });
}

#[test]
fn a_front_end_whose_storaged_stood_still_for_longer_than_its_lease_goes_on_when_nobody_came() {
    run(async {
        let cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let device = open(&cluster.nodes[0], "a").await;
        let before = device.generation();
        fill(&device, 0, 1 << 20, 1).await;
        cluster.nodes[0].storaged().freeze().unwrap();
        let writes = async {
            for step in 0..64 {
                fill(&device, step * 4096, 4096, 2).await;
            }
        };
        let goes_on = async {
            until_its_lease_lapses(&cluster).await;
            cluster.nodes[0].storaged().thaw().unwrap();
        };
        tokio::join!(writes, goes_on);
        assert!(device.generation() > before);
        assert_eq!(value(&device, 0, 64 * 4096).await, 2);
        device.close().await;
        let there = open(&cluster.nodes[2], "a").await;
        assert_eq!(value(&there, 0, 64 * 4096).await, 2);
        assert_eq!(value(&there, 64 * 4096, 4096).await, 1);
        there.close().await;
    });
}

#[test]
fn volumes_go_on_when_the_coordination_store_stood_still_for_longer_than_their_leases() {
    run(async {
        let cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let device = open(&cluster.nodes[0], "a").await;
        fill(&device, 0, 1 << 20, 1).await;
        cluster.etcd.freeze(0, true).unwrap();
        // The disks vouch for it. Nothing can be asked meanwhile: only time tells that leases are over.
        let lease_limit = Duration::from_secs(6);
        let frozen = tokio::time::Instant::now();
        while frozen.elapsed() < lease_limit {
            fill(&device, 0, 4096, 3).await;
        }
        cluster.etcd.freeze(0, false).unwrap();
        fill(&device, 0, 4096, 2).await;
        assert_eq!(value(&device, 0, 4096).await, 2);
        assert_eq!(value(&device, 4096, 4096).await, 1);
        device.close().await;
    });
}

#[test]
fn a_front_end_that_stood_still_while_another_one_came_fails_for_good_and_the_disks_refuse_its_late_writes() {
    run(async {
        let cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let mut zombie = Busy::start(&cluster.nodes[0], 7);
        let old = generation(&cluster.nodes[0]).await;
        zombie.process.freeze().unwrap();
        let next = open(&cluster.nodes[1], "a").await;
        let new = next.generation();
        assert!(new > old);
        fill(&next, 0, usize::try_from(BUSY).unwrap(), 9).await;

        // What the zombie would send if it did not look at its clock.
        let view = look(&cluster.nodes[1], "a").await;
        for disk in 0..view.disks.len() {
            let refusal = late_write(&view, disk, old).await;
            assert_eq!(refusal, Response::Refused(Refusal::Fenced(new)));
        }
        zombie.process.thaw().unwrap();
        let told = zombie.until_it_says("failed again");
        let lost = "the volume was taken over by another process";
        assert!(told.contains(&format!("failed: {lost}; {lost}")), "{told}");
        assert!(told.contains(&format!("failed again: {lost}")), "{told}");
        assert_eq!(value(&next, 0, BUSY).await, 9);
        next.close().await;
        // Not even when its successor is gone: the guest there remembers another disk.
        let refused = request::read(&open(&cluster.nodes[2], "a").await, 0, 4096).await;
        assert_eq!(refused.unwrap()[0], 9);
    });
}

/// The generation of the present owner.
async fn generation(node: &Node) -> Generation {
    let info: admin_api::volumes::Volume = ask(node, "volume info a").await;
    Generation(info.owner.unwrap().generation)
}

/// Sends a write of a former generation to a disk; its answer.
async fn late_write(view: &VolumeView, disk: usize, generation: Generation) -> Response {
    let count = u32::try_from(view.groups.len()).unwrap();
    let pg = placement_group(view.pool, count, view.family, 0);
    let group = view.groups.iter().find(|group| group.pg == pg).unwrap();
    let scope = Scope {
        pg,
        interval: group.interval,
        volume: view.volume,
        generation,
        revision: view.revision,
    };
    let bytes = Bytes::from(vec![7; 4096]);
    let write = ObjectWrite {
        object: ObjectId {
            family: view.family,
            index: 0,
            layer: view.head,
        },
        follows: Stamp { generation, count: 1 },
        stamp: Stamp {
            generation,
            count: 1 << 40,
        },
        range: BlockRange::new(0, 1).unwrap(),
        change: Change::Data {
            checksums: checksum::of_blocks(&bytes),
            bytes,
        },
        use_reserve: false,
        floor: Stamp::ZERO,
    };
    let mut greeted = reach(&view.disks[disk], view.cluster, 1..=2, None).await.unwrap();
    let request = Request::Write { scope, write };
    greeted.link.outbox.push_request(1, &request);
    match greeted.link.converse().await.unwrap() {
        (1, Message::Response(response)) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operator_takes_a_volume_from_whoever_has_it() {
    run(async {
        let cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let says = refused(&cluster.nodes[0], "volume take-over a --yes");
        assert!(says.contains("nobody has volume \"a\" open"), "{says}");
        let mut former = Busy::start(&cluster.nodes[0], 7);
        let says = refused(&cluster.nodes[2], "volume take-over a");
        assert!(
            says.contains("from front-end") && says.contains("--yes"),
            "{says}"
        );
        let next = tokio::task::spawn_local(Volume::open(options(&cluster.nodes[1], "a")));
        let _: Value = ask(&cluster.nodes[2], "volume take-over a --yes").await;
        let next = next.await.unwrap().unwrap();
        next.opened().await;
        fill(&next, 0, usize::try_from(BUSY).unwrap(), 9).await;
        let told = former.until_it_says("failed again");
        assert!(told.contains("taken over by another process"), "{told}");
        assert_eq!(value(&next, 0, BUSY).await, 9);
        next.close().await;
        let events = cluster.nodes[1].storagectl(&["events"]).unwrap();
        assert!(events.contains("volume a was taken from front-end"), "{events}");
    });
}

#[test]
fn what_an_operator_took_is_not_taken_again_by_the_former_owner_if_nobody_waits_for_it() {
    run(async {
        let cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let former = open(&cluster.nodes[0], "a").await;
        let _: Value = ask(&cluster.nodes[0], "volume take-over a --yes").await;
        while request::write(&former, 0, Bytes::from(vec![1; 4096]))
            .await
            .is_ok()
        {}
        let info: admin_api::volumes::Volume = ask(&cluster.nodes[0], "volume info a").await;
        assert_eq!(info.owner, None);
    });
}

#[test]
fn a_volume_whose_owner_s_node_is_down_is_snapshotted_when_its_lease_has_lapsed() {
    run(async {
        let mut cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let device = open(&cluster.nodes[2], "a").await;
        fill(&device, 0, 1 << 20, 1).await;
        // Its front end lives, and goes on when its storaged is there again: after the snapshot.
        cluster.nodes[2].kill().unwrap();
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;
        let _: Value = ask(&cluster.nodes[0], "volume clone a@monday b").await;
        let _: Value = ask(&cluster.nodes[0], "volume grow a 8M").await;
        let comes = async { cluster.nodes[2].start_again().unwrap() };
        tokio::join!(fill(&device, 0, 4096, 2), comes);
        assert_eq!(value(&device, 0, 4096).await, 2);
        assert_eq!(value(&device, 4096, 4096).await, 1);
        device.refresh().await;
        assert_eq!(device.info().size, 8 << 20);
        let snapshot = open(&cluster.nodes[0], "a@monday").await;
        assert_eq!(value(&snapshot, 0, 1 << 20).await, 1);
        snapshot.close().await;
        device.close().await;
    });
}

#[test]
fn an_owner_on_a_node_that_is_known_to_be_down_is_waited_for_until_its_lease_lapses() {
    run(async {
        let mut cluster = Cluster::start(2, 1).unwrap();
        for index in 0..2 {
            // The node's lease lapses first.
            let configuration = cluster.configuration(index + 1, "/cluster").unwrap();
            let configuration = configuration.replace("lease_ms = 2000", "lease_ms = 9000");
            cluster.nodes[index].stop().unwrap();
            cluster.nodes[index].configure(&configuration).unwrap();
            cluster.nodes[index].start_again().unwrap();
        }
        let _: Value = ask(
            &cluster.nodes[0],
            "pool create main --copies 1 --disks 1 --groups 4",
        )
        .await;
        let _: Value = ask(&cluster.nodes[0], "volume create a 4M").await;
        let device = open(&cluster.nodes[1], "a").await;
        fill(&device, 0, 4096, 1).await;
        cluster.nodes[1].kill().unwrap();
        let down = async {
            loop {
                let nodes: admin_api::nodes::NodeList = ask(&cluster.nodes[0], "node list").await;
                if nodes.nodes[1].state == admin_api::nodes::NodeState::Down {
                    return;
                }
            }
        };
        down.await;
        let info: admin_api::volumes::Volume = ask(&cluster.nodes[0], "volume info a").await;
        assert!(info.owner.is_some(), "its lease has lapsed too soon");
        let _: Value = ask(&cluster.nodes[0], "volume snapshot a monday").await;
        let snapshot = open(&cluster.nodes[0], "a@monday").await;
        assert_eq!(value(&snapshot, 0, 4096).await, 1);
        snapshot.close().await;
    });
}
