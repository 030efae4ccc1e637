//! Guests that break the rules: they get errors or nothing, and harm nobody.

use std::rc::Rc;

use client::device::BlockDevice;
use client::memory::MemoryDevice;
use proptest::prelude::*;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};

use crate::guest::{
    AVAILABLE, CONTROL, DATA, DESCRIPTORS, Guest, INDIRECT, IOERR, NEXT, OK, QUEUE_SIZE, UNSUPP, WRITE, guest,
};

#[test]
fn a_bad_request_gets_an_error_and_the_next_one_works() {
    let mut guest = guest();
    let end = (1u64 << 20) / 512;
    assert_eq!(
        guest.perform(VIRTIO_BLK_T_IN, end, (DATA, 4096)),
        IOERR,
        "beyond the end"
    );
    assert_eq!(
        guest.perform(VIRTIO_BLK_T_OUT, end - 8, (DATA, 8192)),
        IOERR,
        "over the end"
    );
    assert_eq!(
        guest.perform(VIRTIO_BLK_T_IN, u64::MAX, (DATA, 4096)),
        IOERR,
        "wrapping around"
    );
    assert_eq!(
        guest.perform(VIRTIO_BLK_T_IN, 1, (DATA, 4096)),
        IOERR,
        "between blocks"
    );
    assert_eq!(
        guest.perform(VIRTIO_BLK_T_OUT, 0, (u64::MAX - 4095, 4096)),
        IOERR,
        "data outside guest memory"
    );
    assert_eq!(
        guest.perform(VIRTIO_BLK_T_IN, 0, (u64::MAX - 4095, 4096)),
        IOERR,
        "data outside guest memory"
    );
    assert_eq!(guest.perform(77, 0, (0, 0)), UNSUPP, "an unknown type");
    assert_eq!(guest.perform(VIRTIO_BLK_T_FLUSH, 0, (0, 0)), OK);
}

#[test]
fn a_chain_without_a_place_for_the_status_is_given_back_and_the_next_request_works() {
    let mut guest = guest();
    guest.header(CONTROL, VIRTIO_BLK_T_IN, 0);
    let table = 0x8000;
    let bad: [&dyn Fn(&Guest); 7] = [
        // Read only.
        &|guest| guest.chain(0, &[(CONTROL, 16, false), (DATA, 4096, false)]),
        // A circle.
        &|guest| {
            guest.descriptor(0, CONTROL, 16, NEXT, 1);
            guest.descriptor(1, DATA, 512, NEXT | WRITE, 1);
        },
        // A link out of the table.
        &|guest| guest.descriptor(0, CONTROL, 16, NEXT, QUEUE_SIZE),
        // A readable buffer after a writable one.
        &|guest| {
            guest.chain(
                0,
                &[
                    (CONTROL, 16, false),
                    (DATA, 512, true),
                    (DATA, 512, false),
                    (DATA, 1, true),
                ],
            );
        },
        // An indirect table of half an entry.
        &|guest| guest.descriptor(0, table, 24, INDIRECT, 0),
        // An indirect table inside an indirect table.
        &|guest| {
            guest.descriptor_at(table, 0, table, 16, INDIRECT, 0);
            guest.descriptor(0, table, 16, INDIRECT, 0);
        },
        // An indirect table outside of memory.
        &|guest| guest.descriptor(0, u64::MAX - 15, 16, INDIRECT, 0),
    ];
    for (number, make) in bad.iter().enumerate() {
        make(&guest);
        guest.publish(0);
        guest.ring.turn();
        assert_eq!(guest.used(), [(0, 0)], "bad chain number {number}");
    }
    assert_eq!(guest.perform(VIRTIO_BLK_T_IN, 0, (DATA, 4096)), OK);
    assert!(!guest.ring.is_broken());
}

#[test]
fn a_short_header_is_an_error_with_a_status() {
    let mut guest = guest();
    guest.chain(0, &[(CONTROL, 15, false), (DATA, 1, true)]);
    guest.fill(DATA, &[0xff]);
    guest.publish(0);
    guest.ring.turn();
    assert_eq!((guest.used(), guest.bytes(DATA, 1)), (vec![(0, 1)], vec![IOERR]));
}

