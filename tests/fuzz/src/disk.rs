//! The disk format: whatever a disk's files hold, reading it ends and never panics.

use store::parse;

/// The first byte says what the rest is taken for.
pub(crate) fn structures(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let again = match kind % 8 {
        0 => parse::superblock(bytes),
        1 => parse::batch(bytes),
        2 => parse::records(bytes),
        3 => parse::key(bytes),
        4 => parse::page(u64::from(*kind / 8), bytes),
        other => parse::entry(other + kind / 8, bytes),
    };
    if let Some(again) = again {
        // One way only to write a structure: what is read encodes to the bytes that were read, but
        // for what follows a structure of a fixed length.
        assert_eq!(bytes.get(..again.len()), Some(again.as_slice()), "kind {kind}");
    }
}
