//! Every structure that the store writes, byte by byte, little endian, versioned and checksummed.
//!
//! Pure: bytes in, values out, and back. Nothing here knows a file or when something is written.
//! `docs/formats/disk.md` draws the tables; `tests/golden` keeps the bytes.

pub(crate) mod batch;
pub(crate) mod cursor;
pub(crate) mod entry;
pub(crate) mod page;
pub(crate) mod record;
pub(crate) mod sample;
pub(crate) mod superblock;
