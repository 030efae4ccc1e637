//! Blocks that say which write made them, so that a read names the write that it saw.

use bytes::Bytes;

/// Bytes in a block.
pub(crate) const BLOCK: usize = 4096;
/// Tells our blocks from anything else.
const MAGIC: u64 = 0x6b69_6c6c_7465_7374;
/// Bytes of one number.
const WORD: usize = 8;

/// What a block can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    /// Zeros: never written, or discarded.
    Zero,
    /// What the write with this number wrote.
    Write(u64),
}

impl Value {
    /// As a worker reports it: 0 is zeros, and writes count from 1.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Write(sequence) => sequence,
        }
    }

    /// What was reported.
    pub(crate) fn from_number(number: u64) -> Self {
        if number == 0 {
            Self::Zero
        } else {
            Self::Write(number)
        }
    }
}

/// The blocks from `first` on, as the write with number `sequence` leaves them.
pub(crate) fn blocks(first: u64, count: u64, sequence: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(BLOCK * usize::try_from(count).unwrap_or(0));
    for block in first..first + count {
        bytes.extend(words(block, sequence).flat_map(u64::to_le_bytes));
    }
    bytes.into()
}

/// What a block holds, or a sentence if it is nothing that was ever written there.
pub(crate) fn read(block: u64, bytes: &[u8]) -> Result<Value, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Value::Zero);
    }
    let found = |position: usize| {
        let word = bytes.get(position * WORD..(position + 1) * WORD)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    };
    let sequence = found(2).unwrap_or(0);
    for (position, expected) in words(block, sequence).enumerate() {
        if found(position) != Some(expected) {
            return Err(format!(
                "block {block} is no whole block of any write: it says write {sequence} of block {:?}, and \
                 differs from that at byte {}",
                found(1),
                position * WORD
            ));
        }
    }
    Ok(Value::Write(sequence))
}

/// Magic, block, sequence, then numbers that follow from them: no part of another block fits.
fn words(block: u64, sequence: u64) -> impl Iterator<Item = u64> {
    let mut state = block.rotate_left(32) ^ sequence ^ MAGIC;
    let tail = std::iter::from_fn(move || {
        // A linear congruence (Knuth's MMIX multiplier): any change of the seed changes every word.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Some(state)
    });
    [MAGIC, block, sequence]
        .into_iter()
        .chain(tail)
        .take(BLOCK / WORD)
}

#[cfg(test)]
mod tests {
    //! Torn, misplaced and mixed blocks are told from whole ones.
    use super::*;

    #[test]
    fn a_whole_block_names_its_write_and_anything_else_is_refused() {
        let bytes = blocks(7, 2, 99);
        assert_eq!(read(7, &bytes[..BLOCK]), Ok(Value::Write(99)));
        assert_eq!(read(8, &bytes[BLOCK..]), Ok(Value::Write(99)));
        assert!(read(9, &bytes[..BLOCK]).is_err(), "a block in a wrong place");
        assert_eq!(read(7, &[0; BLOCK]), Ok(Value::Zero));
        let newer = blocks(7, 1, 100);
        for cut in (512..BLOCK).step_by(512) {
            let torn = [&newer[..cut], &bytes[cut..BLOCK]].concat();
            assert!(read(7, &torn).is_err(), "torn at {cut}");
        }
        let mut flipped = bytes[..BLOCK].to_vec();
        flipped[4000] ^= 1;
        assert!(read(7, &flipped).is_err());
    }
}
