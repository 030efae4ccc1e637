//! The directory of a disk that is to be added: looked into, and made. Nothing in it is changed that was there.

use std::path::{Path, PathBuf};

use store::{Format, Store};

use crate::volumes::OperationError;

/// A disk's file by which its directory is known.
const SUPERBLOCK: &str = "superblock";

/// What a directory holds.
pub(super) enum Found {
    Nothing,
    Disk(Format),
}

/// Looks into a directory, which need not be there.
pub(super) async fn inspect(path: PathBuf) -> Result<Found, OperationError> {
    blocking(move || {
        let mut entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => {
                return Err(OperationError::Invalid(format!(
                    "cannot look into {}: {error}",
                    path.display()
                )));
            }
        };
        if path.join(SUPERBLOCK).exists() {
            let store = Store::open(&path, &store::Options::default());
            return store
                .map(|store| Found::Disk(store.format().clone()))
                .map_err(|error| {
                    OperationError::Invalid(format!("{} cannot be taken up: {error}", path.display()))
                });
        }
        match entries.next() {
            None => Ok(Found::Nothing),
            Some(_) => Err(OperationError::Invalid(format!(
                "{} has other things in it: give an empty directory, or one that does not exist",
                path.display()
            ))),
        }
    })
    .await
}

/// Makes a disk. A directory that is made for it appears when the disk in it is whole, so that a
/// crash leaves nothing that would have to be judged.
pub(super) async fn create(path: PathBuf, format: Format) -> Result<(), OperationError> {
    blocking(move || {
        make(&path, &format).map_err(|error| {
            OperationError::Invalid(format!("cannot make a disk in {}: {error}", path.display()))
        })
    })
    .await
}

fn make(path: &Path, format: &Format) -> Result<(), Box<dyn std::error::Error>> {
    let name = path.file_name().ok_or("it has no name")?.to_string_lossy();
    if path.exists() {
        return Ok(Store::create(path, format)?);
    }
    let unfinished = path.with_file_name(format!(".{name}.unfinished"));
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    std::fs::create_dir_all(&unfinished)?;
    Store::create(&unfinished, format)?;
    std::fs::rename(&unfinished, path)?;
    let parent = path.parent().ok_or("it has no parent")?;
    Ok(std::fs::File::open(parent)?.sync_all()?)
}

/// Runs what waits for the file system where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OperationError> + Send + 'static,
) -> Result<T, OperationError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(OperationError::Internal(error.to_string())))
}
