//! Pages of the metadata file: what the tables' storage writes, with a checksum beside each page.
//!
//! The tables (redb) check their pages only when asked to check all of them, and a changed bit may
//! make them panic or miss an entry. So each page of 4096 bytes is kept with a trailer that names
//! its number and checks it, and is verified at every read. Page 0 is special: the tables
//! overwrite it in place, and only its first 320 bytes; it is kept in one sector, which a disk
//! writes as a whole or not at all.

use crate::format::cursor::{Append, Cursor, Malformed};

/// The tables' page, in bytes.
pub(crate) const PAGE: usize = 4096;
/// A page with its trailer, in bytes.
pub(crate) const STRIDE: usize = PAGE + TRAILER;
/// How much of page 0 may be used, in bytes.
pub(crate) const FIRST_PAGE_USED: usize = SECTOR - TRAILER;

const SECTOR: usize = 512;
const TRAILER: usize = 8;
const MAGIC: u32 = u32::from_le_bytes(*b"STGM");

/// Where a page is in the file, in bytes.
pub(crate) fn place(number: u64) -> u64 {
    number * STRIDE as u64
}

/// How many pages a file of so many bytes holds; a part of one at the end does not count.
pub(crate) fn count(file_bytes: u64) -> u64 {
    file_bytes / STRIDE as u64
}

/// How many bytes of the file a page takes up when it is written or read.
pub(crate) fn span(number: u64) -> usize {
    if number == 0 { SECTOR } else { STRIDE }
}

/// Appends a page with its trailer. Of page 0 all beyond [`FIRST_PAGE_USED`] must be zero.
pub(crate) fn seal(number: u64, page: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let body = if number == 0 {
        if page[FIRST_PAGE_USED..].iter().any(|byte| *byte != 0) {
            return Err(Malformed("the first page holds more than a sector"));
        }
        &page[..FIRST_PAGE_USED]
    } else {
        page
    };
    out.extend_from_slice(body);
    out.put_u32(checksum(number, body));
    out.put_u32(MAGIC);
    Ok(())
}

/// Checks a page that was read and copies it out. A page that was never written is all zeros.
pub(crate) fn open(number: u64, stored: &[u8], page: &mut [u8]) -> Result<(), Malformed> {
    let (body, trailer) = stored
        .split_at_checked(span(number) - TRAILER)
        .ok_or(Malformed("a page ends too early"))?;
    let mut cursor = Cursor::new(trailer);
    let sound = cursor.u32()? == checksum(number, body) && cursor.u32()? == MAGIC;
    if !sound && stored.iter().any(|byte| *byte != 0) {
        return Err(Malformed("a page's checksum does not match"));
    }
    let (head, rest) = page.split_at_mut(body.len());
    head.copy_from_slice(body);
    rest.fill(0);
    Ok(())
}

fn checksum(number: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: no changed bit of a page, of its number or of its trailer goes unseen.
    #[test]
    fn every_flipped_bit_of_a_page_is_found() {
        let page: Vec<u8> = (0..PAGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut stored = Vec::new();
        seal(5, &page, &mut stored).unwrap();
        let mut back = vec![1; PAGE];
        open(5, &stored, &mut back).unwrap();
        assert_eq!(back, page);
        assert!(open(6, &stored, &mut back).is_err());
        for position in 0..stored.len() {
            let mut flipped = stored.clone();
            flipped[position] ^= 1 << (position % 8);
            assert!(open(5, &flipped, &mut back).is_err(), "byte {position}");
        }
    }

    /// Guards: the first page must fit a sector, or a power cut could tear it.
    #[test]
    fn the_first_page_never_exceeds_a_sector() {
        let mut page = vec![0; PAGE];
        page[..320].fill(3);
        let mut stored = Vec::new();
        seal(0, &page, &mut stored).unwrap();
        assert_eq!(stored.len(), 512);
        let mut back = vec![1; PAGE];
        open(0, &stored, &mut back).unwrap();
        assert_eq!(back, page);
        page[510] = 1;
        assert!(seal(0, &page, &mut stored).is_err());
    }
}
