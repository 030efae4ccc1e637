//! What the guest is told about the device before it sends a request: feature bits and the 60 bytes
//! of the virtio-blk configuration space (virtio 1.2, section 5.2.4).

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::request::{SECTOR_BYTES, SEGMENT_SECTORS_MAX, SEGMENTS_MAX};

/// Length of the configuration space, in bytes: up to and with `write_zeroes_may_unmap` and its padding.
pub const CONFIG_BYTES: usize = 60;
/// The longest queue that a front end may set up: the largest that QEMU offers.
pub const QUEUE_SIZE_MAX: u16 = 1024;
/// The most queues of a device. More than a guest has processors is of no use, and each one may
/// hold [`QUEUE_SIZE_MAX`] requests.
pub const QUEUES_MAX: u16 = 64;

/// Data buffers of one request: QEMU's default queue of 128 without header and status, so that a guest
/// without indirect descriptors can send the largest request that it was allowed.
const SEG_MAX: u32 = 126;
/// The longest data buffer, in bytes. With [`SEG_MAX`] it keeps a request of a well-made guest below the 32 MiB that
/// are taken at all.
const SIZE_MAX: u32 = 256 << 10;
/// Where `writeback` lies, the one byte that a guest may write.
const WRITEBACK_OFFSET: u32 = 32;
/// The bit by which the two ends agree on vhost-user's own features.
const VHOST_USER_F_PROTOCOL_FEATURES: u32 = 30;
/// The bit by which the front end has the pages logged that are written. Never seen by the guest.
pub const VHOST_F_LOG_ALL: u32 = 26;

/// What a device is, apart from its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The smallest request, in bytes: 512 or 4096.
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How many queues the guest may use.
    pub queues: u16,
}

/// The configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    shape: Shape,
    sectors: u64,
    writeback: bool,
}

impl ConfigSpace {
    /// Of a device with `size` bytes.
    pub fn new(shape: Shape, size: u64) -> Self {
        // Every acknowledged write is on stable storage, so there is no volatile cache: a guest that
        // believes this sends no flushes, and loses nothing.
        Self {
            shape,
            sectors: size / SECTOR_BYTES,
            writeback: false,
        }
    }

    /// What was given to [`ConfigSpace::new`].
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The device has `size` bytes from now on. Says whether that is news.
    pub fn resize(&mut self, size: u64) -> bool {
        let before = std::mem::replace(&mut self.sectors, size / SECTOR_BYTES);
        before != self.sectors
    }

    /// The virtio feature bits on offer.
    pub fn features(&self) -> u64 {
        let mut bits = vec![
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VHOST_USER_F_PROTOCOL_FEATURES,
            VHOST_F_LOG_ALL,
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
        ];
        if self.shape.queues > 1 {
            bits.push(VIRTIO_BLK_F_MQ);
        }
        if self.shape.read_only {
            bits.push(VIRTIO_BLK_F_RO);
        } else {
            bits.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
        }
        bits.into_iter().fold(0, |features, bit| features | 1 << bit)
    }

