//! Image files with known content: runs of random bytes and holes.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

/// Makes a sparse file of `size` bytes with random bytes in `runs` of (offset, length).
pub fn create(path: &Path, size: u64, runs: &[(u64, usize)]) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(size)?;
    let mut random = SmallRng::seed_from_u64(size);
    for (offset, length) in runs {
        let mut bytes = vec![0; *length];
        random.fill_bytes(&mut bytes);
        file.write_all_at(&bytes, *offset)?;
    }
    Ok(())
}

/// How many bytes of the file system a file takes.
pub fn allocated(path: &Path) -> Result<u64> {
    // The unit of st_blocks is 512 bytes on every Linux file system.
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

/// Where two files differ first, in bytes; zeros stand for what is past the end of the shorter.
pub fn difference(one: &Path, other: &Path) -> Result<Option<u64>> {
    const STEP: usize = 1 << 20;
    let (one, other) = (File::open(one)?, File::open(other)?);
    let size = one.metadata()?.len().max(other.metadata()?.len());
    let mut offset = 0;
    while offset < size {
        let (left, right) = (piece(&one, offset, STEP)?, piece(&other, offset, STEP)?);
        if let Some(at) = left.iter().zip(&right).position(|(one, other)| one != other) {
            return Ok(Some(offset + at as u64));
        }
        offset += STEP as u64;
    }
    Ok(None)
}

fn piece(file: &File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let count = file.read_at(&mut bytes[filled..], offset + filled as u64)?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    Ok(bytes)
}
