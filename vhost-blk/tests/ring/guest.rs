//! The driver's side of a virtqueue, small enough to put any nonsense into it.

use std::fs::File;
use std::os::fd::AsFd;
use std::rc::Rc;

use client::device::BlockDevice;
use client::memory::MemoryDevice;
use vhost_blk::backing::Backing;
use vhost_blk::guest_memory::{GuestMap, GuestMemory};
use vhost_blk::inflight::Log;
use vhost_blk::ring::{Legacy, Ring, Vring};
use vhost_user_backend::{VringMutex, VringT};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN};
use vm_memory::{Bytes, GuestAddress};

pub(crate) const QUEUE_SIZE: u16 = 16;
pub(crate) const DESCRIPTORS: u64 = 0;
pub(crate) const AVAILABLE: u64 = 0x1000;
pub(crate) const USED: u64 = 0x2000;
/// Header, segments and status of the test's requests.
pub(crate) const CONTROL: u64 = 0x3000;
/// Data of the test's requests.
pub(crate) const DATA: u64 = 0x10_000;
pub(crate) const MEMORY_BYTES: usize = 0x100_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;

/// The driver's side of one queue.
pub(crate) struct Guest {
    pub(crate) memory: GuestMap,
    /// The same memory as rings get it.
    pub(crate) shared: GuestMemory,
    pub(crate) vring: Vring,
    pub(crate) ring: Rc<Ring>,
    pub(crate) call: File,
    pub(crate) published: u16,
    pub(crate) seen: u16,
}

impl Guest {
    pub(crate) fn new(device: Rc<dyn BlockDevice>, event_index: bool) -> Self {
        let alignment = device.info().alignment;
        Self::on(0, Backing::new(device, alignment), event_index, None)
    }

    /// With a ring of this number over a device that other rings may share, and a log of its requests in flight.
    pub(crate) fn on(index: u16, backing: Rc<Backing>, event_index: bool, log: Option<Log>) -> Self {
        let memory = GuestMap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        let shared = GuestMemory::new(memory.clone());
        let vring: Vring = VringMutex::new(shared.clone(), QUEUE_SIZE).unwrap();
        vring.set_queue_info(DESCRIPTORS, AVAILABLE, USED).unwrap();
        vring.set_queue_event_idx(event_index);
        vring.set_queue_ready(true);
        let call = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::SEMAPHORE,
        )
        .unwrap();
        let call = File::from(call);
        vring.set_call(Some(call.try_clone().unwrap()));
        let legacy = Legacy::inherit(&vring, log).unwrap();
        let ring = Ring::new(index, vring.clone(), shared.clone(), backing, legacy);
        Self {
            memory,
            shared,
            vring,
            ring,
            call,
            published: 0,
            seen: 0,
        }
    }

    /// The process dies, and another one takes over; the guest and its memory live on.
    pub(crate) fn succeed(&mut self, index: u16, backing: Rc<Backing>, log: Option<Log>) {
        let vring: Vring = VringMutex::new(self.shared.clone(), QUEUE_SIZE).unwrap();
        vring.set_queue_info(DESCRIPTORS, AVAILABLE, USED).unwrap();
        vring.set_queue_ready(true);
        vring.set_call(Some(self.call.try_clone().unwrap()));
        let legacy = Legacy::inherit(&vring, log).unwrap();
        self.ring = Ring::new(index, vring.clone(), self.shared.clone(), backing, legacy);
        self.vring = vring;
    }

    pub(crate) fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        self.descriptor_at(DESCRIPTORS, index, address, length, flags, next);
    }

    pub(crate) fn descriptor_at(
        &self,
        table: u64,
        index: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) {
        let at = table + u64::from(index) * 16;
        self.memory.write_obj(address, GuestAddress(at)).unwrap();
        self.memory.write_obj(length, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// Descriptors from `first` on, in a row: address, length, writable.
    pub(crate) fn chain(&self, first: u16, buffers: &[(u64, u32, bool)]) {
        let last = first + u16::try_from(buffers.len()).unwrap() - 1;
        for (index, (address, length, writable)) in (first..).zip(buffers) {
            let flags = if *writable { WRITE } else { 0 } | if index < last { NEXT } else { 0 };
            self.descriptor(index, *address, *length, flags, index + 1);
        }
    }

    pub(crate) fn publish(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + u64::from(self.published % QUEUE_SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.published = self.published.wrapping_add(1);
        self.memory
            .write_obj(self.published, GuestAddress(AVAILABLE + 2))
            .unwrap();
    }

    pub(crate) fn header(&self, at: u64, kind: u32, sector: u64) {
        self.memory.write_obj(kind, GuestAddress(at)).unwrap();
        self.memory.write_obj(0u32, GuestAddress(at + 4)).unwrap();
        self.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
    }

    /// A request of three descriptors from `head` on, its control bytes at a place of its own.
    pub(crate) fn request(&mut self, head: u16, kind: u32, sector: u64, data: (u64, u32)) {
        let control = CONTROL + u64::from(head) * 32;
        self.header(control, kind, sector);
        self.memory.write_obj(0xffu8, GuestAddress(control + 16)).unwrap();
        let writable = matches!(kind, VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID);
        if data.1 == 0 {
            self.chain(head, &[(control, 16, false), (control + 16, 1, true)]);
        } else {
            self.chain(
                head,
                &[
                    (control, 16, false),
                    (data.0, data.1, writable),
                    (control + 16, 1, true),
                ],
            );
        }
        self.publish(head);
    }

    pub(crate) fn status(&self, head: u16) -> u8 {
        self.memory
            .read_obj(GuestAddress(CONTROL + u64::from(head) * 32 + 16))
            .unwrap()
    }

    /// Answers since the last look: head and length.
    pub(crate) fn used(&mut self) -> Vec<(u32, u32)> {
        let index: u16 = self.memory.read_obj(GuestAddress(USED + 2)).unwrap();
        let mut answers = Vec::new();
        while self.seen != index {
            let at = USED + 4 + u64::from(self.seen % QUEUE_SIZE) * 8;
            let head = self.memory.read_obj(GuestAddress(at)).unwrap();
            let length = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
            answers.push((head, length));
            self.seen = self.seen.wrapping_add(1);
        }
        answers
    }

    /// How often the guest was interrupted since the last look.
    pub(crate) fn interrupts(&self) -> usize {
        let mut one = [0; 8];
        std::iter::from_fn(|| rustix::io::read(self.call.as_fd(), &mut one).ok()).count()
    }

    /// One request from start to end; gives its status.
    pub(crate) fn perform(&mut self, kind: u32, sector: u64, data: (u64, u32)) -> u8 {
        self.request(0, kind, sector, data);
        self.ring.turn();
        assert_eq!(
            self.used().len(),
            1,
            "a request that the device answers at once is answered in the same turn"
        );
        self.status(0)
    }

    pub(crate) fn fill(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// On a megabyte of memory.
pub(crate) fn guest() -> Guest {
    Guest::new(Rc::new(MemoryDevice::new(1 << 20)), false)
}

/// Bytes that are told apart from each other and from zeros.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at * 7 % 251).unwrap())
        .collect()
}
