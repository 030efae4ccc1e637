//! Copies between units in memory and within one: what arrives, what stays thin, what is refused, and what ends them.
mod endings;

use super::*;
use std::cell::RefCell;

use admin_api::iscsi::{Holder, Lun, Registration, Reservations};
use client::device::BlockDevice;
use client::memory::MemoryDevice;
use client::request::{discard, map, read, write};
use client::sectors::Sectors;
use tokio::task::LocalSet;

use crate::scsi::copy_results::{Progress, State};
use crate::scsi::identification::Identity;
use crate::source::{keeper::Keeper, serial};

const MIB: u64 = 1 << 20;
/// Bytes of each unit.
const SIZE: u64 = 32 * MIB;

pub(in crate::unit) fn nexus(name: &str) -> Nexus {
    Nexus {
        initiator: name.to_owned(),
        isid: "800000000001".to_owned(),
        target: "iqn.2026-01.example:t".to_owned(),
        portal_group: 1,
    }
}

fn unit_on(number: u16, block_size: u32, read_only: bool, device: Rc<dyn BlockDevice>) -> Rc<Unit> {
    let lun = Lun {
        number,
        volume: format!("v{number}"),
        volume_id: u64::from(number) + 1,
        read_only,
        block_size,
    };
    let identity = Identity::new(&serial(lun.volume_id), "iqn.2026-01.example:t", 1);
    let keeper = Keeper::Memory(RefCell::default());
    Rc::new(Unit::new(lun, device, identity, keeper))
}

/// A unit in memory.
fn unit(number: u16, block_size: u32) -> Rc<Unit> {
    let device: Rc<dyn BlockDevice> = Rc::new(MemoryDevice::new(SIZE));
    let device = if block_size == 512 {
        Rc::new(Sectors::new(device))
    } else {
        device
    };
    unit_on(number, block_size, false, device)
}

/// A unit whose device answers when it is told to, and the device.
fn held(number: u16) -> (Rc<Unit>, Rc<MemoryDevice>) {
    let device = Rc::new(MemoryDevice::held(SIZE));
    (unit_on(number, 4096, false, device.clone()), device)
}

/// A segment: the number of the source among the list's units and that of the destination, whose blocks are counted, how
/// many, from which block and to which.
type Wish = (u16, u16, bool, u16, u64, u64);

fn list(units: &[&Rc<Unit>], wishes: &[Wish]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[0] = 9;
    bytes[2..4].copy_from_slice(&u16::try_from(units.len() * 32).unwrap().to_be_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(wishes.len() * 28).unwrap().to_be_bytes());
    for unit in units {
        let mut descriptor = [0; 32];
        descriptor[..8].copy_from_slice(&[0xe4, 0, 0, 0, 1, 3, 0, 8]);
        descriptor[8..16].copy_from_slice(&unit.identity.naa.to_be_bytes());
        descriptor[28..].copy_from_slice(&unit.lun.block_size.to_be_bytes());
        bytes.extend(descriptor);
    }
    for (source, destination, by_destination, count, from, to) in wishes {
        bytes.extend([2, if *by_destination { 2 } else { 0 }, 0, 0x18]);
        bytes.extend([*source, *destination, 0, *count].map(u16::to_be_bytes).concat());
        bytes.extend([*from, *to].map(u64::to_be_bytes).concat());
    }
    bytes
}

/// Sends the list to the first of the units.
async fn copy_while(units: &[&Rc<Unit>], wishes: &[Wish], wanted: &dyn Fn() -> bool) -> Result<Done, Sense> {
    let all: Vec<Rc<Unit>> = units.iter().copied().cloned().collect();
    let place = units[0].tasks.begin(&nexus("a"), 1);
    place.task.start();
    let commission = Commission {
        receiver: units[0],
        units: &all,
        task: &place.task,
        wanted,
        limit: COPY_TIME_MAX,
    };
    let list = list(units, wishes);
    let done = perform(&commission, &list, list.len()).await;
    done.map_err(|done| done.sense.unwrap())
}

async fn copy(units: &[&Rc<Unit>], wishes: &[Wish]) -> Result<Done, Sense> {
    copy_while(units, wishes, &|| true).await
}

/// Runs a test on an event loop of one thread, as a target has.
fn alone(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Bytes that differ from those of any other offset and seed nearby.
fn pattern(seed: u64, length: u64) -> Vec<u8> {
    let words = (0..length / 8).map(|at| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed));
    words.flat_map(u64::to_be_bytes).collect()
}

async fn fill(unit: &Unit, offset: u64, data: &[u8]) {
    write(&*unit.device, offset, Bytes::copy_from_slice(data))
        .await
        .unwrap();
}

async fn bytes_of(unit: &Unit, offset: u64, length: u64) -> Bytes {
    read(&*unit.device, offset, length).await.unwrap()
}

