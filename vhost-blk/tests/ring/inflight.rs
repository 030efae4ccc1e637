//! What a process that dies leaves, and how the next one goes on: over several rings, and through the session.

use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::device::BlockDevice;
use client::memory::MemoryDevice;
use tokio::sync::{mpsc, oneshot};
use vhost::vhost_user::VhostUserBackendReqHandlerMut as _;
use vhost::vhost_user::message::{VhostUserInflight, VhostUserMemoryRegion, VhostUserVringAddrFlags};
use vhost_blk::backing::Backing;
use vhost_blk::config_space::{ConfigSpace, Shape};
use vhost_blk::front_end::FrontEnd;
use vhost_blk::guest_memory::GuestMap;
use vhost_blk::inflight::Region;
use vhost_blk::session::Session;
use vhost_blk::worker::{COMMANDS_MAX, Worker};
use virtio_bindings::virtio_blk::VIRTIO_BLK_T_IN;
use vm_memory::{Bytes as _, FileOffset, GuestAddress};

use crate::guest::{AVAILABLE, CONTROL, DATA, DESCRIPTORS, Guest, IOERR, NEXT, OK, QUEUE_SIZE, USED, WRITE};
fn region() -> Region {
    let (described, file) = Region::create(2, QUEUE_SIZE).unwrap();
    Region::map(&described, file).unwrap()
}

/// A device that answers when it is told to, and what rings have of it.
fn held() -> (Rc<MemoryDevice>, Rc<Backing>) {
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let backing = Backing::new(Rc::clone(&device) as Rc<dyn BlockDevice>, 4096);
    (device, backing)
}

#[test]
fn nothing_new_is_taken_on_any_ring_before_all_that_was_left_is_answered() {
    // Law: a write that is done again comes before everything that the guest did later, wherever it did it.
    let region = region();
    let (_device, backing) = held();
    let mut first = Guest::on(0, Rc::clone(&backing), false, region.log(0));
    let mut second = Guest::on(1, backing, false, region.log(1));
    first.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    first.request(3, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    first.ring.turn();

    let (device, backing) = held();
    first.succeed(0, Rc::clone(&backing), region.log(0));
    second.succeed(1, backing, region.log(1));
    first.request(6, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    second.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    second.ring.turn();
    first.ring.turn();
    assert_eq!(device.waiting(), 2, "what was left, and nothing else");
    device.release(0);
    first.ring.turn();
    second.ring.turn();
    assert_eq!((device.waiting(), first.used().len()), (1, 1));
    device.release(0);
    first.ring.turn();
    second.ring.turn();
    assert_eq!(device.waiting(), 2, "now what is new");
    while device.release(0) {}
    first.ring.turn();
    second.ring.turn();
    assert_eq!((first.used().len(), second.used().len()), (2, 1));
}

#[test]
fn a_ring_that_is_stopped_finishes_what_a_former_process_left() {
    // Defect guarded: a stop tells the front end that nothing is in flight, so what was left must not stay.
    let region = region();
    let (_device, backing) = held();
    let mut guest = Guest::on(0, backing, false, region.log(0));
    guest.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    guest.ring.turn();
    let (device, backing) = held();
    guest.succeed(0, backing, region.log(0));
    guest.ring.stop();
    assert!(!guest.ring.is_drained());
    guest.ring.turn();
    device.release(0);
    guest.ring.turn();
    assert!(guest.ring.is_drained());
    assert_eq!(guest.used(), [(0, 4097)]);
}

#[test]
fn a_request_whose_chain_was_spoilt_meanwhile_is_given_back_and_holds_nobody_up() {
    // Defect guarded: a guest could have its new requests wait for ever for one that cannot be done again.
    let region = region();
    let (_device, backing) = held();
    let mut guest = Guest::on(0, backing, false, region.log(0));
    guest.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    guest.ring.turn();
    guest.descriptor(0, CONTROL, 16, NEXT, 0);
    let (device, backing) = held();
    guest.succeed(0, backing, region.log(0));
    guest.request(3, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    guest.ring.turn();
    guest.ring.turn();
    device.release(0);
    guest.ring.turn();
    assert_eq!(guest.used(), [(0, 0), (3, 4097)]);
    assert_ne!(guest.status(3), IOERR);
}

/// A guest's memory with two rings at `RING_BYTES` times their number, as a front end shares it.
struct Shared {
    memory: GuestMap,
    file: File,
    kicks: [File; 2],
    inflight: (VhostUserInflight, File),
}

const RING_BYTES: u64 = 0x8000;

impl Shared {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * RING_BYTES).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let length = usize::try_from(2 * RING_BYTES).unwrap();
        let memory = GuestMap::from_ranges_with_files([(GuestAddress(0), length, Some(offset))]).unwrap();
        let kick = || {
            rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)
                .unwrap()
                .into()
        };
        Self {
            memory,
            file,
            kicks: [kick(), kick()],
            inflight: Region::create(2, QUEUE_SIZE).unwrap(),
        }
    }

    /// A read of one block, as the ring's request number `number`.
    fn request(&self, ring: u64, number: u16) {
        let base = ring * RING_BYTES;
        let head = number * 3;
        let control = base + CONTROL + u64::from(head) * 32;
        let buffers = [
            (control, 16u32, NEXT),
            (base + 0x4000, 4096, NEXT | WRITE),
            (control + 16, 1, WRITE),
        ];
        for (index, (address, length, flags)) in (head..).zip(buffers) {
            let at = GuestAddress(base + DESCRIPTORS + u64::from(index) * 16);
            let words = (u64::from(length), u64::from(flags), u64::from(index + 1));
            let rest = words.0 | words.1 << 32 | words.2 << 48;
            self.memory.write_obj([address, rest], at).unwrap();
        }
        let slot = GuestAddress(base + AVAILABLE + 4 + u64::from(number) * 2);
        self.memory.write_obj(head, slot).unwrap();
        let index = GuestAddress(base + AVAILABLE + 2);
        self.memory.write_obj(number + 1, index).unwrap();
    }

    fn answered(&self, ring: u64) -> u16 {
        self.memory
            .read_obj(GuestAddress(ring * RING_BYTES + USED + 2))
            .unwrap()
    }

    /// What QEMU says to a back end up to the point where rings are enabled.
    fn configure(&self, session: &mut Session, base: u32) {
        let (described, file) = &self.inflight;
        session
            .set_inflight_fd(described, file.try_clone().unwrap())
            .unwrap();
        let region = VhostUserMemoryRegion::new(0, 2 * RING_BYTES, 0x1000_0000, 0);
        session
            .set_mem_table(&[region], vec![self.file.try_clone().unwrap()], None)
            .unwrap();
        for ring in 0..2u8 {
            let start = 0x1000_0000 + u64::from(ring) * RING_BYTES;
            let flags = VhostUserVringAddrFlags::empty();
            let index = u32::from(ring);
            session.set_vring_num(index, u32::from(QUEUE_SIZE)).unwrap();
            session.set_vring_base(index, base).unwrap();
            session
                .set_vring_addr(
                    index,
                    flags,
                    start + DESCRIPTORS,
                    start + USED,
                    start + AVAILABLE,
                    0,
                )
                .unwrap();
            let kick = self.kicks[usize::from(ring)].try_clone().unwrap();
            session.set_vring_kick(ring, Some(kick)).unwrap();
        }
    }
}

