//! Digests: CRC-32C over a header or a data segment (RFC 7143 section 13.1). Refuses to know where they stand.

/// Bytes of a digest.
pub const DIGEST_LENGTH: usize = 4;

/// The digest of `bytes` with the zeros that pad them to whole words, as it travels: the lowest byte first.
pub fn digest(bytes: &[u8]) -> [u8; DIGEST_LENGTH] {
    finish(crc32c::crc32c(bytes), bytes.len())
}

/// The digest of several pieces as if they were one.
pub fn digest_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; DIGEST_LENGTH] {
    let (sum, length) = pieces.into_iter().fold((0, 0), |(sum, length), piece| {
        (crc32c::crc32c_append(sum, piece), length + piece.len())
    });
    finish(sum, length)
}

fn finish(sum: u32, length: usize) -> [u8; DIGEST_LENGTH] {
    let zeros = [0; 3];
    crc32c::crc32c_append(sum, &zeros[..padding(length)]).to_le_bytes()
}

/// How many zeros follow `length` bytes, so that the next thing begins at a whole word of 4 bytes.
pub const fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

#[cfg(test)]
mod tests {
    //! The examples of RFC 7143 appendix A.4.
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(digest(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(digest(&[0xff; 32]), [0x43, 0xab, 0xa8, 0x62]);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(digest(&rising), [0x4e, 0x79, 0xdd, 0x46]);
        assert_eq!(digest_of([&rising[..7], &rising[7..]]), digest(&rising));
    }

    #[test]
    fn padding_is_part_of_the_digest() {
        assert_eq!(digest(&[1]), digest(&[1, 0, 0, 0]));
        assert_eq!([0, 1, 2, 3, 4].map(padding), [0, 3, 2, 1, 0]);
    }
}
