//! The directory of a disk that is to be added: looked into, and made. Nothing in it is changed that was there.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use store::{Format, Store};

use crate::volumes::OperationError;

/// A disk's file by which its directory is known.
const SUPERBLOCK: &str = "superblock";

/// What a directory holds.
pub(super) enum Found {
    Nothing,
    Disk(Format),
}

/// Looks into a directory, which need not be there. One that may not be written to is refused here, before the disk has a
/// number: numbers are not used twice.
pub(super) async fn inspect(path: PathBuf) -> Result<Found, OperationError> {
    blocking(move || {
        // What is to be written to: the directory itself, or the nearest one above it that is there.
        let nearest = path.ancestors().find(|ancestor| ancestor.exists());
        let allowed = nearest.map(|nearest| access(nearest, Access::WRITE_OK | Access::EXEC_OK));
        if let Some(Err(Errno::ACCESS)) = allowed {
            return Err(refused(&path));
        }
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

/// What somebody is told whose directory is not that of storaged's user, as it is with every one that root has made.
fn refused(path: &Path) -> OperationError {
    let path = path.display();
    OperationError::Invalid(format!(
        "storaged may not write to {path}: it must belong to the user that storaged runs as: \
         `install -d -o storaged -g storaged {path}`, and again"
    ))
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

#[cfg(test)]
mod tests {
    //! What is said of directories. As root everything may be written to: that it is refused for the user of the unit, a trial of the
    //! packages shows.
    use super::*;

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_empty_as_far_down_as_it_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let found = inspect(folder.path().join("a/b/c")).await.unwrap();
        assert!(matches!(found, Found::Nothing));
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_with_the_command_that_helps() {
        let said = refused(Path::new("/srv/disk-1")).to_string();
        assert!(
            said.contains("`install -d -o storaged -g storaged /srv/disk-1`"),
            "{said}"
        );
    }
}
