//! When requests are taken and when answers are published.

use std::rc::Rc;

use client::device::BlockDevice;
use client::memory::MemoryDevice;
use vhost_user_backend::VringT;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::{AVAILABLE, DATA, Guest, QUEUE_SIZE, pattern};

#[test]
fn answers_are_published_as_they_come_and_not_before() {
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, false);
    for head in [0, 3, 6] {
        guest.request(head, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    }
    guest.ring.turn();
    assert_eq!((guest.used(), device.waiting()), (vec![], 3));
    assert!(device.release(2));
    guest.ring.turn();
    assert_eq!(guest.used(), [(6, 4097)]);
    assert!(device.release(0) && device.release(0));
    guest.ring.turn();
    assert_eq!(guest.used(), [(0, 4097), (3, 4097)]);
}

#[test]
fn a_stopped_ring_takes_nothing_and_is_drained_when_all_is_published() {
    // Defect guarded: a request that was taken and not published is lost for the guest at the next
    // start, because the front end goes on from the used index.
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, false);
    guest.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    guest.ring.turn();
    guest.request(3, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    guest.ring.stop();
    guest.ring.turn();
    assert!(!guest.ring.is_drained());
    assert_eq!(device.waiting(), 1);
    device.release(0);
    assert!(!guest.ring.is_drained(), "answered but not published");
    guest.ring.turn();
    assert!(guest.ring.is_drained());
    assert_eq!(guest.used(), [(0, 4097)]);
    assert_eq!(
        guest.vring.queue_next_avail(),
        1,
        "the second request stays with the guest"
    );
}

#[test]
fn a_batch_of_answers_is_one_interrupt_and_the_guest_may_ask_for_none() {
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, true);
    let used_event = AVAILABLE + 4 + u64::from(QUEUE_SIZE) * 2;
    let batch = |guest: &mut Guest, wanted: u16| {
        guest.memory.write_obj(wanted, GuestAddress(used_event)).unwrap();
        for head in [0, 3, 6] {
            guest.request(head, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
        }
        guest.ring.turn();
        while device.release(0) {}
        guest.ring.turn();
        assert_eq!(guest.used().len(), 3);
        guest.interrupts()
    };
    assert_eq!(batch(&mut guest, 0), 1, "wanted after the first of three");
    assert_eq!(batch(&mut guest, 100), 0, "wanted after the hundredth");
    assert_eq!(batch(&mut guest, 8), 1, "wanted after the ninth");
}

#[test]
fn a_changed_buffer_does_not_change_a_write_under_way() {
    // Defect guarded: a guest may touch a page under write-back. Checksums and replicas are made from
    // one copy, taken before the device sees the request.
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, false);
    guest.fill(DATA, &pattern(4096));
    guest.request(0, VIRTIO_BLK_T_OUT, 0, (DATA, 4096));
    guest.ring.turn();
    guest.fill(DATA, &[0xaa; 4096]);
    device.release(0);
    guest.request(3, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
    guest.ring.turn();
    device.release(0);
    guest.ring.turn();
    assert_eq!(guest.bytes(DATA, 4096), pattern(4096));
}
