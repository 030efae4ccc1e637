//! CRC-32C, one for each 4 KiB block: made once by the owner, and checked wherever the bytes rest.

use std::sync::Arc;

use crate::geometry::BLOCK_SIZE;

/// The checksum of some bytes: of a block, or of a structure that travels or rests.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// One checksum for each whole block of `bytes`, whose length is a multiple of [`BLOCK_SIZE`].
pub fn of_blocks(bytes: &[u8]) -> Arc<[u32]> {
    bytes.chunks_exact(BLOCK_SIZE as usize).map(crc).collect()
}

/// Checks each block against its checksum.
///
/// The error is the number of the first block that does not match. A length that is not one block
/// for each checksum is an error at the first block that is too much or missing.
pub fn verify(bytes: &[u8], checksums: &[u32]) -> Result<(), usize> {
    let blocks = bytes.chunks_exact(BLOCK_SIZE as usize);
    let whole = blocks.len();
    if whole != checksums.len() || !blocks.remainder().is_empty() {
        return Err(whole.min(checksums.len()));
    }
    match blocks
        .zip(checksums)
        .position(|(block, expected)| crc(block) != *expected)
    {
        Some(block) => Err(block),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    //! A changed bit is found and placed; a wrong number of blocks never passes.
    use super::*;

    #[test]
    fn a_changed_bit_is_found_in_its_block() {
        let mut bytes = vec![7u8; 3 * 4096];
        let checksums = of_blocks(&bytes);
        assert_eq!(verify(&bytes, &checksums), Ok(()));
        bytes[2 * 4096 + 5] ^= 1;
        assert_eq!(verify(&bytes, &checksums), Err(2));
    }

    #[test]
    fn a_wrong_number_of_blocks_never_passes() {
        let bytes = vec![7u8; 2 * 4096];
        let checksums = of_blocks(&bytes);
        assert_eq!(verify(&bytes[..4096], &checksums), Err(1));
        assert_eq!(verify(&bytes[..5000], &checksums[..1]), Err(1));
        assert_eq!(verify(&bytes, &checksums[..1]), Err(1));
    }
}
