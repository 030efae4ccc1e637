//! Volumes with limits, through real clients: no more is done than the limits allow, other limits hold at once, and what waits
//! stands in nobody's way.
//!
//! What is asserted of time follows from the tokens: so many operations cannot be done sooner. Nothing is asserted of how soon
//! they are, but that all of them are.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use admin_api::limits::VolumeLimits;
use client::device::{BlockDevice, Operation, Outcome};
use client::request;
use client::shared::SharedVolume;
use client::throttle::Throttled;
use client::volume::{Options, Volume};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::node::Node;
use crate::{BLOCK, filled, on_one_thread};

const SIZE: u64 = 16 << 20;
/// For what must not take the minutes that a limit would make of it.
const PATIENCE: Duration = Duration::from_secs(45);
/// The clock that limits go by has steps of a millisecond; twice, for both ends of a span.
const CLOCK_STEPS: Duration = Duration::from_millis(2);

/// Operations that were submitted together.
#[derive(Default)]
struct Batch {
    left: Cell<usize>,
    done: Notify,
}

impl Batch {
    fn submit(device: &dyn BlockDevice, operations: impl IntoIterator<Item = Operation>) -> Rc<Self> {
        let batch = Rc::new(Self::default());
        for operation in operations {
            batch.left.set(batch.left.get() + 1);
            let this = Rc::clone(&batch);
            let done = move |answer: Result<Outcome, _>| {
                answer.unwrap();
                this.left.set(this.left.get() - 1);
                this.done.notify_waiters();
            };
            device.submit(operation, Box::new(done));
        }
        batch
    }

    async fn finished(&self) {
        while self.left.get() > 0 {
            self.done.notified().await;
        }
    }
}

fn writes(count: u64) -> impl Iterator<Item = Operation> {
    (0..count).map(|number| Operation::Write {
        offset: number * BLOCK % SIZE,
        data: vec![filled(7, BLOCK)],
    })
}

fn reads(count: u64, length: u64) -> impl Iterator<Item = Operation> {
    (0..count).map(move |number| Operation::Read {
        offset: number * length % SIZE,
        length,
    })
}

/// A node with a volume that has these limits, and the volume.
async fn limited(directory: &std::path::Path, limits: VolumeLimits) -> (Node, Volume) {
    let node = Node::create(directory).await;
    node.create_volume("alpha", SIZE).await;
    node.volumes.limit("alpha", &limits).await.unwrap();
    let volume = node.open("alpha").await.unwrap();
    volume.opened().await;
    (node, volume)
}

fn write_iops(limit: u64) -> VolumeLimits {
    VolumeLimits {
        write_iops_sec: Some(limit),
        ..VolumeLimits::default()
    }
}

/// Law: N operations take at least (N - burst) / rate seconds, and all of them are done; those of the other direction do not wait.
#[test]
fn a_volume_with_limits_does_no_more_than_they_allow() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let limits = VolumeLimits {
            read_bytes_sec: Some(8 << 20),
            write_iops_sec_max: Some(60),
            ..write_iops(50)
        };
        let (node, volume) = limited(directory.path(), limits).await;
        let began = Instant::now();
        let writes = Batch::submit(&volume, writes(160));
        let flush = Batch::submit(&volume, [Operation::Flush]);
        writes.finished().await;
        assert!(
            began.elapsed() + CLOCK_STEPS >= Duration::from_secs(2),
            "(160 - 60) / 50"
        );
        flush.finished().await;
        // The flush comes after all of them.
        let waited = volume.throttled();
        assert!((1..=101).contains(&waited.requests), "{waited:?}");

        // Each read is more than fits in: it is owed, and the next one waits for that.
        let began = Instant::now();
        Batch::submit(&volume, reads(9, 2 << 20)).finished().await;
        assert!(
            began.elapsed() + CLOCK_STEPS >= Duration::from_secs(2),
            "(9 - 1) * 2 / 8"
        );
        volume.close().await;
        node.stop().await;
    });
}

