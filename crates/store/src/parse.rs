//! The parsers of what a disk holds, as functions of arbitrary bytes: for the fuzzer and for tools.
//!
//! Each gives back what the bytes encode to again, or nothing if they are not what they should be.

use crate::format::cursor::Cursor;
use crate::format::entry::{self, ChunkEntry, LogStart, ObjectEntry};
use crate::format::record::Record;
use crate::format::{batch, page, superblock};

/// A copy of a superblock.
pub fn superblock(bytes: &[u8]) -> Option<Vec<u8>> {
    let format = superblock::decode(bytes).ok()?;
    Some(superblock::encode(&format)[..superblock::COPY].to_vec())
}

/// A batch's header and records. Gives these without the padding.
pub fn batch(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = batch::BatchHeader::decode(bytes).ok()?;
    let head = bytes.get(..header.head_bytes())?;
    let list = batch::decode_records(&header, head).ok()?;
    let mut out = Vec::new();
    for record in &list {
        record.encode(&mut out);
    }
    let (sequence, offset) = (header.sequence, header.offset);
    let again = batch::encode_head(
        header.serial,
        sequence,
        offset,
        &out,
        header.records,
        header.blocks,
    );
    Some(again[..batch::HEADER + out.len()].to_vec())
}

/// Records, one after the other, without a batch's checksums around them.
pub fn records(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(bytes);
    let mut out = Vec::new();
    while !cursor.is_empty() {
        let record = Record::decode(&mut cursor).ok()?;
        // What a recovery asks of a record must hold for any that decodes.
        let blocks = record.direct_blocks().len() + record.inline_checksums().len();
        debug_assert!(blocks <= bytes.len());
        record.encode(&mut out);
    }
    Some(out)
}

/// A value of the metadata tables, of the kind that `kind` says.
pub fn entry(kind: u8, bytes: &[u8]) -> Option<Vec<u8>> {
    match kind % 4 {
        0 => ObjectEntry::decode(bytes).ok().map(|entry| entry.encode()),
        1 => ChunkEntry::decode(bytes).ok().map(|entry| entry.encode()),
        2 => LogStart::decode(bytes).ok().map(LogStart::encode),
        _ => entry::decode_stamp(bytes).ok().map(entry::encode_stamp),
    }
}

/// A key of the metadata tables, an object's or a chunk's.
pub fn key(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() == entry::OBJECT_KEY {
        return entry::parse_object_key(bytes)
            .ok()
            .map(|object| entry::object_key(object).to_vec());
    }
    let (object, chunk) = entry::parse_chunk_key(bytes).ok()?;
    Some(entry::chunk_key(object, chunk).to_vec())
}

/// A page of the metadata file with its trailer.
pub fn page(number: u64, bytes: &[u8]) -> Option<Vec<u8>> {
    let stored = bytes.get(..page::span(number))?;
    let mut opened = vec![0; page::PAGE];
    page::open(number, stored, &mut opened).ok()?;
    let mut out = Vec::new();
    if stored.iter().all(|byte| *byte == 0) {
        return Some(stored.to_vec());
    }
    page::seal(number, &opened, &mut out).ok()?;
    Some(out)
}

/// Records with every kind in them, for the golden bytes and for the fuzzer's first inputs.
pub fn sample_records() -> Vec<(&'static str, Vec<u8>)> {
    let named = crate::format::sample::records();
    named
        .into_iter()
        .map(|(name, record)| {
            let mut out = Vec::new();
            record.encode(&mut out);
            (name, out)
        })
        .collect()
}