    /// The features of vhost-user itself on offer.
    pub fn protocol_features() -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE
    }

    /// The bytes `offset..offset + length`; zeros beyond the end, as a driver of a later
    /// version may ask for fields that this device does not have.
    pub fn read(&self, offset: u32, length: u32) -> Vec<u8> {
        let bytes = self.bytes();
        (u64::from(offset)..u64::from(offset) + u64::from(length))
            .map(|at| {
                usize::try_from(at)
                    .ok()
                    .and_then(|at| bytes.get(at))
                    .copied()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// The guest writes. Only `writeback` may be written, with 0 or 1. Says whether it was accepted.
    pub fn write(&mut self, offset: u32, bytes: &[u8]) -> bool {
        match bytes {
            [value @ (0 | 1)] if offset == WRITEBACK_OFFSET => {
                // Remembered so that it reads back. Nothing else depends on it: a write is durable
                // when it is answered, and a flush waits for earlier writes, in either mode.
                self.writeback = *value == 1;
                true
            }
            _ => false,
        }
    }

    fn bytes(&self) -> [u8; CONFIG_BYTES] {
        let block_sectors = self.shape.block_size / 512;
        // Layers share and disks write 4 KiB blocks: the physical block of a 512-byte device.
        let physical_exponent = if self.shape.block_size == 512 { 3 } else { 0 };
        let optimal_blocks = protocol::geometry::CHUNK_SIZE / self.shape.block_size;
        let minimal_blocks =
            u16::try_from(protocol::geometry::BLOCK_SIZE / self.shape.block_size).unwrap_or(1);
        let mut bytes = [0; CONFIG_BYTES];
        let mut put = |offset: usize, value: &[u8]| {
            bytes
                .iter_mut()
                .skip(offset)
                .zip(value)
                .for_each(|(byte, value)| *byte = *value);
        };
        put(0, &self.sectors.to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &self.shape.block_size.to_le_bytes());
        put(24, &[physical_exponent, 0]);
        put(26, &minimal_blocks.to_le_bytes());
        put(28, &optimal_blocks.to_le_bytes());
        put(32, &[u8::from(self.writeback), 0]);
        put(34, &self.shape.queues.to_le_bytes());
        put(36, &SEGMENT_SECTORS_MAX.to_le_bytes());
        put(40, &SEGMENTS_MAX.to_le_bytes());
        // Only whole 4 KiB blocks give space back; smaller edges are zeroed.
        put(
            44,
            &(protocol::geometry::BLOCK_SIZE / 512)
                .max(block_sectors)
                .to_le_bytes(),
        );
        put(48, &SEGMENT_SECTORS_MAX.to_le_bytes());
        put(52, &SEGMENTS_MAX.to_le_bytes());
        put(56, &[1, 0, 0, 0]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    //! The configuration space is a contract with drivers that are not ours: its bytes are pinned.
    use super::*;

    const SHAPE: Shape = Shape {
        block_size: 512,
        read_only: false,
        queues: 4,
    };

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let bytes = ConfigSpace::new(SHAPE, 10 << 30).read(0, 60);
        let expected: Vec<u8> = [
            &(20u64 << 20).to_le_bytes()[..], // capacity
            &(256u32 << 10).to_le_bytes(),    // size_max
            &126u32.to_le_bytes(),            // seg_max
            &[0; 4],                          // geometry, not offered
            &512u32.to_le_bytes(),            // blk_size
            &[3, 0, 8, 0, 128, 0, 0, 0],      // topology: 4 KiB physical, 4 KiB minimal, 64 KiB optimal
            &[0, 0],                          // writeback
            &4u16.to_le_bytes(),              // num_queues
            &(1u32 << 21).to_le_bytes(),      // max_discard_sectors
            &16u32.to_le_bytes(),             // max_discard_seg
            &8u32.to_le_bytes(),              // discard_sector_alignment
            &(1u32 << 21).to_le_bytes(),      // max_write_zeroes_sectors
            &16u32.to_le_bytes(),             // max_write_zeroes_seg
            &[1, 0, 0, 0],                    // write_zeroes_may_unmap
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn reads_beyond_the_end_give_zeros_and_never_panic() {
        let config = ConfigSpace::new(SHAPE, 1 << 20);
        assert_eq!(config.read(58, 6), [0; 6]);
        assert_eq!(config.read(u32::MAX, 2), [0; 2]);
    }

    #[test]
    fn a_guest_may_change_the_write_back_byte_and_nothing_else() {
        let mut config = ConfigSpace::new(SHAPE, 1 << 20);
        assert!(config.write(32, &[1]));
        assert_eq!(config.read(32, 1), [1]);
        assert!(!config.write(32, &[2]));
        assert!(!config.write(0, &[1]));
        assert!(!config.write(32, &[0, 0]));
        assert_eq!(config.read(32, 1), [1]);
    }

    #[test]
    fn a_read_only_device_offers_neither_discard_nor_write_zeroes() {
        let read_only = ConfigSpace::new(
            Shape {
                read_only: true,
                ..SHAPE
            },
            1 << 20,
        )
        .features();
        assert_ne!(read_only & 1 << VIRTIO_BLK_F_RO, 0);
        assert_eq!(
            read_only & (1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES),
            0
        );
    }

    #[test]
    fn only_a_new_size_is_news() {
        let mut config = ConfigSpace::new(SHAPE, 1 << 20);
        assert!(!config.resize(1 << 20));
        assert!(config.resize(2 << 20));
        assert_eq!(config.read(0, 8), 4096u64.to_le_bytes());
    }
}
