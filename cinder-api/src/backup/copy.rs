//! Bytes from a volume into a backup and back. Both can be begun anew at any time: what is stored under a name is always the
//! same, and a backup is none before its manifest is there, which is written last.

use client::device::BlockDevice;
use client::request;
use futures_util::stream::{self, StreamExt as _};
use tracing::info;
use uuid::Uuid;

use super::manifest::{
    CHUNK_BYTES, Chunk, MANIFEST_BYTES_MAX, Manifest, SOURCES_MAX, chunk_count, digest_of, manifest_name,
    object_name,
};
use super::store::{ObjectStore, StoreError};
use crate::device::held;
use crate::records::Instant;
use crate::work::Trouble;

/// Chunks that are under way at once: enough to keep a disk and a file server busy, and 16 MiB in memory.
const CHUNKS_AT_ONCE: usize = 4;
/// What a device is asked at once about where it holds data; as often the log says how far the copy is. In bytes.
const WINDOW_BYTES: u64 = 1 << 30;

/// What is to be stored.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Under which identity.
    pub backup: Uuid,
    /// The volume.
    pub volume: Uuid,
    /// The moment whose bytes the device has.
    pub taken_at: Instant,
    /// What a volume that is made of it is to be like.
    pub description: Vec<u8>,
    /// What it is the difference to.
    pub parent: Option<Manifest>,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The manifest of a stored backup.
pub async fn read_manifest(store: &dyn ObjectStore, backup: Uuid) -> Result<Manifest, Trouble> {
    let name = manifest_name(backup);
    let bytes = store.get(&name, MANIFEST_BYTES_MAX).await?;
    let manifest = Manifest::decode(&bytes);
    let manifest = manifest.map_err(|error| Trouble::Failed(format!("{name} cannot be used: {error}")))?;
    if manifest.backup != backup {
        return Err(Trouble::Failed(format!("{name} is that of another backup")));
    }
    Ok(manifest)
}

/// Stores what a device holds. Of an increment, only chunks that differ from the parent's.
pub async fn store(
    device: &dyn BlockDevice,
    store: &dyn ObjectStore,
    plan: Plan,
) -> Result<Manifest, Trouble> {
    let size = device.info().size;
    let mut sources = vec![plan.backup];
    let parent = plan.parent.as_ref();
    sources.extend(parent.iter().flat_map(|parent| &parent.sources));
    let mut manifest = Manifest {
        backup: plan.backup,
        volume: plan.volume,
        parent: parent.map(|parent| parent.backup),
        size,
        taken_at: plan.taken_at,
        sources,
        chunks: Vec::with_capacity(usize::try_from(chunk_count(size)).unwrap_or(0)),
        description: plan.description,
    };
    let mut at = 0;
    while at < size {
        let window = WINDOW_BYTES.min(size - at);
        let runs = request::map(device, at, window).await?;
        let first = at / CHUNK_BYTES;
        let holds = held(window, CHUNK_BYTES, &runs);
        let chunks = holds.iter().zip(first..).map(|(holds, index)| {
            let (length, holds) = (manifest.length(index), *holds);
            async move {
                if !holds {
                    return Ok(Chunk::Zeros);
                }
                store_chunk((device, store), (plan.backup, index, length), parent).await
            }
        });
        let chunks: Vec<_> = stream::iter(chunks).buffered(CHUNKS_AT_ONCE).collect().await;
        manifest
            .chunks
            .extend(chunks.into_iter().collect::<Result<Vec<_>, Trouble>>()?);
        at += window;
        info!(
            backup = %plan.backup,
            percent = at * 100 / size.max(1),
            objects = manifest.own_objects(),
            "a backup goes on"
        );
    }
    manifest.tidy();
    if manifest.sources.len() > SOURCES_MAX {
        let why = format!("it would need the objects of more than {SOURCES_MAX} backups: make a full one");
        return Err(Trouble::Failed(why));
    }
    let below = plan.backup.to_string();
    store.settle(&below).await?;
    store
        .put(&manifest_name(plan.backup), manifest.encode().into())
        .await?;
    store.settle(&below).await?;
    Ok(manifest)
}

async fn store_chunk(
    (device, store): (&dyn BlockDevice, &dyn ObjectStore),
    (backup, index, length): (Uuid, u64, u64),
    parent: Option<&Manifest>,
) -> Result<Chunk, Trouble> {
    let bytes = request::read(device, index * CHUNK_BYTES, length).await?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Chunk::Zeros);
    }
    let digest = digest_of(&bytes);
    let index_there = usize::try_from(index).unwrap_or(usize::MAX);
    let before = parent
        .filter(|parent| parent.length(index) == length)
        .and_then(|parent| parent.chunks.get(index_there));
    match before {
        // Sources of the parent come after our own.
        Some(Chunk::Stored {
            source,
            digest: known,
        }) if *known == digest => Ok(Chunk::Stored {
            source: source + 1,
            digest,
        }),
        _ => {
            store.put(&object_name(backup, index), bytes).await?;
            Ok(Chunk::Stored { source: 0, digest })
        }
    }
}

/// Writes a backup to a device that is large enough. Each chunk is checked before it is written; what the backup does not
/// reach becomes zeros.
pub async fn restore(
    device: &dyn BlockDevice,
    store: &dyn ObjectStore,
    manifest: &Manifest,
) -> Result<(), Trouble> {
    let size = device.info().size;
    if size < manifest.size {
        let why = format!("the volume has {size} bytes, and the backup {}", manifest.size);
        return Err(Trouble::Failed(why));
    }
    let window = usize::try_from(WINDOW_BYTES / CHUNK_BYTES).unwrap_or(1);
    let mut first = 0;
    for chunks in manifest.chunks.chunks(window) {
        let writes = chunks
            .iter()
            .zip(first..)
            .map(|(chunk, index)| restore_chunk(device, store, manifest, (index, chunk)));
        let written: Vec<_> = stream::iter(writes).buffered(CHUNKS_AT_ONCE).collect().await;
        written.into_iter().collect::<Result<(), Trouble>>()?;
        first += chunks.len() as u64;
        info!(
            backup = %manifest.backup,
            percent = first * 100 / (manifest.chunks.len() as u64).max(1),
            "a restore goes on"
        );
    }
    if size > manifest.size {
        request::discard(device, manifest.size, size - manifest.size).await?;
    }
    request::flush(device).await?;
    Ok(())
}

async fn restore_chunk(
    device: &dyn BlockDevice,
    store: &dyn ObjectStore,
    manifest: &Manifest,
    (index, chunk): (u64, &Chunk),
) -> Result<(), Trouble> {
    let (offset, length) = (index * CHUNK_BYTES, manifest.length(index));
    let Chunk::Stored { source, digest } = chunk else {
        request::discard(device, offset, length).await?;
        return Ok(());
    };
    let source = manifest.sources.get(*source as usize);
    let source = source.ok_or_else(|| Trouble::Failed("the manifest names no such source".to_owned()))?;
    let name = object_name(*source, index);
    let bytes = store.get(&name, CHUNK_BYTES).await?;
    if bytes.len() as u64 != length || digest_of(&bytes) != *digest {
        let why = format!("{name} was damaged where it was kept: its checksum is wrong");
        return Err(Trouble::Failed(why));
    }
    request::write(device, offset, bytes).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
