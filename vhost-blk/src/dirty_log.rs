//! Which pages of the guest's memory this process has written: what a live migration has to copy again.
//!
//! The front end shares a log of one bit a page, and says when it is to be kept. Every write to guest memory
//! goes through `vm-memory`, which tells the bitmap of the region afterwards. Knows neither rings nor messages.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

use crate::guest_memory::reaches;

/// What one bit stands for, in bytes (`VHOST_LOG_PAGE` of the vhost-user specification, "Migration").
pub const PAGE_BYTES: u64 = 4096;
/// The longest log that is mapped, in bytes: that of 64 TiB of guest memory.
const LOG_BYTES_MAX: u64 = 2 << 30;

/// The log of one front end: there or not, kept or not.
#[derive(Clone, Debug, Default)]
pub struct DirtyLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Read with each write to guest memory, so it stands apart from the lock.
    kept: AtomicBool,
    log: RwLock<Option<MmapRegion>>,
}

/// Why a log was refused.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No log can have this length.
    #[error("the dirty log is {0} bytes long: it may have 1 to {LOG_BYTES_MAX}")]
    Length(u64),
    /// Its file is not as long as it says: a look into it would end this process.
    #[error("the dirty log's file is shorter than the log")]
    Cut,
    /// It does not cover the memory that the front end shared.
    #[error("the dirty log covers {covered} bytes of guest memory, which ends at {end}")]
    Short {
        /// How far the log goes, in bytes of guest memory.
        covered: u64,
        /// Where guest memory ends.
        end: u64,
    },
    /// The system does not map it.
    #[error("cannot map the dirty log: {0}")]
    Map(#[from] vm_memory::mmap::MmapRegionError),
}

impl From<LogError> for vhost::vhost_user::Error {
    fn from(error: LogError) -> Self {
        Self::ReqHandlerError(std::io::Error::other(error))
    }
}

impl DirtyLog {
    /// Takes over a log that the front end shares, for memory that ends at `end`. It is kept once
    /// [`Self::keep`] says so.
    pub fn replace(&self, file: FileOffset, length: u64, end: u64) -> Result<(), LogError> {
        let bytes = usize::try_from(length).ok();
        let bytes = bytes.filter(|bytes| *bytes > 0 && length <= LOG_BYTES_MAX);
        let bytes = bytes.ok_or(LogError::Length(length))?;
        let covered = length.saturating_mul(8 * PAGE_BYTES);
        if covered < end {
            return Err(LogError::Short { covered, end });
        }
        if !reaches(file.file(), file.start(), length) {
            return Err(LogError::Cut);
        }
        let log = MmapRegion::from_file(file, bytes)?;
        *self.0.log.write().unwrap_or_else(PoisonError::into_inner) = Some(log);
        Ok(())
    }

