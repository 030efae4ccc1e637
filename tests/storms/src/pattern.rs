//! Blocks that say which write made them, so that a read tells what it saw. A block holds its own number and that of
//! its write, again and again, and words that follow from both.

use bytes::Bytes;

/// Bytes in a block.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes of one number.
const WORD: usize = 8;
/// Tells our blocks from anything else.
const MAGIC: u64 = 0x7374_6f72_6d73_2121;

/// The blocks from `first` on, as the write with this number leaves them.
pub(crate) fn blocks(first: u64, count: u64, write: u64) -> Bytes {
    let words = (first..first + count).flat_map(|block| words(block, write));
    words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>().into()
}

/// Which write a block holds, 0 for none; a sentence if it is nothing that was ever written there.
pub(crate) fn read(block: u64, bytes: &[u8]) -> Result<u64, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let found: Vec<u64> = bytes
        .chunks_exact(WORD)
        .map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        .collect();
    let write = found.get(2).copied().unwrap_or(0);
    let differs = words(block, write)
        .zip(&found)
        .position(|(expected, found)| expected != *found);
    match differs {
        None => Ok(write),
        Some(word) => Err(format!(
            "block {block} is no whole block of any write: it says write {write} of block {:?}, and differs from \
             that at byte {}",
            found.get(1),
            word * WORD
        )),
    }
}

fn words(block: u64, write: u64) -> impl Iterator<Item = u64> {
    let mut state = block.rotate_left(32) ^ write ^ MAGIC;
    let tail = std::iter::from_fn(move || {
        // Knuth's MMIX congruence: any change of the seed changes every word.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some(state)
    });
    let words = usize::try_from(BLOCK).unwrap_or(0) / WORD;
    [MAGIC, block, write].into_iter().chain(tail).take(words)
}

#[cfg(test)]
mod tests {
    //! Torn, misplaced, mixed and turned blocks are told from whole ones.
    use super::*;

    #[test]
    fn a_whole_block_names_its_write_and_anything_else_is_refused() {
        let bytes = blocks(7, 2, 99);
        assert_eq!(read(7, &bytes[..4096]), Ok(99));
        assert_eq!(read(8, &bytes[4096..]), Ok(99));
        assert!(read(9, &bytes[..4096]).is_err(), "a block in a wrong place");
        assert_eq!(read(7, &[0; 4096]), Ok(0));
        let newer = blocks(7, 1, 100);
        for cut in (512..4096).step_by(512) {
            let torn = [&newer[..cut], &bytes[cut..4096]].concat();
            assert!(read(7, &torn).is_err(), "torn at {cut}");
        }
        let mut turned = bytes[..4096].to_vec();
        turned[4000] ^= 1;
        assert!(read(7, &turned).is_err());
    }
}