/// Releases what waits at a device, oldest first, until `enough`.
async fn release_until(device: &MemoryDevice, enough: impl Fn() -> bool) {
    while !enough() {
        if device.waiting() > 0 {
            device.release(0);
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until so many requests wait at a device.
async fn until_waiting(device: &MemoryDevice, count: usize) {
    while device.waiting() < count {
        tokio::task::yield_now().await;
    }
}

/// Nobody but `holder` may use the unit.
fn reserve(unit: &Unit, holder: &str) {
    let Nexus {
        initiator,
        isid,
        target,
        portal_group,
    } = nexus(holder);
    *unit.record.borrow_mut() = Reservations {
        registrations: vec![Registration {
            initiator: initiator.clone(),
            isid: isid.clone(),
            target: target.clone(),
            portal_group,
            key: 1,
        }],
        holder: Some(Holder {
            initiator,
            isid,
            target,
            portal_group,
            scope_type: 3,
        }),
        ..Reservations::default()
    };
}

#[test]
fn data_arrives_and_a_thin_source_stays_thin() {
    alone(async {
        let (source, destination) = (unit(0, 4096), unit(1, 4096));
        let data = pattern(1, 3 * MIB);
        fill(&source, 2 * MIB, &data).await;
        // There was something where the source has nothing.
        fill(&destination, 8 * MIB, &pattern(2, 8 * MIB)).await;
        let done = copy(&[&source, &destination], &[(0, 1, false, 2048, 0, 2048)]).await;
        assert_eq!(done, Ok(Done::good()));
        assert!(bytes_of(&destination, 10 * MIB, 3 * MIB).await == data);
        let runs = map(&*destination.device, 8 * MIB, 8 * MIB).await.unwrap();
        let data_runs: Vec<(u64, bool)> = runs
            .iter()
            .map(|(length, kind)| (*length, *kind == MapKind::Data))
            .collect();
        assert_eq!(data_runs, [(2 * MIB, false), (3 * MIB, true), (3 * MIB, false)]);
        let done = Progress {
            state: State::Done,
            segments: 1,
            bytes: 8 << 20,
        };
        assert_eq!(source.copies.ask(&nexus("a"), 9), Some(done));
    });
}

#[test]
fn blocks_that_overlap_arrive_as_they_were() {
    alone(async {
        for block_size in [512, 4096] {
            for (from, to) in [(100, 101), (101, 100), (0, 400), (400, 0), (50, 50)] {
                let unit = unit(0, block_size);
                let size = u64::from(block_size);
                let mut model = pattern(from, 1000 * size);
                fill(&unit, 0, &model).await;
                // With a hole that overlaps itself.
                let (at, end) = (200 * size, 208 * size);
                discard(&*unit.device, at, end - at).await.unwrap();
                let index = |byte: u64| usize::try_from(byte).unwrap();
                model[index(at)..index(end)].fill(0);
                let done = copy(&[&unit], &[(0, 0, false, 600, from, to)]).await;
                assert_eq!(done, Ok(Done::good()));
                model.copy_within(index(from * size)..index((from + 600) * size), index(to * size));
                assert!(bytes_of(&unit, 0, 1000 * size).await == model, "{from} to {to}");
            }
        }
    });
}

#[test]
fn overlapping_pieces_are_copied_from_the_end_that_is_read_first() {
    alone(async {
        // Longer than a piece, by less than one.
        for (from, to) in [(0, 100), (100, 0)] {
            let unit = unit(0, 4096);
            let mut model = pattern(7, 4 * MIB);
            fill(&unit, 0, &model).await;
            let done = copy(&[&unit], &[(0, 0, false, 800, from, to)]).await;
            assert_eq!(done, Ok(Done::good()));
            let index = |block: u64| usize::try_from(block * 4096).unwrap();
            model.copy_within(index(from)..index(from + 800), index(to));
            assert!(bytes_of(&unit, 0, 4 * MIB).await == model, "{from} to {to}");
        }
    });
}

#[test]
fn blocks_are_counted_by_the_side_that_the_list_says() {
    alone(async {
        let (short, long) = (unit(0, 512), unit(1, 4096));
        let data = pattern(1, 16 * 4096);
        fill(&short, 512, &data).await;
        let inexact = Sense::INEXACT_SEGMENT.about(90).of_segment(0);
        // Counted by blocks of 512: eight are one of the other.
        assert_eq!(
            copy(&[&short, &long], &[(0, 1, false, 7, 1, 5)]).await,
            Err(inexact)
        );
        assert!(copy(&[&short, &long], &[(0, 1, false, 8, 1, 5)]).await.is_ok());
        assert!(bytes_of(&long, 5 * 4096, 4096).await == data[..4096]);
        assert!(
            bytes_of(&long, 6 * 4096, 4096)
                .await
                .iter()
                .all(|byte| *byte == 0)
        );
        // Counted by those of 4096.
        assert!(copy(&[&short, &long], &[(0, 1, true, 16, 1, 5)]).await.is_ok());
        assert!(bytes_of(&long, 5 * 4096, 16 * 4096).await == data);
        // None is no error.
        assert!(copy(&[&short, &long], &[(0, 1, false, 0, 1, 5)]).await.is_ok());
        // A segment may be so long, and no longer.
        assert!(copy(&[&long], &[(0, 0, false, 4096, 0, 4096)]).await.is_ok());
        let long_segment = copy(&[&long], &[(0, 0, false, 4097, 0, 0)]).await;
        assert_eq!(long_segment, Err(Sense::parameter(16 + 32 + 10)));
    });
}

#[test]
fn nothing_is_copied_if_any_segment_is_wrong() {
    alone(async {
        let (source, destination) = (unit(0, 4096), unit(1, 4096));
        fill(&source, 0, &pattern(1, 4096)).await;
        let good = (0, 1, false, 1, 0, 0);
        let aborted = |at: u16| Sense::COPY_ABORTED.about(at).of_segment(1);
        let blocks = SIZE / 4096;
        let units = [&source, &destination];
        // The second segment's descriptor is at 108, its source block at 120 and its destination block at 128.
        let beyond = copy(&units, &[good, (0, 1, false, 2, blocks - 1, 0)]).await;
        assert_eq!(beyond, Err(aborted(120)));
        let beyond = copy(&units, &[good, (0, 1, false, 2, 0, blocks - 1)]).await;
        assert_eq!(beyond, Err(aborted(128)));
        let beyond = copy(&units, &[good, (0, 1, false, 2, u64::MAX, 0)]).await;
        assert_eq!(beyond, Err(aborted(120)));
        let read_only = unit_on(2, 4096, true, Rc::new(MemoryDevice::new(SIZE)));
        let protected = copy(
            &[&source, &destination, &read_only],
            &[good, (0, 2, false, 1, 0, 0)],
        )
        .await;
        assert_eq!(protected, Err(Sense::WRITE_PROTECTED));
        assert!(
            bytes_of(&destination, 0, 4096)
                .await
                .iter()
                .all(|byte| *byte == 0)
        );
        // What is only read may be protected.
        assert!(copy(&[&read_only, &destination], &[good]).await.is_ok());
    });
}

#[test]
fn units_of_other_targets_and_of_other_block_sizes_are_refused() {
    alone(async {
        let (source, other) = (unit(0, 4096), unit(1, 4096));
        let place = source.tasks.begin(&nexus("a"), 1);
        let commission = Commission {
            receiver: &source,
            units: &[Rc::clone(&source)],
            task: &place.task,
            wanted: &|| true,
            limit: COPY_TIME_MAX,
        };
        let mut list = list(&[&source, &other], &[(0, 1, false, 1, 0, 0)]);
        let unreachable = Sense::COPY_TARGET_NOT_REACHABLE.about(48).of_segment(0);
        let done = perform(&commission, &list, list.len()).await;
        assert_eq!(done, Err(unreachable.into()));
        // The same unit twice, with blocks of 512 bytes by the list, and with blocks of which nothing is said.
        list.copy_within(16..48, 48);
        list[78] = 2;
        let done = perform(&commission, &list, list.len()).await;
        assert_eq!(done, Err(Sense::parameter(48 + 29).into()));
        list[78] = 0;
        assert_eq!(perform(&commission, &list, list.len()).await, Ok(Done::good()));
    });
}

#[test]
fn what_another_path_has_reserved_is_not_read_and_not_written() {
    alone(async {
        let (source, destination) = (unit(0, 4096), unit(1, 4096));
        let receiver = unit(2, 4096);
        let wishes = [(1, 2, false, 1, 0, 0)];
        let units = [&receiver, &source, &destination];
        let failed = |at: u16| Err(Sense::COPY_TARGET_FAILED.about(at).of_segment(0));
        reserve(&destination, "b");
        assert_eq!(copy(&units, &wishes).await, failed(80));
        // Whoever may not write may be let read.
        let exclusive = |unit: &Unit, scope_type: u8| {
            unit.record.borrow_mut().holder.as_mut().unwrap().scope_type = scope_type;
        };
        *destination.record.borrow_mut() = Reservations::default();
        reserve(&source, "b");
        assert_eq!(copy(&units, &wishes).await, failed(48));
        exclusive(&source, 1);
        assert!(copy(&units, &wishes).await.is_ok());
        reserve(&source, "a");
        reserve(&destination, "a");
        assert!(copy(&units, &wishes).await.is_ok());
    });
}

#[test]
fn runs_become_pieces() {
    let part = |from, length, holds_data| Part {
        from,
        length,
        holds_data,
    };
    let runs = [
        (4096, MapKind::Hole),
        (8192, MapKind::Zero),
        (PIECE + 4096, MapKind::Data),
        (4 * PIECE, MapKind::Hole),
    ];
    let parts = [
        part(0, 12288, false),
        part(12288, PIECE, true),
        part(12288 + PIECE, 4096, true),
        part(16384 + PIECE, 4 * PIECE, false),
    ];
    assert_eq!(parts_of(&runs), parts);
}
