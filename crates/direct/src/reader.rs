//! Reads planned by [`Places`], carried out by a ring of the front end's own.
//!
//! It has `unsafe`, as the witness does: the kernel works on memory that an entry of [`Reader`] owns until
//! its last completion came, or until the ring is empty and closed.

use std::cell::{RefCell, RefMut};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, types};
use protocol::geometry::{BLOCK_SIZE, BlockRange};
use protocol::ranges::BlockRanges;
use rustix::event::EventfdFlags;
use rustix::fs::OFlags;

use crate::buffers::{Buffer, Buffers};
use crate::cache::Cache;
use crate::places::{Places, Plan, Shown};
use crate::witness::Watch;

/// Reads under way at once, over all disks; more go through the disks.
pub const READS_MAX: usize = 256;
/// Parts of reads under way at once: as many as the ring has room for, so that none ever waits for
/// room. A read that lies in more places than are left goes through the disk.
const RING_ENTRIES: u32 = 512;

/// A completion's user data: the entry's number above, the part's length in bytes below.
const LENGTH_MASK: u64 = u32::MAX as u64;

const BLOCK: usize = BLOCK_SIZE as usize;
/// The name of a disk's data file (`docs/formats/disk.md`).
const DATA: &str = "data";

/// A disk whose file may be read.
#[derive(Debug)]
pub struct Disk {
    watch: Rc<Watch>,
    file: Rc<File>,
    places: Rc<RefCell<Places>>,
}

impl Disk {
    /// Opens the files of a disk on this machine. Fails if they are not to be reached from here, are
    /// of another opening of the disk, or cannot be read past the page cache.
    pub fn open(directory: &Path, opening: [u8; 16]) -> io::Result<Self> {
        let watch = Watch::open(directory, opening)?;
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(directory.join(DATA))?;
        Ok(Self {
            watch: Rc::new(watch),
            file: Rc::new(file),
            places: Rc::default(),
        })
    }

    /// What is known of where blocks lie: answers to questions go there.
    pub fn places(&mut self) -> RefMut<'_, Places> {
        self.places.borrow_mut()
    }
}

/// A read under way.
struct Entry {
    token: u64,
    shown: Shown,
    plan: Plan,
    watch: Rc<Watch>,
    /// What it reads, and where it is remembered that it is kept; nothing without a cache.
    keeps: Option<(BlockRanges, Rc<RefCell<Places>>)>,
    /// Stays open as long as the kernel reads from it.
    _file: Rc<File>,
    buffer: Buffer,
    left: usize,
    failed: bool,
}

/// A read that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// The token that it was begun with.
    pub token: u64,
    /// The bytes, verified; nothing if they are not to be had this way: ask the disk.
    pub bytes: Option<Bytes>,
}

/// The front end's ring. It must be used on the thread that made it.
pub struct Reader {
    kernel: IoUring,
    wake: OwnedFd,
    entries: Vec<Option<Entry>>,
    vacant: Vec<usize>,
    buffers: Buffers,
    cache: Option<Cache>,
    in_kernel: usize,
    /// Ended without the kernel.
    ended: Vec<Finished>,
}

impl Reader {
    /// A ring without reads. What comes is kept in `cache`, if there is one.
    pub fn new(cache: Option<Cache>) -> io::Result<Self> {
        // Completions wait until they are fetched, and set the eventfd off instead of interrupting the
        // thread; kernels before 6.1 cannot do that and get a plain ring.
        let kernel = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .build(RING_ENTRIES)
            .or_else(|_| IoUring::builder().setup_r_disabled().build(RING_ENTRIES))?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let submitter = kernel.submitter();
        submitter.register_eventfd(wake.as_raw_fd())?;
        // What a ring does passes a seccomp filter by. This one reads and does nothing else, whoever
        // gets hold of it; nothing more can be registered with it either.
        submitter.register_restrictions(&mut [Restriction::sqe_op(opcode::Read::CODE)])?;
        submitter.register_enable_rings()?;
        Ok(Self {
            kernel,
            wake,
            entries: Vec::new(),
            vacant: Vec::new(),
            buffers: Buffers::default(),
            cache,
            in_kernel: 0,
            ended: Vec::new(),
        })
    }

    /// Becomes readable, edge-triggered, when [`Self::finished`] has something.
    pub fn wake_descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Plans a read and queues it for [`Self::submit`]; or tells what to ask the disk for, if that is
    /// worth it, and the read goes through the disk.
    pub fn begin(
        &mut self,
        disk: &mut Disk,
        token: u64,
        shown: &Shown,
        ranges: &BlockRanges,
    ) -> Result<(), Option<BlockRange>> {
        if self.entries.len() - self.vacant.len() >= READS_MAX {
            return Err(None);
        }
        let mut places = disk.places.borrow_mut();
        let plan = places.plan(disk.watch.as_ref(), shown, ranges)?;
        // The chunks are what they were when that was read, or the plan would not have been given.
        let cache = self.cache.as_ref();
        if let Some(bytes) = cache.and_then(|cache| places.recall(cache, shown, ranges)) {
            let bytes = Some(bytes);
            self.ended.push(Finished { token, bytes });
            return Ok(());
        }
        drop(places);
        if self.in_kernel + plan.runs.len() > RING_ENTRIES as usize {
            return Err(None);
        }
        let entry = Entry {
            token,
            shown: *shown,
            left: plan.runs.len(),
            plan,
            watch: Rc::clone(&disk.watch),
            keeps: cache.map(|_| (ranges.clone(), Rc::clone(&disk.places))),
            _file: Rc::clone(&disk.file),
            buffer: self.buffers.take(ranges.byte_len()),
            failed: false,
        };
        if entry.left == 0 {
            let ended = self.finish(entry);
            self.ended.push(ended);
            return Ok(());
        }
        self.queue(entry, disk.file.as_raw_fd());
        Ok(())
    }

