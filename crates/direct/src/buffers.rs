//! Buffers for large reads, used again: a fresh one of 4 MiB costs more in page faults than the
//! read itself.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use protocol::{BLOCK_SIZE, OBJECT_SIZE};

/// A 4 KiB-aligned buffer of bytes.
pub type Buffer = aligned_vec::AVec<u8, aligned_vec::ConstAlign<4096>>;

/// Reads from this length on use these buffers. The allocator keeps smaller ones at hand itself.
pub(crate) const LENGTH_MIN: usize = 1 << 20;
/// How many buffers are kept: 16 MiB, as much as a few streams have under way.
const KEPT_MAX: usize = 4;

/// Free buffers of an object's length.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Buffer>>>);

/// A buffer that comes back when the last reader lets go of it.
struct Lent {
    buffer: Buffer,
    home: Buffers,
}

impl Buffers {
    /// A buffer of this length. What is in it is zeros, or left from another read: whoever fills it
    /// fills all of it.
    pub fn take(&self, length: usize) -> Buffer {
        let mut buffer = if length < LENGTH_MIN {
            Buffer::with_capacity(BLOCK_SIZE as usize, length)
        } else {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
            kept.unwrap_or_else(|| Buffer::with_capacity(BLOCK_SIZE as usize, OBJECT_SIZE as usize))
        };
        buffer.resize(length, 0);
        buffer
    }

    /// A filled buffer as bytes.
    pub fn lend(&self, buffer: Buffer) -> Bytes {
        if buffer.len() < LENGTH_MIN {
            return Bytes::from_owner(buffer);
        }
        Bytes::from_owner(Lent {
            buffer,
            home: self.clone(),
        })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::replace(&mut self.buffer, Buffer::new(BLOCK_SIZE as usize));
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: a buffer comes back, and no more of them are kept than the bound says.
    #[test]
    fn buffers_come_back_and_are_bounded() {
        let buffers = Buffers::default();
        let lent: Vec<Bytes> = (0..10).map(|_| buffers.lend(buffers.take(2 << 20))).collect();
        drop(lent);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT_MAX);
        assert_eq!(buffers.take(LENGTH_MIN).len(), LENGTH_MIN);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT_MAX - 1);
        assert_eq!(buffers.take(4096).len(), 4096);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT_MAX - 1);
    }
}
