//! Virtio-blk: a ring in guest memory, with any content of that memory, and of the log of requests in flight.

use std::io::Write as _;
use std::rc::Rc;

use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use vhost_blk::backing::Backing;
use vhost_blk::guest_memory::{GuestMap, GuestMemory};
use vhost_blk::inflight::Region;
use vhost_blk::ring::{Legacy, Ring};
use vhost_user_backend::{VringMutex, VringT};
use vm_memory::{Bytes, GuestAddress};

/// Small, so that random addresses often lie inside.
const MEMORY_BYTES: usize = 1 << 16;
const QUEUE_SIZE: u16 = 8;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x80;
const USED: u64 = 0xa0;
/// A log for this size of queue.
const LOG_BYTES: usize = 192;
/// The size of the volume in bytes.
const SIZE: u64 = 1 << 20;
/// Looks at the ring: the guest's memory does not change between them, unless an answer changed it.
const TURNS: usize = 4;

/// The first byte says what kind of device it is, and whether a log follows that a former process left; the rest
/// is the beginning of the guest's memory, in which the descriptors lie first, then the rings.
pub(crate) fn ring(input: &[u8]) {
    let Some((kind, content)) = input.split_first() else {
        return;
    };
    let Ok(memory) = GuestMap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]) else {
        return;
    };
    let (log, content) = match content.split_at_checked(LOG_BYTES) {
        Some((log, content)) if kind & 4 != 0 => (Some(log), content),
        _ => (None, content),
    };
    let content = content.get(..MEMORY_BYTES).unwrap_or(content);
    assert!(memory.write_slice(content, GuestAddress(0)).is_ok());
    let memory = GuestMemory::new(memory);
    let Ok(vring) = VringMutex::<GuestMemory>::new(memory.clone(), QUEUE_SIZE) else {
        return;
    };
    assert!(vring.set_queue_info(DESCRIPTORS, AVAILABLE, USED).is_ok());
    vring.set_queue_event_idx(kind & 1 != 0);
    vring.set_queue_ready(true);
    let read_only = kind & 2 != 0;
    let device = Rc::new(MemoryDevice::with_info(DeviceInfo {
        read_only,
        ..MemoryDevice::new(SIZE).info()
    }));
    let Some(legacy) = legacy(&vring, log) else { return };
    let ring = Ring::new(0, vring, memory, Backing::new(device, 4096), legacy);
    for _ in 0..TURNS {
        ring.turn();
    }
    ring.stop();
    ring.turn();
    assert!(
        ring.is_drained(),
        "a device that answers at once leaves nothing under way"
    );
}

/// What a former process has left, according to a log of any content; nothing if that is refused.
fn legacy(vring: &VringMutex<GuestMemory>, log: Option<&[u8]>) -> Option<Legacy> {
    let Some(bytes) = log else {
        return Some(Legacy::default());
    };
    let (described, mut file) = Region::create(1, QUEUE_SIZE).ok()?;
    file.write_all(bytes).ok()?;
    let log = Region::map(&described, file).ok()?.log(0);
    Legacy::inherit(vring, log).ok()
}