    fn queue(&mut self, mut entry: Entry, file: i32) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        for number in 0..entry.plan.runs.len() {
            let run = entry.plan.runs[number];
            // Slicing checks that the run lies inside the buffer, whose heap memory stays in place.
            let part = &mut entry.buffer[run.at * BLOCK..(run.at + run.count) * BLOCK];
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let read = opcode::Read::new(types::Fd(file), part.as_mut_ptr(), length)
                .offset(run.block * u64::from(BLOCK_SIZE))
                .build()
                .user_data((index as u64) << 32 | u64::from(length));
            // SAFETY: the memory is owned by `entry`, which stays in `self.entries` until the
            // completion of its last part was seen, or until the ring is empty (`Drop`).
            if unsafe { self.kernel.submission().push(&read) }.is_ok() {
                self.in_kernel += 1;
            } else {
                // There is room for as many as are under way; without it the read fails.
                entry.left -= 1;
                entry.failed = true;
            }
        }
        if entry.left == 0 {
            self.vacant.push(index);
            let ended = self.finish(entry);
            self.ended.push(ended);
        } else {
            self.entries[index] = Some(entry);
        }
    }

    /// Hands what was queued to the kernel.
    pub fn submit(&mut self) {
        if self.kernel.submission().is_empty() {
            return;
        }
        if let Err(error) = self.kernel.submit() {
            // It stays queued, and goes with the next call.
            tracing::debug!(%error, "the kernel takes no reads now");
        }
    }

    /// Takes out the reads that came to their end.
    pub fn finished(&mut self, out: &mut Vec<Finished>) {
        out.append(&mut self.ended);
        while self.in_kernel > 0 && self.fetch() {
            while let Some(completion) = self.next_completion() {
                let data = completion.user_data();
                let index = usize::try_from(data >> 32).unwrap_or(usize::MAX);
                let whole =
                    u64::try_from(completion.result()).is_ok_and(|length| length == data & LENGTH_MASK);
                out.extend(self.part_done(index, whole));
            }
            // The kernel sets the eventfd off twice for a deferred completion: when there is one, and when it
            // is fetched. The second would wake the thread again, for nothing. What came just before this
            // would set nothing off any more, and is looked for once more. Nothing in it is as good as empty.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        }
    }

    /// Has the kernel put deferred completions into the ring. Whether there are any.
    fn fetch(&mut self) -> bool {
        if self.kernel.submission().taskrun()
            && let Err(error) = self.kernel.submit()
        {
            // Nothing is lost: the flag stays set, and the next look asks again.
            tracing::debug!(%error, "the kernel hands out no completions now");
        }
        !self.kernel.completion().is_empty()
    }

    fn next_completion(&mut self) -> Option<io_uring::cqueue::Entry> {
        let completion = self.kernel.completion().next()?;
        self.in_kernel -= 1;
        Some(completion)
    }

    fn part_done(&mut self, index: usize, whole: bool) -> Option<Finished> {
        let place = self.entries.get_mut(index)?;
        let entry = place.as_mut()?;
        entry.left -= 1;
        entry.failed |= !whole;
        if entry.left > 0 {
            return None;
        }
        self.vacant.push(index);
        let entry = place.take()?;
        Some(self.finish(entry))
    }

    /// Looks at what came: the bytes first, then whether they were still where the disk had said.
    fn finish(&self, mut entry: Entry) -> Finished {
        for at in &entry.plan.zeros {
            entry.buffer[at * BLOCK..(at + 1) * BLOCK].fill(0);
        }
        let sound = !entry.failed && entry.plan.is_of(&entry.buffer);
        let token = entry.token;
        if !sound || !entry.plan.holds(entry.watch.as_ref(), &entry.shown) {
            return Finished { token, bytes: None };
        }
        let bytes = self.buffers.lend(entry.buffer);
        if let (Some(cache), Some((ranges, places))) = (&self.cache, &entry.keeps) {
            let mut places = places.borrow_mut();
            places.keep(cache, &entry.shown, ranges, &entry.plan, &bytes);
        }
        Finished {
            token,
            bytes: Some(bytes),
        }
    }

    /// Whether something came to its end that the eventfd does not tell of.
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.in_kernel == 0 && self.ended.is_empty()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The kernel still writes into the buffers of what is under way.
        let mut finished = Vec::new();
        while self.in_kernel > 0 {
            if self.kernel.submit_and_wait(1).is_err() {
                std::thread::yield_now();
            }
            self.finished(&mut finished);
        }
    }
}

#[cfg(test)]
mod tests;
