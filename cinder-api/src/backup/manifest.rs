//! What a backup consists of: for each chunk of the volume its digest, and where its bytes are. Pure: bytes in, bytes out.
//!
//! Laid out in docs/formats/backup.md. A manifest is complete in itself: who restores reads no other one, however long the
//! chain of increments is.

use std::fmt::Write as _;

use ring::digest;
use uuid::Uuid;

use crate::records::Instant;

/// Bytes of a chunk: what is compared, and stored as one object. An object of the storage has as many.
pub const CHUNK_BYTES: u64 = 4 << 20;
/// The most backups whose objects one backup can need, itself among them: longer chains begin with a full one again.
pub const SOURCES_MAX: usize = 256;
/// The longest description, in bytes: a volume with all metadata that it may have has less.
pub const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
/// The longest manifest: that of a volume of 64 TiB.
pub const MANIFEST_BYTES_MAX: u64 = (16 << 20) * ENTRY_BYTES as u64 + (2 << 20);

const MAGIC: &[u8; 8] = b"sdbackup";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 128;
const SOURCE_BYTES: usize = 16;
const ENTRY_BYTES: usize = 36;
const DIGEST_BYTES: usize = 32;
/// In the place of a source: the chunk is zeros.
const ZEROS: u32 = u32::MAX;
/// How many chunks lie in one folder of objects.
const FOLDER_CHUNKS: u64 = 4096;

/// SHA-256.
pub type Digest = [u8; DIGEST_BYTES];

/// A chunk of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Zeros.
    Zeros,
    /// Bytes.
    Stored {
        /// Whose object it is: an index into [`Manifest::sources`].
        source: u32,
        /// Of the bytes.
        digest: Digest,
    },
}

/// A backup's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Under which identity it is stored.
    pub backup: Uuid,
    /// The volume.
    pub volume: Uuid,
    /// Under which identity the backup is stored that it is the difference to.
    pub parent: Option<Uuid>,
    /// The volume's size in bytes.
    pub size: u64,
    /// The moment whose bytes it holds.
    pub taken_at: Instant,
    /// Under which identities objects are stored; its own is the first.
    pub sources: Vec<Uuid>,
    /// All chunks in order.
    pub chunks: Vec<Chunk>,
    /// What a volume that is made of it is to be like: JSON.
    pub description: Vec<u8>,
}

/// Why bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It breaks off, or is something else.
    #[error("it is no manifest of a backup")]
    Shape,
    /// Another program's.
    #[error("it has format {0}, and this cinder-api knows {VERSION}: was it written by a newer one?")]
    Version(u32),
    /// Bytes have changed.
    #[error("its checksum is wrong: it was damaged where it was kept")]
    Checksum,
}

/// How many chunks a volume has.
pub const fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_BYTES)
}

/// What a manifest's object is called.
pub fn manifest_name(backup: Uuid) -> String {
    format!("{backup}/manifest")
}

/// What a chunk's object is called.
pub fn object_name(backup: Uuid, chunk: u64) -> String {
    let mut name = backup.to_string();
    // Writing to a string does not fail.
    let _ = write!(
        name,
        "/{:06x}/{:03x}",
        chunk / FOLDER_CHUNKS,
        chunk % FOLDER_CHUNKS
    );
    name
}

/// The digest of a chunk's bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    digest
}

impl Manifest {
    /// How many bytes a chunk has: the last one may be shorter.
    pub fn length(&self, chunk: u64) -> u64 {
        self.size.saturating_sub(chunk * CHUNK_BYTES).min(CHUNK_BYTES)
    }

    /// How many objects are its own.
    pub fn own_objects(&self) -> u64 {
        let is_own = |chunk: &&Chunk| matches!(chunk, Chunk::Stored { source: 0, .. });
        self.chunks.iter().filter(is_own).count() as u64
    }

