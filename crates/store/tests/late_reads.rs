//! Reads that the disk answers late: what they find in their slots may no longer be theirs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

#[path = "medium/gated.rs"]
mod gated;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use protocol::storage::{Change, ObjectWrite, StorageReply, StorageRequest, StorageView as _};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use store::medium::memory::Disk;
use store::medium::{File, Operation};
use store::{Format, Options, Store};

use gated::{Gate, Gated};

const BLOCK: usize = 4096;

/// A block that ends with the CRC of what is before: its own CRC-32C is the same for every value.
fn sealed_block(value: u8) -> Change {
    let mut bytes = vec![value; BLOCK - 4];
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    let checksums = Arc::new([crc32c::crc32c(&bytes)]);
    Change::Data {
        bytes: Bytes::from(bytes),
        checksums,
    }
}

fn write(index: u32, change: Change) -> StorageRequest {
    let stamp = |count| Stamp {
        generation: Generation(count),
        count,
    };
    StorageRequest::Write(ObjectWrite {
        object: object(index),
        follows: stamp(0),
        stamp: stamp(1),
        range: BlockRange::new(0, 1).unwrap(),
        change,
        use_reserve: false,
        floor: Stamp::ZERO,
    })
}

fn object(index: u32) -> ObjectId {
    ObjectId {
        family: FamilyId(1),
        index,
        layer: LayerId(1),
    }
}

fn read(index: u32) -> StorageRequest {
    StorageRequest::Read {
        chain: LayerChain::new(vec![LayerId(1)]),
        family: FamilyId(1),
        index,
        ranges: BlockRange::new(0, 1).unwrap().into(),
    }
}

/// Lets the store go on until it has answered a request with this token.
fn answer(store: &mut Store, token: u64) -> StorageReply {
    let mut answers = Vec::new();
    for _ in 0..10_000 {
        store.kick();
        store.poll(&mut answers);
        if let Some(place) = answers.iter().position(|answer| answer.0 == token) {
            return answers.swap_remove(place).1.unwrap();
        }
    }
    panic!("request {token} is not answered");
}

fn formatted() -> Disk {
    let disk = Disk::default();
    let format = Format {
        cluster: [1; 16],
        disk: DiskId(7),
        serial: [2; 16],
        log_bytes: 4 << 20,
    };
    Store::create_on(&mut disk.medium(), &format).unwrap();
    disk
}

fn checkpoint(store: &mut Store) {
    let before = store.statistics().checkpoints;
    store.checkpoint();
    for _ in 0..10_000 {
        store.kick();
        store.poll(&mut Vec::new());
        if store.statistics().checkpoints > before {
            return;
        }
    }
    panic!("the checkpoint does not end");
}

/// Guards: a read was under way while its object was dropped and its slot given to another object;
/// the other's block had the same checksum, as all blocks have that carry their own CRC-32C, and was
/// returned as good.
#[test]
fn a_late_read_never_returns_what_another_object_has_in_the_slot_by_now() {
    let disk = formatted();
    let gate = Rc::new(RefCell::new(Gate::default()));
    let late = Gated {
        disk: disk.medium(),
        gate: Rc::clone(&gate),
        holds: |operation| matches!(operation, Operation::Read { file: File::Data, .. }),
    };
    let mut store = Store::open_on(Box::new(late), &Options::default()).unwrap();
    store.submit(1, write(0, sealed_block(1)));
    answer(&mut store, 1);
    checkpoint(&mut store);

    gate.borrow_mut().shut = true;
    store.submit(2, read(0));
    store.kick();
    assert_eq!(gate.borrow().waiting.len(), 1, "or this test shows nothing");
    store.submit(3, StorageRequest::Drop(object(0)));
    answer(&mut store, 3);
    checkpoint(&mut store);
    for index in 1..=8 {
        store.submit(4, write(index, sealed_block(2)));
        answer(&mut store, 4);
    }
    checkpoint(&mut store);

    gate.borrow_mut().shut = false;
    let reply = answer(&mut store, 2);
    let StorageReply::Data { bytes, .. } = reply else {
        panic!("not data: {reply:?}");
    };
    assert_eq!(bytes[0], 0, "the object is gone, so its block reads as zeros");
}

/// Guards: a read that found an object dropped was answered at once; with a power cut before the drop was durable the
/// object was there again, so that what was shown was taken back.
#[test]
fn a_read_that_misses_what_was_dropped_waits_until_the_drop_is_durable() {
    let disk = formatted();
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    store.submit(1, write(0, sealed_block(1)));
    answer(&mut store, 1);

    store.submit(2, StorageRequest::Drop(object(0)));
    let StorageRequest::Read {
        chain,
        family,
        index,
        ranges,
    } = read(0)
    else {
        panic!("not a read")
    };
    store.submit(
        3,
        StorageRequest::Map {
            chain,
            family,
            index,
            range: ranges.hull(),
        },
    );
    store.submit(4, read(0));
    store.submit(
        5,
        StorageRequest::Pull {
            object: object(0),
            above: Stamp::ZERO,
        },
    );
    let mut answers = Vec::new();
    store.poll(&mut answers);
    let answered: Vec<u64> = answers.iter().map(|(token, _)| *token).collect();
    assert_eq!(answered, [0_u64; 0], "nothing was written, so nothing is durable");

    disk.cut_power(1);
    drop(store);
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    assert!(
        store.stamp(object(0)).unwrap() > Stamp::ZERO,
        "it was not dropped"
    );
}
