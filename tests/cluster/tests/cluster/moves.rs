//! A volume goes from one node to another: when its front end was killed, and when its guest moves.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use client::device::{BlockDevice, DeviceEvent};
use client::volume::{OpenError, Options, Volume};
use protocol::session::SessionRefusal;
use serde_json::Value;
use test_node::{Cluster, Process};
use tokio::sync::Notify;

use crate::guest::{ask, fill, open, options, run, value};

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3, 1).unwrap();
    let _: Value = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
    let _: Value = ask(&cluster.nodes[1], "volume create a 4M").await;
    cluster
}

#[test]
fn a_volume_is_opened_on_another_node_after_its_front_end_or_its_whole_node_was_killed() {
    run(async {
        let mut cluster = cluster().await;
        let folder = tempfile::tempdir().unwrap();
        for (from, to, byte) in [(0, 2, 7), (2, 1, 8)] {
            let log = folder.path().join(format!("{byte}.log"));
            let socket = cluster.nodes[from].session_socket().display().to_string();
            let words = [socket, "a".to_owned(), byte.to_string()];
            let path = Path::new(env!("CARGO_BIN_EXE_front-end"));
            let mut front_end = Process::start_at(path, words, &log).unwrap();
            let written = || front_end_said(&log).contains("written").then_some(());
            front_end.wait_for("the front end to write", written).unwrap();

            let impatient = Options {
                wait: std::time::Duration::ZERO,
                ..options(&cluster.nodes[to], "a")
            };
            let Err(OpenError::Refused { kind, message }) = Volume::open(impatient).await else {
                panic!("two have the volume open");
            };
            assert_eq!(kind, SessionRefusal::Busy);
            assert!(message.contains(&format!("on node-{}", from + 1)), "{message}");

            // The second time its storaged dies with it, and nobody gives the volume back: its lease lapses.
            let whole_node = from == 2;
            if whole_node {
                cluster.nodes[from].kill().unwrap();
            }
            front_end.kill().unwrap();
            let opened = Volume::open(options(&cluster.nodes[to], "a")).await.unwrap();
            if whole_node {
                cluster.nodes[from].start_again().unwrap();
            }
            opened.opened().await;
            assert_eq!(value(&opened, 0, 4096).await, byte);
            opened.close().await;
        }
    });
}

fn front_end_said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

#[test]
fn a_volume_is_handed_over_to_the_node_that_its_guest_moves_to() {
    run(async {
        let cluster = cluster().await;
        let source = open(&cluster.nodes[0], "a").await;
        fill(&source, 0, 4096, 1).await;
        let wanted = Rc::new(Notify::new());
        let told = Rc::new(Cell::new(0));
        let (tell, count) = (Rc::clone(&wanted), Rc::clone(&told));
        source.listen(Box::new(move |event| {
            if event == DeviceEvent::Wanted {
                count.set(count.get() + 1);
                tell.notify_one();
            }
        }));
        let leave = async {
            wanted.notified().await;
            fill(&source, 0, 4096, 2).await;
            source.close().await;
        };
        let mut ring = None;
        let (opened, ()) = tokio::join!(Volume::succeed(options(&cluster.nodes[2], "a"), &mut ring), leave);
        let destination = opened.unwrap();
        destination.opened().await;
        assert!(told.get() > 0);
        assert_eq!(value(&destination, 0, 4096).await, 2);
        // Nothing of the wish is left: the next owner is not asked to leave.
        let left = cluster
            .etcd
            .etcdctl(&["get", "--prefix", "--keys-only", "/cluster/storaged/want/"]);
        assert_eq!(left.unwrap().trim(), "");
        destination.close().await;
    });
}
