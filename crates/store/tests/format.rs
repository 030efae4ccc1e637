//! The format on disk as later versions will meet it: golden bytes, round trips, rubbish.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test, in the shared functions as well"
)]

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::storage::StorageRequest;
use protocol::{DiskId, Generation, VolumeId};
use store::medium::File;
use store::medium::memory::Disk;
use store::{Format, Options, Store, parse};

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A made disk with one record in its log.
fn disk() -> Disk {
    let disk = Disk::default();
    let format = Format {
        cluster: [0xc1; 16],
        disk: DiskId(3),
        serial: [0x5e; 16],
        log_bytes: 1 << 20,
    };
    Store::create_on(&mut disk.medium(), &format).unwrap();
    let mut store = Store::open_on(Box::new(disk.medium()), &Options::default()).unwrap();
    store.submit(1, StorageRequest::RaiseGeneration(VolumeId(8), Generation(9)));
    store.drain(&mut Vec::new());
    disk.end_process();
    disk
}

fn read(disk: &Disk, file: File, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    disk.image().read(file, 0, &mut bytes);
    bytes
}

/// Guards: a changed layout would make every disk out there unreadable. A new layout gets a new
/// version and a new file beside this one.
#[test]
fn the_bytes_on_disk_are_the_golden_ones() {
    let mut lines = String::new();
    for (name, bytes) in parse::sample_records() {
        writeln!(lines, "record-{name} {}", hex(&bytes)).unwrap();
    }
    let disk = disk();
    let superblock = read(&disk, File::Superblock, 4096);
    writeln!(
        lines,
        "superblock {} ... {}",
        hex(&superblock[..72]),
        hex(&superblock[4088..])
    )
    .unwrap();
    writeln!(lines, "batch {}", hex(&read(&disk, File::Log, 96))).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/disk-v1.txt");
    if std::env::var_os("STORAGED_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &lines).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (ours, theirs) in lines.lines().zip(golden.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(lines.lines().count(), golden.lines().count());
}

/// Law: there is one way only to write a record, and what was written is what is read.
#[test]
fn the_samples_come_back_as_they_were() {
    for (name, bytes) in parse::sample_records() {
        assert_eq!(parse::records(&bytes).as_ref(), Some(&bytes), "{name}");
        for cut in 1..bytes.len() {
            assert_eq!(parse::records(&bytes[..cut]), None, "{name} cut at {cut}");
        }
    }
    let batch = read(&disk(), File::Log, 4096);
    assert_eq!(parse::batch(&batch).unwrap(), batch[..64 + 17]);
}

/// Law: no changed bit of a batch's header or of its records goes unseen.
#[test]
fn every_flipped_bit_of_a_batch_is_found() {
    let batch = read(&disk(), File::Log, 4096);
    for bit in 0..(64 + 17) * 8 {
        let mut flipped = batch.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(parse::batch(&flipped), None, "bit {bit}");
    }
}

proptest! {
    /// Law: rubbish is refused or means what it says; it never panics.
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>, kind: u8, number in 0u64..3) {
        for again in [parse::records(&bytes), parse::entry(kind, &bytes), parse::key(&bytes)].into_iter().flatten() {
            prop_assert_eq!(&again, &bytes);
        }
        parse::superblock(&bytes);
        parse::batch(&bytes);
        parse::page(number, &bytes);
    }

    /// Law: a changed byte inside a record gives another record or none, and never a panic.
    #[test]
    fn changed_records_are_read_without_panic(at in 0usize..400, value: u8) {
        let mut bytes = Vec::new();
        for (_, record) in parse::sample_records() {
            bytes.extend(record);
        }
        let at = at % bytes.len();
        bytes[at] = value;
        if let Some(again) = parse::records(&Bytes::from(bytes.clone())) {
            prop_assert_eq!(again, bytes);
        }
    }
}
