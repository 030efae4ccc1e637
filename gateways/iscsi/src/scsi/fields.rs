//! Big-endian fields of descriptors and pages. Refuses to know which.

/// Two bytes from `at`; zero beyond the end.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |field| u16::from_be_bytes(*field))
}

/// Four bytes from `at`; zero beyond the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |field| u32::from_be_bytes(*field))
}

/// Eight bytes from `at`; zero beyond the end.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |field| u64::from_be_bytes(*field))
}

/// A length that its field can hold: what is longer is told as the most that can be.
pub fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// A length that its field can hold: what is longer is told as the most that can be.
pub fn length32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Printable ASCII in a field of `width` bytes, padded with spaces (SPC-4 clause 4.3.1).
pub fn ascii(text: &str, width: usize) -> Vec<u8> {
    let printable = text.bytes().filter(|byte| (0x20..0x7f).contains(byte));
    let padded = printable.chain(std::iter::repeat(b' '));
    padded.take(width).collect()
}