    /// Leaves sources out whose objects are not needed any more.
    pub fn tidy(&mut self) {
        let mut places: Vec<Option<u32>> = vec![None; self.sources.len()];
        let mut kept = vec![self.backup];
        if let Some(own) = places.first_mut() {
            *own = Some(0);
        }
        for chunk in &mut self.chunks {
            let Chunk::Stored { source, .. } = chunk else {
                continue;
            };
            let index = *source as usize;
            let (Some(place), Some(id)) = (places.get_mut(index), self.sources.get(index)) else {
                continue;
            };
            *source = *place.get_or_insert_with(|| {
                kept.push(*id);
                u32::try_from(kept.len() - 1).unwrap_or(ZEROS)
            });
        }
        self.sources = kept;
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let length = HEADER_BYTES
            + self.sources.len() * SOURCE_BYTES
            + self.chunks.len() * ENTRY_BYTES
            + self.description.len()
            + DIGEST_BYTES;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&word(CHUNK_BYTES));
        bytes.extend_from_slice(&(length as u64).to_le_bytes());
        bytes.extend_from_slice(self.backup.as_bytes());
        bytes.extend_from_slice(self.volume.as_bytes());
        bytes.extend_from_slice(self.parent.unwrap_or(Uuid::nil()).as_bytes());
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.extend_from_slice(&self.taken_at.0.to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&word(self.sources.len() as u64));
        bytes.extend_from_slice(&word(self.description.len() as u64));
        bytes.resize(HEADER_BYTES, 0);
        for source in &self.sources {
            bytes.extend_from_slice(source.as_bytes());
        }
        for chunk in &self.chunks {
            let (source, digest) = match chunk {
                Chunk::Zeros => (ZEROS, [0; DIGEST_BYTES]),
                Chunk::Stored { source, digest } => (*source, *digest),
            };
            bytes.extend_from_slice(&source.to_le_bytes());
            bytes.extend_from_slice(&digest);
        }
        bytes.extend_from_slice(&self.description);
        let checksum = digest_of(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(ManifestError::Shape);
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let body = bytes.len().checked_sub(DIGEST_BYTES);
        let (body, checksum) = body
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or(ManifestError::Shape)?;
        if checksum != digest_of(body) {
            return Err(ManifestError::Checksum);
        }
        let chunk_bytes = u64::from(reader.u32()?);
        let length = reader.u64()?;
        if chunk_bytes != CHUNK_BYTES || length != bytes.len() as u64 {
            return Err(ManifestError::Shape);
        }
        let (backup, volume, parent) = (reader.uuid()?, reader.uuid()?, reader.uuid()?);
        let (size, taken_at) = (reader.u64()?, reader.u64()?.cast_signed());
        let chunk_count_found = reader.u64()?;
        let (source_count, description_bytes) = (reader.u32()? as usize, reader.u32()? as usize);
        let header_rest = HEADER_BYTES - (bytes.len() - reader.0.len());
        reader.take(header_rest)?;
        let is_possible = chunk_count_found == chunk_count(size)
            && (1..=SOURCES_MAX).contains(&source_count)
            && description_bytes <= DESCRIPTION_BYTES_MAX;
        if !is_possible {
            return Err(ManifestError::Shape);
        }
        let sources: Vec<Uuid> = (0..source_count)
            .map(|_| reader.uuid())
            .collect::<Result<_, _>>()?;
        let entries = usize::try_from(chunk_count_found).ok();
        let entries = entries.and_then(|count| count.checked_mul(ENTRY_BYTES));
        let entries = reader.take(entries.ok_or(ManifestError::Shape)?)?;
        let chunks: Vec<Chunk> = entries
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| chunk(entry, source_count))
            .collect::<Result<_, _>>()?;
        let description = reader.take(description_bytes)?.to_vec();
        if reader.0.len() != DIGEST_BYTES || sources.first() != Some(&backup) {
            return Err(ManifestError::Shape);
        }
        Ok(Self {
            backup,
            volume,
            parent: (!parent.is_nil()).then_some(parent),
            size,
            taken_at: Instant(taken_at),
            sources,
            chunks,
            description,
        })
    }
}

/// A number that a limit keeps below 2^32.
fn word(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn chunk(entry: &[u8], source_count: usize) -> Result<Chunk, ManifestError> {
    let mut reader = Reader(entry);
    let source = reader.u32()?;
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(reader.take(DIGEST_BYTES)?);
    match source {
        ZEROS => Ok(Chunk::Zeros),
        source if (source as usize) < source_count => Ok(Chunk::Stored { source, digest }),
        _ => Err(ManifestError::Shape),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ManifestError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ManifestError::Shape)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, ManifestError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ManifestError> {
        self.array().map(u64::from_le_bytes)
    }

    fn uuid(&mut self) -> Result<Uuid, ManifestError> {
        self.array().map(Uuid::from_bytes)
    }
}

#[cfg(test)]
mod tests;
