//! Virtio-blk: a ring in guest memory, with any content of that memory.

use std::rc::Rc;

use client::device::{BlockDevice, DeviceInfo};
use client::memory::MemoryDevice;
use vhost_blk::guest_memory::{GuestMap, GuestMemory};
use vhost_blk::ring::{Backing, Ring};
use vhost_user_backend::{VringMutex, VringT};
use vm_memory::{Bytes, GuestAddress};

/// Small, so that random addresses often lie inside.
const MEMORY_BYTES: usize = 1 << 16;
const QUEUE_SIZE: u16 = 8;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x80;
const USED: u64 = 0xa0;
/// The size of the volume in bytes.
const SIZE: u64 = 1 << 20;
/// Looks at the ring: the guest's memory does not change between them, unless an answer changed it.
const TURNS: usize = 4;

/// The first byte says what kind of device it is; the rest is the beginning of the guest's memory, in
/// which the descriptors lie first, then the rings.
pub(crate) fn ring(input: &[u8]) {
    let Some((kind, content)) = input.split_first() else {
        return;
    };
    let Ok(memory) = GuestMap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]) else {
        return;
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
    let ring = Ring::new(0, vring, memory, Backing::new(device, 4096));
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