fn wait_until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come about");
        std::thread::yield_now();
    }
}

/// A back end with its two threads; `talk` is the front end. It dies when `talk` returns: nothing is stopped.
async fn back_end(device: Rc<MemoryDevice>, talk: impl FnOnce(&mut Session) + Send + 'static) {
    let shape = Shape {
        block_size: 4096,
        read_only: false,
        queues: 2,
    };
    let front_end = Arc::new(FrontEnd::new(ConfigSpace::new(shape, 1 << 20)));
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (finished, end) = oneshot::channel::<()>();
    let control = std::thread::spawn(move || {
        let mut session = Session::new(front_end, commands).unwrap();
        talk(&mut session);
        drop(finished);
    });
    let worker = Worker::new(Backing::new(device, 4096));
    tokio::select! {
        () = worker.serve(inbox, std::future::pending()) => panic!("the control thread has ended before"),
        _ = end => {}
    }
    control.join().unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn the_session_ignores_the_front_ends_index_and_waits_for_all_that_has_something_left() {
    // Defects guarded: QEMU says the used index after a death, which would take requests in flight a second
    // time; and a ring that is enabled first must not go ahead of one that has something left.
    let shared = Arc::new(Shared::new());
    let local = tokio::task::LocalSet::new();
    let guest = Arc::clone(&shared);
    guest.request(0, 0);
    guest.request(1, 0);
    guest.request(1, 1);
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let first = Rc::clone(&device);
    local
        .run_until(back_end(first, move |session| {
            guest.configure(session, 0);
            session.set_vring_enable(1, true).unwrap();
            let (described, file) = &guest.inflight;
            let region = Region::map(described, file.try_clone().unwrap()).unwrap();
            wait_until(|| !region.log(1).unwrap().is_empty().unwrap());
        }))
        .await;
    drop(local);
    assert_eq!(shared.answered(1), 0);

    let guest = Arc::clone(&shared);
    let local = tokio::task::LocalSet::new();
    let device = Rc::new(MemoryDevice::new(1 << 20));
    local
        .run_until(back_end(device, move |session| {
            guest.request(1, 2);
            guest.configure(session, 0);
            session.set_vring_enable(0, true).unwrap();
            assert!(
                session.get_vring_base(0).is_ok(),
                "it does not run, so it is stopped at once"
            );
            let kick = guest.kicks[0].try_clone().unwrap();
            session.set_vring_kick(0, Some(kick)).unwrap();
            assert_eq!(
                guest.answered(0),
                0,
                "the other ring has something left and is not enabled"
            );
            session.set_vring_enable(1, true).unwrap();
            wait_until(|| guest.answered(0) == 1 && guest.answered(1) == 3);
            assert_eq!({ session.get_vring_base(1).unwrap().num }, 3);
        }))
        .await;
    assert_eq!((shared.answered(0), shared.answered(1)), (1, 3));
    for number in 0..3u64 {
        let status = GuestAddress(RING_BYTES + CONTROL + number * 3 * 32 + 16);
        assert_eq!(shared.memory.read_obj::<u8>(status).unwrap(), OK);
    }
}
