//! The data path from a front end's calls to the disks' files: real sockets, real stores, three
//! copies, in one process. `kill-tests` does the same with processes that are killed.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

mod coming_back;
mod direct;
mod encoded;
mod eviction;
mod giving_up;
mod limits;
mod model;
mod moving;
mod node;
mod scrubbing;

use bytes::Bytes;
use client::device::{BlockDevice, DeviceError};
use client::request;
use client::volume::OpenError;
use protocol::session::SessionRefusal;
use tokio::task::LocalSet;

use node::Node;

const BLOCK: u64 = 4096;
const OBJECT: u64 = 4 << 20;

/// Runs a test on one thread, as front ends run.
fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn filled(byte: u8, length: u64) -> Bytes {
    Bytes::from(vec![byte; usize::try_from(length).unwrap()])
}

/// Law: what was written is read back, also by the next owner after a restart of everything.
#[test]
fn what_was_written_is_read_by_this_owner_and_by_the_next_after_a_restart() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", 64 << 20).await;
        let volume = node.open("alpha").await.unwrap();
        assert_eq!(volume.info().size, 64 << 20);
        // Within an object, over the border of two, and a whole one.
        let places = [
            (0, BLOCK, 1),
            (OBJECT - 2 * BLOCK, 4 * BLOCK, 2),
            (2 * OBJECT, OBJECT, 3),
        ];
        for (offset, length, byte) in places {
            request::write(&volume, offset, filled(byte, length))
                .await
                .unwrap();
        }
        request::discard(&volume, OBJECT, BLOCK).await.unwrap();
        request::flush(&volume).await.unwrap();
        let check = async |volume: &dyn BlockDevice| {
            assert_eq!(request::read(volume, 0, BLOCK).await.unwrap(), filled(1, BLOCK));
            assert_eq!(
                request::read(volume, BLOCK, BLOCK).await.unwrap(),
                filled(0, BLOCK)
            );
            let border = request::read(volume, OBJECT - 2 * BLOCK, 4 * BLOCK)
                .await
                .unwrap();
            assert_eq!(border[..8192], filled(2, 8192));
            assert_eq!(border[8192..12288], filled(0, 4096));
            assert_eq!(border[12288..], filled(2, 4096));
            assert_eq!(
                request::read(volume, 2 * OBJECT, OBJECT).await.unwrap(),
                filled(3, OBJECT)
            );
        };
        check(&volume).await;
        volume.close().await;
        node.stop().await;
        let node = Node::start(directory.path()).await;
        let volume = node.open("alpha").await.unwrap();
        check(&volume).await;
        volume.close().await;
        node.stop().await;
    });
}

/// Law (P4): a volume has one owner. Another one is told who it is, or waits until it leaves.
#[test]
fn a_second_opener_is_refused_or_waits_for_the_first_to_leave() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", 1 << 20).await;
        let first = node.open("alpha").await.unwrap();
        let error = node.open("alpha").await.err().unwrap();
        let OpenError::Refused { kind, message } = error else {
            panic!("{error}")
        };
        assert_eq!(kind, SessionRefusal::Busy);
        assert!(message.contains("in use by test"), "{message}");
        let mut patient = node.options("alpha");
        patient.wait = std::time::Duration::from_mins(1);
        let (second, ()) = tokio::join!(client::volume::Volume::open(patient), first.close());
        let second = second.unwrap();
        request::write(&second, 0, filled(2, BLOCK)).await.unwrap();
        let refused = request::write(&first, 0, filled(1, BLOCK)).await;
        assert_eq!(refused, Err(DeviceError::Closed));
        second.close().await;
        node.stop().await;
    });
}

/// Law: a wrong name gets a sentence, and changes nothing.
#[test]
fn a_volume_that_does_not_exist_cannot_be_opened() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::create(directory.path()).await;
        let error = node.open("beta").await.err().unwrap();
        assert_eq!(error.to_string(), "there is no volume \"beta\"");
        node.stop().await;
    });
}

/// Defect guarded: the second snapshot was refused when it came before the front end had heard that
/// the first one was done.
#[test]
fn snapshots_follow_one_another_without_a_pause() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", 1 << 20).await;
        let volume = node.open("alpha").await.unwrap();
        for number in 0..20 {
            request::write(&volume, 0, filled(number, BLOCK)).await.unwrap();
            node.volumes
                .snapshot("alpha", &format!("s{number}"))
                .await
                .unwrap();
        }
        volume.close().await;
        for number in 0..20 {
            let mut options = node.options("alpha");
            options.snapshot = Some(format!("s{number}"));
            let snapshot = client::volume::Volume::open(options).await.unwrap();
            assert_eq!(
                request::read(&snapshot, 0, BLOCK).await.unwrap(),
                filled(number, BLOCK)
            );
            snapshot.close().await;
        }
        node.stop().await;
    });
}
