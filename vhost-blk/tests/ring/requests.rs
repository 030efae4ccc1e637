//! What each request does.

use std::rc::Rc;

use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use crate::guest::{CONTROL, DATA, Guest, INDIRECT, IOERR, NEXT, OK, WRITE, guest, pattern};

#[test]
fn what_was_written_is_read_back_and_the_lengths_are_told() {
    let mut guest = guest();
    guest.fill(DATA, &pattern(8192));
    assert_eq!(guest.perform(VIRTIO_BLK_T_OUT, 16, (DATA, 8192)), OK);
    guest.request(4, VIRTIO_BLK_T_IN, 16, (DATA + 0x4000, 8192));
    guest.ring.turn();
    assert_eq!(guest.used(), [(4, 8193)]);
    assert_eq!(guest.status(4), OK);
    assert_eq!(guest.bytes(DATA + 0x4000, 8192), pattern(8192));
}

#[test]
fn buffers_may_be_cut_anywhere() {
    // Law of virtio 1: framing carries no meaning. The header comes in pieces, data shares a
    // descriptor with the header, and the status shares one with data.
    let mut guest = guest();
    guest.header(CONTROL, VIRTIO_BLK_T_OUT, 8);
    guest.fill(CONTROL + 16, &pattern(4096));
    guest.chain(
        0,
        &[
            (CONTROL, 5, false),
            (CONTROL + 5, 0, false),
            (CONTROL + 5, 100, false),
            (CONTROL + 105, 4007, false),
            (DATA, 1, true),
        ],
    );
    guest.publish(0);
    guest.ring.turn();
    assert_eq!((guest.used(), guest.bytes(DATA, 1)), (vec![(0, 1)], vec![OK]));

    guest.header(CONTROL, VIRTIO_BLK_T_IN, 8);
    guest.chain(
        0,
        &[
            (CONTROL, 16, false),
            (DATA, 1000, true),
            (DATA + 5000, 3097, true),
        ],
    );
    guest.publish(0);
    guest.ring.turn();
    assert_eq!(guest.used(), [(0, 4097)]);
    assert_eq!(
        [guest.bytes(DATA, 1000), guest.bytes(DATA + 5000, 3096)].concat(),
        pattern(4096)
    );
    assert_eq!(guest.bytes(DATA + 5000 + 3096, 1), [OK]);
}

#[test]
fn an_indirect_chain_is_followed() {
    let mut guest = guest();
    let table = 0x8000;
    guest.header(CONTROL, VIRTIO_BLK_T_OUT, 0);
    guest.fill(DATA, &pattern(4096));
    guest.descriptor_at(table, 0, CONTROL, 16, NEXT, 1);
    guest.descriptor_at(table, 1, DATA, 4096, NEXT, 2);
    guest.descriptor_at(table, 2, CONTROL + 16, 1, WRITE, 0);
    guest.descriptor(3, table, 48, INDIRECT, 0);
    guest.publish(3);
    guest.ring.turn();
    assert_eq!(guest.used(), [(3, 1)]);
    assert_eq!(guest.perform(VIRTIO_BLK_T_IN, 0, (DATA + 0x8000, 4096)), OK);
    assert_eq!(guest.bytes(DATA + 0x8000, 4096), pattern(4096));
}

#[test]
fn discards_and_write_zeroes_of_several_segments_read_as_zeros() {
    let mut guest = guest();
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        guest.fill(DATA, &pattern(4 * 4096));
        assert_eq!(guest.perform(VIRTIO_BLK_T_OUT, 0, (DATA, 4 * 4096)), OK);
        let segments = [
            &0u64.to_le_bytes()[..],
            &8u32.to_le_bytes(),
            &[0; 4],
            &16u64.to_le_bytes(),
            &8u32.to_le_bytes(),
            &[0; 4],
        ]
        .concat();
        guest.fill(DATA, &segments);
        assert_eq!(guest.perform(kind, 0, (DATA, 32)), OK);
        assert_eq!(guest.perform(VIRTIO_BLK_T_IN, 0, (DATA, 4 * 4096)), OK);
        let mut expected = pattern(4 * 4096);
        expected[..4096].fill(0);
        expected[2 * 4096..3 * 4096].fill(0);
        assert!(guest.bytes(DATA, 4 * 4096) == expected);
    }
}

#[test]
fn one_bad_segment_fails_the_whole_request() {
    let mut guest = guest();
    let beyond = (1u64 << 20) / 512;
    let segments = [
        &0u64.to_le_bytes()[..],
        &8u32.to_le_bytes(),
        &[0; 4],
        &beyond.to_le_bytes(),
        &8u32.to_le_bytes(),
        &[0; 4],
    ]
    .concat();
    guest.fill(DATA, &segments);
    assert_eq!(guest.perform(VIRTIO_BLK_T_DISCARD, 0, (DATA, 32)), IOERR);
}

#[test]
fn the_serial_number_is_that_of_the_device_and_the_buffer_may_be_short() {
    let info = DeviceInfo {
        name: "v".into(),
        serial: "0123456789abcdefghij".into(),
        size: 1 << 20,
        read_only: false,
        alignment: 4096,
    };
    let mut guest = Guest::new(Rc::new(MemoryDevice::with_info(info)), false);
    assert_eq!(guest.perform(VIRTIO_BLK_T_GET_ID, 0, (DATA, 20)), OK);
    assert_eq!(guest.bytes(DATA, 20), b"0123456789abcdefghij");
    guest.fill(DATA, &[0xee; 20]);
    assert_eq!(guest.perform(VIRTIO_BLK_T_GET_ID, 0, (DATA, 4)), OK);
    assert_eq!(guest.bytes(DATA, 6), b"0123\xee\xee");
}

#[test]
fn a_read_only_device_refuses_every_change() {
    let mut info = MemoryDevice::new(1 << 20).info();
    info.read_only = true;
    let mut guest = Guest::new(Rc::new(MemoryDevice::with_info(info)), false);
    guest.fill(
        DATA,
        &[&0u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat(),
    );
    assert_eq!(guest.perform(VIRTIO_BLK_T_OUT, 0, (DATA, 4096)), IOERR);
    assert_eq!(guest.perform(VIRTIO_BLK_T_DISCARD, 0, (DATA, 16)), IOERR);
    assert_eq!(guest.perform(VIRTIO_BLK_T_WRITE_ZEROES, 0, (DATA, 16)), IOERR);
    assert_eq!(guest.perform(VIRTIO_BLK_T_IN, 0, (DATA, 4096)), OK);
}
