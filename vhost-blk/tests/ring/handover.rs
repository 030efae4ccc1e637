//! How rings change hands between the threads, and how a process ends.

use std::fs::File;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;

use client::device::BlockDevice;
use client::memory::MemoryDevice;
use tokio::sync::{mpsc, oneshot};
use vhost_blk::backing::Backing;
use vhost_blk::ring::Legacy;
use vhost_blk::worker::{COMMANDS_MAX, Command, Worker};
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;

use crate::guest::{DATA, Guest};

fn eventfd() -> File {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)
        .unwrap()
        .into()
}

/// Lets everything that can go on go on.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_shutdown_waits_for_a_ring_that_is_just_being_stopped() {
    // Defect guarded: SIGTERM cut off the wait for a ring that the front end was stopping, so the process
    // ended with that ring's requests unanswered.
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, false);
    guest.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (shut_down, asked) = oneshot::channel::<()>();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let worker = Worker::new(Backing::new(Rc::clone(&device) as Rc<dyn BlockDevice>, 4096));
            let served = tokio::task::spawn_local(async move {
                worker.serve(inbox, async { drop(asked.await) }).await;
            });
            let (done, started) = sync_channel(1);
            let (vring, memory) = (guest.vring.clone(), guest.shared.clone());
            commands
                .send(Command::Start {
                    index: 0,
                    vring,
                    memory,
                    kick: eventfd(),
                    legacy: Legacy::default(),
                    done,
                })
                .await
                .unwrap();
            settle().await;
            assert_eq!((started.try_recv(), device.waiting()), (Ok(true), 1));

            let (done, stopped) = sync_channel(1);
            commands.send(Command::Stop { index: 0, done }).await.unwrap();
            settle().await;
            shut_down.send(()).unwrap();
            settle().await;
            assert!(!served.is_finished(), "a request is under way");
            assert!(stopped.try_recv().is_err());

            assert!(device.release(0));
            served.await.unwrap();
            assert_eq!(guest.used(), [(0, 4097)]);
        })
        .await;
}