#[test]
fn an_impossible_available_index_or_head_breaks_the_ring_and_nothing_else() {
    let mut jumped = guest();
    jumped
        .memory
        .write_obj(QUEUE_SIZE + 1, GuestAddress(AVAILABLE + 2))
        .unwrap();
    jumped.ring.turn();
    assert!(jumped.ring.is_broken());
    let mut outside = guest();
    outside.publish(QUEUE_SIZE);
    outside.ring.turn();
    assert!(outside.ring.is_broken());
    for guest in [&mut jumped, &mut outside] {
        assert!(!guest.ring.turn(), "a broken ring has nothing to do");
        assert_eq!(guest.used(), []);
        guest.ring.stop();
        guest.ring.turn();
        assert!(guest.ring.is_drained());
    }
}

#[test]
fn a_guest_that_repeats_itself_has_no_more_under_way_than_its_ring_holds() {
    let device = Rc::new(MemoryDevice::held(1 << 20));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, false);
    for _ in 0..3 {
        for _ in 0..QUEUE_SIZE {
            guest.request(0, VIRTIO_BLK_T_IN, 0, (DATA, 4096));
        }
        guest.ring.turn();
    }
    assert_eq!(device.waiting(), usize::from(QUEUE_SIZE));
}

#[test]
fn data_under_way_is_bounded_and_a_starved_ring_goes_on_afterwards() {
    let device = Rc::new(MemoryDevice::held(1 << 30));
    let mut guest = Guest::new(Rc::clone(&device) as Rc<dyn BlockDevice>, false);
    // Four reads of 32 MiB each, into the same 8 MiB of guest memory.
    for head in [0, 4, 8, 12] {
        let control = CONTROL + u64::from(head) * 32;
        guest.header(control, VIRTIO_BLK_T_IN, 0);
        // One indirect descriptor a request keeps the ring's sixteen entries free.
        let table = 0x8000 + u64::from(head) * 0x100;
        guest.descriptor_at(table, 0, control, 16, NEXT, 1);
        for part in 1..5 {
            guest.descriptor_at(table, part, DATA, 8 << 20, NEXT | WRITE, part + 1);
        }
        guest.descriptor_at(table, 5, control + 16, 1, WRITE, 0);
        guest.descriptor(head, table, 96, INDIRECT, 0);
        guest.publish(head);
    }
    guest.ring.turn();
    assert_eq!(device.waiting(), 2, "64 MiB are under way");
    assert!(device.release(0));
    guest.ring.turn();
    assert_eq!(device.waiting(), 2);
    assert_eq!(guest.used().len(), 1);
    while device.release(0) {
        guest.ring.turn();
    }
    assert_eq!(guest.used().len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_content_of_guest_memory_makes_the_ring_panic_or_spin(
        table in proptest::collection::vec(any::<u8>(), 256),
        small_lengths: bool,
        index in 0u16..64,
        heads in proptest::collection::vec(0u16..20, 16),
        control in proptest::collection::vec(any::<u8>(), 512),
    ) {
        let mut guest = guest();
        guest.fill(DESCRIPTORS, &table);
        if small_lengths {
            // Random lengths are mostly gigabytes: make some chains plausible.
            for entry in 0..QUEUE_SIZE {
                let at = u64::from(entry) * 16;
                let address = CONTROL + u64::from(table[usize::from(entry)]);
                guest.fill(at, &address.to_le_bytes());
                guest.fill(at + 8, &[table[usize::from(entry) + 1], 2, 0, 0]);
                guest.fill(at + 13, &[0, table[usize::from(entry) + 2] % 16, 0]);
            }
        }
        guest.fill(CONTROL, &control);
        for (slot, head) in (0u64..).zip(&heads) {
            guest.memory.write_obj(*head, GuestAddress(AVAILABLE + 4 + slot * 2)).unwrap();
        }
        guest.memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
        for _ in 0..4 {
            guest.ring.turn();
        }
        guest.ring.stop();
        guest.ring.turn();
        prop_assert!(guest.ring.is_drained());
        guest.used();
    }
}