/// Law: other limits reach whoever has the volume open, and hold for what waits already; without limits nothing waits.
#[test]
fn other_limits_hold_at_once_for_a_volume_that_is_open() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (node, volume) = limited(directory.path(), VolumeLimits::default()).await;
        Batch::submit(&volume, writes(300)).finished().await;
        assert_eq!(volume.throttled(), Throttled::default());
        node.volumes.limit("alpha", &write_iops(1)).await.unwrap();
        // It is told with the next view; each that is not told yet is one more write.
        while volume.throttled().requests == 0 {
            Batch::submit(&volume, writes(3)).finished().await;
        }
        // At one a second these would take minutes.
        let slow = Batch::submit(&volume, writes(200));
        assert!(slow.left.get() > 190);
        assert!(
            volume
                .waiting()
                .iter()
                .any(|reason| reason.contains("has limits"))
        );
        node.volumes
            .limit("alpha", &VolumeLimits::default())
            .await
            .unwrap();
        timeout(PATIENCE, slow.finished()).await.unwrap();
        let waited = volume.throttled().requests;
        Batch::submit(&volume, writes(300)).finished().await;
        assert_eq!(volume.throttled().requests, waited);
        volume.close().await;
        node.stop().await;
    });
}

/// Law: reads that wait hold back no write, no flush, no snapshot and no close.
#[test]
fn what_waits_stands_in_nobodys_way() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let limits = VolumeLimits {
            read_iops_sec: Some(1),
            ..VolumeLimits::default()
        };
        let (node, volume) = limited(directory.path(), limits).await;
        let slow = Batch::submit(&volume, reads(200, BLOCK));
        let others = async {
            request::write(&volume, 0, filled(3, BLOCK)).await.unwrap();
            request::flush(&volume).await.unwrap();
            let differs = request::compare_and_write(&volume, 0, filled(3, BLOCK), filled(4, BLOCK)).await;
            assert_eq!(differs, Ok(None));
            node.volumes.snapshot("alpha", "s").await.unwrap();
        };
        timeout(PATIENCE, others).await.unwrap();
        assert!(slow.left.get() > 0, "the reads were to wait");
        timeout(PATIENCE, volume.close()).await.unwrap();
        assert_eq!(slow.left.get(), 0, "a close finishes what was submitted");
        node.stop().await;
    });
}

/// Law: what is hurried is begun at once, and counts against what comes later.
#[test]
fn what_is_hurried_is_owed() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let (node, volume) = limited(directory.path(), write_iops(100)).await;
        let all = Batch::submit(&volume, writes(110));
        let began = Instant::now();
        volume.hurry();
        Batch::submit(&volume, writes(100)).finished().await;
        assert_eq!(all.left.get(), 0);
        assert!(
            began.elapsed() + CLOCK_STEPS >= Duration::from_secs(2),
            "(210 - 10) / 100"
        );
        volume.close().await;
        node.stop().await;
    });
}

/// Law: those who share a volume share its limits: whoever owns it keeps to them for all.
#[test]
fn those_who_share_a_volume_share_its_limits() {
    on_one_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", SIZE).await;
        node.volumes.limit("alpha", &write_iops(50)).await.unwrap();
        let options = Options {
            wait: PATIENCE,
            ..node.options("alpha")
        };
        let first = SharedVolume::open(options.clone()).await.unwrap();
        let second = SharedVolume::open(options).await.unwrap();
        let began = Instant::now();
        let batches = [&first, &second].map(|volume| Batch::submit(volume, writes(55)));
        for batch in batches {
            batch.finished().await;
        }
        assert!(
            began.elapsed() + CLOCK_STEPS >= Duration::from_millis(2100),
            "(110 - 5) / 50"
        );
        second.close().await;
        first.close().await;
        node.stop().await;
    });
}
