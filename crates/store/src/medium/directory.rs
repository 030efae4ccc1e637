//! The files of a disk in a directory of a real file system, and how each is asked, blocking.

use std::fs;
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::ReadWriteFlags;

use crate::error::OpenError;
use crate::format::superblock;
use crate::medium::threads::Threads;
use crate::medium::uring::Ring;
use crate::medium::{File, Medium, MetaFile};
use crate::options::Engine;

const SUPERBLOCK: &str = "superblock";
const LOG: &str = "wal";
const DATA: &str = "data";
const META: &str = "meta";
const LOCK: &str = "lock";

/// How much of the log is filled with zeros at a time when a disk is made.
const FILL_BYTES: usize = 1 << 20;

/// The open files, and the lock against a second opener.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    superblock: fs::File,
    log: fs::File,
    data: fs::File,
    meta: fs::File,
    _lock: fs::File,
}

impl Directory {
    /// Makes the files of a disk, the log filled with zeros, all but the superblock's content.
    ///
    /// The superblock is written last ([`Directory::seal`]): a directory without one is no disk, so
    /// a crash in between leaves something that can be made again.
    pub fn create(path: &Path, log_bytes: u64) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::io(format!("make the directory {}", path.display())))?;
        let lock = lock(path)?;
        if has_superblock(path) {
            return Err(OpenError::Exists(path.to_owned()));
        }
        for name in [SUPERBLOCK, LOG, DATA, META] {
            let file = path.join(name);
            let made = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&file);
            let made = made.map_err(OpenError::io(format!("make {}", file.display())))?;
            if name == LOG {
                fill(&made, log_bytes).map_err(OpenError::io(format!("fill {}", file.display())))?;
            }
        }
        Self::open_files(path, lock, true)
    }

    /// Opens the files of a disk.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !has_superblock(path) {
            return Err(OpenError::NotADisk(path.to_owned()));
        }
        Self::open_files(path, lock(path)?, true)
    }

    /// Opens the files of a disk to look at them only.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        if !has_superblock(path) {
            return Err(OpenError::NotADisk(path.to_owned()));
        }
        Self::open_files(path, lock(path)?, false)
    }

    fn open_files(path: &Path, lock: fs::File, write: bool) -> Result<Self, OpenError> {
        let open = |name: &str| {
            let file = path.join(name);
            let opened = fs::OpenOptions::new().read(true).write(write).open(&file);
            opened.map_err(OpenError::io(format!("open {}", file.display())))
        };
        let direct = |name: &str| {
            let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
            let mut options = fs::OpenOptions::new();
            options.read(true).write(write).custom_flags(flags);
            // Some file systems (an overlay, an old tmpfs) have no direct I/O: buffered I/O with its
            // flushes keeps the same promises.
            options.open(path.join(name)).or_else(|_| open(name))
        };
        let (superblock, log, data, meta) = (open(SUPERBLOCK)?, direct(LOG)?, direct(DATA)?, open(META)?);
        // A killed process's last writes may still be under way in the kernel, which holds these
        // files, and with them these locks, until they are done: wait for that.
        for file in [&log, &data] {
            let locked = rustix::fs::flock(file, FlockOperation::LockExclusive).map_err(io::Error::from);
            locked.map_err(OpenError::io(format!("lock the files in {}", path.display())))?;
        }
        Ok(Self {
            path: path.to_owned(),
            superblock,
            log,
            data,
            meta,
            _lock: lock,
        })
    }

    /// Brings the directory's entries to stable storage.
    pub fn seal(&self) -> Result<(), OpenError> {
        for directory in [Some(self.path.as_path()), self.path.parent()]
            .into_iter()
            .flatten()
        {
            if directory.as_os_str().is_empty() {
                continue;
            }
            let flushed = fs::File::open(directory).and_then(|file| file.sync_all());
            flushed.map_err(OpenError::io(format!(
                "flush the directory {}",
                directory.display()
            )))?;
        }
        Ok(())
    }

    /// The medium of these files, on the engine that is asked for.
    pub fn medium(self, engine: Engine) -> Result<Box<dyn Medium>, OpenError> {
        let files = Arc::new(self);
        if engine != Engine::Threads {
            match Ring::new(Arc::clone(&files)) {
                Ok(ring) => return Ok(Box::new(ring)),
                Err(source) if engine == Engine::IoUring => {
                    return Err(OpenError::Io {
                        action: "set io_uring up".to_owned(),
                        source,
                    });
                }
                Err(error) => tracing::warn!(%error, "io_uring is not to be had here: using threads"),
            }
        }
        let threads = Threads::new(files).map_err(OpenError::io("start I/O threads"))?;
        Ok(Box::new(threads))
    }

    /// A file of the disk.
    pub(super) fn file(&self, file: File) -> &fs::File {
        match file {
            File::Superblock => &self.superblock,
            File::Log => &self.log,
            File::Data => &self.data,
            File::Meta => &self.meta,
        }
    }

    /// A file's length in bytes.
    pub(super) fn length(&self, file: File) -> io::Result<u64> {
        Ok(self.file(file).metadata()?.len())
    }

    /// Fills the buffer; zeros past the end. For direct files all must be aligned.
    pub(super) fn read(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file(file).read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes pieces one after the other.
    pub(super) fn write(
        &self,
        file: File,
        mut offset: u64,
        pieces: &[&[u8]],
        durable: bool,
    ) -> io::Result<()> {
        let flags = if durable {
            ReadWriteFlags::DSYNC
        } else {
            ReadWriteFlags::empty()
        };
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest: &mut [IoSlice<'_>] = &mut slices;
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev2(self.file(file), rest, offset, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Flushes a file.
    pub(super) fn flush(&self, file: File) -> io::Result<()> {
        self.file(file).sync_data()
    }

    /// Gives a range back to the file system.
    pub(super) fn punch(&self, file: File, offset: u64, length: u64) -> io::Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(self.file(file), mode, offset, length) {
            // Without holes the space is merely used again later.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the file system has free for us, in bytes.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.data)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Writes the superblock and makes it durable.
    pub(super) fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(file != File::Superblock || bytes.len() == superblock::LENGTH);
        self.write(file, offset, &[bytes], true)?;
        self.file(file).sync_all()
    }
}

impl MetaFile for Directory {
    fn length(&self) -> io::Result<u64> {
        Directory::length(self, File::Meta)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Directory::read(self, File::Meta, offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.meta.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.meta.set_len(length)
    }

    fn flush(&self) -> io::Result<()> {
        self.meta.sync_data()
    }
}

fn has_superblock(path: &Path) -> bool {
    fs::metadata(path.join(SUPERBLOCK)).is_ok_and(|meta| meta.len() > 0)
}

/// Takes the lock that a disk has against a second opener. It goes with the process.
fn lock(path: &Path) -> Result<fs::File, OpenError> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK));
    let file = file.map_err(OpenError::io(format!("open the lock in {}", path.display())))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(path.to_owned())),
        Err(error) => Err(OpenError::io(format!("lock {}", path.display()))(error.into())),
    }
}

/// Fills the log with zeros, so that later writes neither allocate nor change the file's metadata:
/// a durable write is then one device write with its flush.
fn fill(mut log: &fs::File, log_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    let mut left = log_bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(FILL_BYTES).min(FILL_BYTES);
        log.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    log.sync_all()
}