    /// Whether writes are noted from now on. Without it the log is let go: a front end that called its migration
    /// off has no use for it, and brings a new one for the next.
    pub fn keep(&self, kept: bool) {
        self.0.kept.store(kept, Ordering::SeqCst);
        if !kept {
            *self.0.log.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Whether writes are noted.
    pub fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// The bitmap of a region that begins at this guest address.
    pub fn region(&self, guest_address: u64) -> RegionLog {
        RegionLog(Some((guest_address, self.clone())))
    }

    #[cold]
    fn mark(&self, address: u64, length: usize) {
        let log = self.0.log.read().unwrap_or_else(PoisonError::into_inner);
        let (Some(log), Some(last)) = (log.as_ref(), (length as u64).checked_sub(1)) else {
            return;
        };
        for page in address / PAGE_BYTES..=address.saturating_add(last) / PAGE_BYTES {
            let byte = usize::try_from(page / 8).ok();
            if let Some(byte) = byte.and_then(|byte| log.get_atomic_ref::<AtomicU8>(byte).ok()) {
                byte.fetch_or(1 << (page % 8), Ordering::SeqCst);
            }
        }
    }

    fn is_marked(&self, address: u64) -> bool {
        let log = self.0.log.read().unwrap_or_else(PoisonError::into_inner);
        let page = address / PAGE_BYTES;
        let byte = usize::try_from(page / 8).ok();
        let found = log.as_ref().zip(byte);
        let found = found.and_then(|(log, byte)| log.get_atomic_ref::<AtomicU8>(byte).ok());
        found.is_some_and(|bits| bits.load(Ordering::SeqCst) >> (page % 8) & 1 == 1)
    }
}

/// The log as one region of guest memory sees it; nothing for memory that no front end shared.
#[derive(Clone, Debug, Default)]
pub struct RegionLog(Option<(u64, DirtyLog)>);

impl<'a> WithBitmapSlice<'a> for RegionLog {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for RegionLog {
    fn mark_dirty(&self, offset: usize, length: usize) {
        if let Some((guest_address, log)) = &self.0
            && log.is_kept()
        {
            log.mark(guest_address.saturating_add(offset as u64), length);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let marked = |(guest_address, log): &(u64, DirtyLog)| log.is_marked(guest_address + offset as u64);
        self.0.as_ref().is_some_and(marked)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl NewBitmap for RegionLog {
    fn with_len(_length: usize) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    //! What is written while the log is kept is marked, page by page; nothing is before or after.
    use vm_memory::mmap::MmapRegionBuilder;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

    use super::*;

    const BASE: u64 = 0x10_0000;

    fn memory(log: &DirtyLog) -> GuestMemoryMmap<RegionLog> {
        let region = MmapRegionBuilder::new_with_bitmap(0x10_0000, log.region(BASE))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE)
            .build()
            .unwrap();
        let region = GuestRegionMmap::new(region, GuestAddress(BASE)).unwrap();
        GuestMemoryMmap::from_regions(vec![region]).unwrap()
    }

    fn share(length: u64) -> (FileOffset, std::fs::File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        (FileOffset::new(file.try_clone().unwrap(), 0), file)
    }

    fn marked(file: &std::fs::File) -> Vec<u64> {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let bit = |page: &u64| bytes[usize::try_from(page / 8).unwrap()] >> (page % 8) & 1 == 1;
        (0..4096 * 8).filter(bit).collect()
    }

    #[test]
    fn pages_that_are_written_while_the_log_is_kept_are_marked_and_no_others() {
        let log = DirtyLog::default();
        let memory = memory(&log);
        let (shared, file) = share(4096);
        memory.write_slice(&[1; 100], GuestAddress(BASE)).unwrap();
        log.replace(shared, 4096, BASE + 0x10_0000).unwrap();
        memory
            .write_slice(&[1; 100], GuestAddress(BASE + 0x1000))
            .unwrap();
        assert!(marked(&file).is_empty(), "it is not kept yet");
        log.keep(true);
        memory
            .write_slice(&[1; 100], GuestAddress(BASE + 0x2000 - 50))
            .unwrap();
        memory.write_obj(7u16, GuestAddress(BASE + 0x5ffe)).unwrap();
        memory
            .write_slice(&[1; 0x3000], GuestAddress(BASE + 0x8000))
            .unwrap();
        let first = BASE / PAGE_BYTES;
        assert_eq!(marked(&file), [1, 2, 5, 8, 9, 10].map(|page| first + page));
        log.keep(false);
        memory
            .write_slice(&[1; 100], GuestAddress(BASE + 0xf000))
            .unwrap();
        assert_eq!(marked(&file).len(), 6, "it is kept no more");
    }

    #[test]
    fn a_log_that_does_not_cover_the_memory_is_refused() {
        let log = DirtyLog::default();
        let (shared, _file) = share(4096);
        assert!(matches!(
            log.replace(shared.clone(), 4096, 4096 * 8 * PAGE_BYTES + 1),
            Err(LogError::Short { .. })
        ));
        for length in [0, LOG_BYTES_MAX + 1, u64::MAX] {
            assert!(matches!(
                log.replace(shared.clone(), length, 0),
                Err(LogError::Length(_))
            ));
        }
        assert!(matches!(log.replace(shared, 8192, 0), Err(LogError::Cut)));
    }
}
