//! The medium on `io_uring`: one ring a disk, an eventfd for its completions.
//!
//! The only file of this crate with `unsafe`: the kernel works on memory that an [`Entry`] owns
//! until its completion came, or until the ring is closed and empty.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{PollFd, PollFlags};

use crate::medium::directory::Directory;
use crate::medium::pool::{Pool, wake_fd};
use crate::medium::{Buffer, Completion, File, Medium, MetaFile, Operation, Outcome, Run};

/// Entries of the submission ring. More operations wait their turn in memory; the completion ring
/// has twice as many, and the kernel keeps what does not fit.
const RING_ENTRIES: u32 = 256;
/// Threads for jobs: commits of the metadata tables, one at a time.
const JOB_THREADS: usize = 1;
/// Parts of an operation are numbered in so many low bits of a completion's user data.
const PART_BITS: u32 = 16;

/// An operation that the kernel works on.
enum Entry {
    Read {
        token: u64,
        file: File,
        runs: Vec<Run>,
        buffer: Buffer,
        left: usize,
        failure: Option<(usize, io::Error)>,
    },
    Write {
        token: u64,
        file: File,
        offset: u64,
        pieces: Vec<Bytes>,
        vectors: Box<[libc::iovec]>,
        durable: bool,
    },
    Plain {
        token: u64,
    },
}

/// Files asked through a ring.
pub(super) struct Ring {
    kernel: IoUring,
    files: Arc<Directory>,
    wake: Arc<OwnedFd>,
    pool: Pool,
    entries: Vec<Option<Entry>>,
    vacant: Vec<usize>,
    /// Made, but not yet in the submission ring.
    queued: VecDeque<squeue::Entry>,
    in_kernel: usize,
    done: Vec<Completion>,
}

// SAFETY: the raw pointers inside (`iovec`s) point into heap memory that the same `Entry` owns and
// that does not move with it; nothing else refers to them but the kernel.
unsafe impl Send for Ring {}

/// A ring whose completions wait until they are fetched, and only set the eventfd off: otherwise each
/// interrupts the thread, whose `epoll_wait` then ends with `EINTR` and has to be begun anew.
/// Kernels before 6.1 cannot do that (`EINVAL`) and get a plain ring.
fn set_up() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(RING_ENTRIES)
        .or_else(|_| IoUring::builder().build(RING_ENTRIES))
}

impl Ring {
    /// A ring that must be used on the thread that made it: the kernel takes submissions from no other.
    pub(super) fn new(files: Arc<Directory>) -> io::Result<Self> {
        let kernel = set_up()?;
        let wake = wake_fd()?;
        kernel.submitter().register_eventfd(wake.as_raw_fd())?;
        let pool = Pool::new(JOB_THREADS, Arc::clone(&wake))?;
        Ok(Self {
            kernel,
            files,
            wake,
            pool,
            entries: Vec::new(),
            vacant: Vec::new(),
            queued: VecDeque::new(),
            in_kernel: 0,
            done: Vec::new(),
        })
    }

    fn descriptor(&self, file: File) -> types::Fd {
        types::Fd(self.files.file(file).as_raw_fd())
    }

    fn insert(&mut self, entry: Entry) -> usize {
        if let Some(index) = self.vacant.pop() {
            self.entries[index] = Some(entry);
            index
        } else {
            self.entries.push(Some(entry));
            self.entries.len() - 1
        }
    }

    fn queue(&mut self, index: usize, part: usize, entry: squeue::Entry) {
        self.queued
            .push_back(entry.user_data((index as u64) << PART_BITS | part as u64));
    }

    fn submit_read(&mut self, token: u64, file: File, runs: Vec<Run>, mut buffer: Buffer) {
        let descriptor = self.descriptor(file);
        let mut parts = Vec::with_capacity(runs.len());
        for run in &runs {
            // Slicing checks that the run lies inside the buffer, whose heap memory stays in place.
            let part = &mut buffer[run.at..run.at + run.length];
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            parts.push(
                opcode::Read::new(descriptor, part.as_mut_ptr(), length)
                    .offset(run.offset)
                    .build(),
            );
        }
        let left = runs.len();
        let index = self.insert(Entry::Read {
            token,
            file,
            runs,
            buffer,
            left,
            failure: None,
        });
        for (number, part) in parts.into_iter().enumerate() {
            self.queue(index, number, part);
        }
    }

    fn submit_write(&mut self, token: u64, file: File, offset: u64, pieces: Vec<Bytes>, durable: bool) {
        let vectors: Box<[libc::iovec]> = pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            })
            .collect();
        let count = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Writev::new(self.descriptor(file), vectors.as_ptr(), count)
            .offset(offset)
            .rw_flags(flags)
            .build();
        let index = self.insert(Entry::Write {
            token,
            file,
            offset,
            pieces,
            vectors,
            durable,
        });
        self.queue(index, 0, entry);
    }

    fn submit_plain(&mut self, token: u64, entry: squeue::Entry) {
        let index = self.insert(Entry::Plain { token });
        self.queue(index, 0, entry);
    }

    /// Moves what is queued into the submission ring, as far as it goes.
    fn push(&mut self) {
        let mut submission = self.kernel.submission();
        while let Some(entry) = self.queued.pop_front() {
            // SAFETY: the memory that the entry names is owned by its `Entry` in `self.entries`,
            // which is removed only when the completion of its last part was seen.
            if unsafe { submission.push(&entry) }.is_err() {
                self.queued.push_front(entry);
                break;
            }
            self.in_kernel += 1;
        }
    }

    /// Takes the kernel's completions.
    fn reap(&mut self) {
        self.fetch();
        let mut seen = Vec::new();
        for completion in self.kernel.completion() {
            seen.push((completion.user_data(), completion.result()));
        }
        self.in_kernel -= seen.len();
        for (data, result) in seen {
            let index = usize::try_from(data >> PART_BITS).unwrap_or(usize::MAX);
            let part = usize::try_from(data & ((1 << PART_BITS) - 1)).unwrap_or(usize::MAX);
            self.complete(index, part, result);
        }
    }

    /// Empties the eventfd. The kernel sets it off twice for a deferred completion: when there is one, and
    /// when it is fetched. The second would only wake the thread again, for nothing. Whoever empties it
    /// looks for more afterwards, for what came just before would set nothing off any more.
    fn quiet(&self) {
        // Nothing in it is as good as empty: it does not block.
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    /// Whether anything is completed that was not taken yet.
    fn has_more(&mut self) -> bool {
        self.kernel.submission().taskrun() || !self.kernel.completion().is_empty() || self.pool.has_done()
    }

    /// Has the kernel put deferred completions into the ring. One system call, and only if there are any.
    fn fetch(&mut self) {
        if self.kernel.submission().taskrun()
            && let Err(error) = self.kernel.submit()
        {
            // Nothing is lost: the flag stays set, and the next look asks again.
            tracing::debug!(%error, "the kernel hands out no completions now");
        }
    }

    fn complete(&mut self, index: usize, part: usize, result: i32) {
        let Some(mut entry) = self.entries.get_mut(index).and_then(Option::take) else {
            tracing::error!(index, "a completion belongs to no operation");
            return;
        };
        let count = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        let completion = match &mut entry {
            Entry::Read {
                file,
                runs,
                buffer,
                left,
                failure,
                ..
            } => {
                *left -= 1;
                let run = runs[part];
                // A short read ends at the end of the file, or was cut: the blocking way knows.
                let finished = count.and_then(|count| {
                    let (offset, at) = (run.offset + count as u64, run.at + count);
                    if count == run.length {
                        return Ok(());
                    }
                    self.files
                        .read(*file, offset, &mut buffer[at..run.at + run.length])
                });
                if let Err(error) = finished {
                    failure.get_or_insert((part, error));
                }
                if *left > 0 {
                    self.entries[index] = Some(entry);
                    return;
                }
                let Entry::Read {
                    token,
                    buffer,
                    failure,
                    ..
                } = entry
                else {
                    return;
                };
                let outcome = match failure {
                    None => Outcome::Read(buffer),
                    Some((run, error)) => Outcome::ReadFailed(run, error),
                };
                Completion { token, outcome }
            }
            Entry::Write {
                token,
                file,
                offset,
                pieces,
                vectors,
                durable,
            } => {
                let expected: usize = vectors.iter().map(|vector| vector.iov_len).sum();
                let done = count.and_then(|count| {
                    if count == expected {
                        return Ok(());
                    }
                    // Cut short: do all of it again, blocking. It is the same bytes at the same place.
                    let pieces: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
                    self.files.write(*file, *offset, &pieces, *durable)
                });
                Completion {
                    token: *token,
                    outcome: Outcome::Done(done),
                }
            }
            Entry::Plain { token } => Completion {
                token: *token,
                outcome: Outcome::Done(count.map(|_| ())),
            },
        };
        self.vacant.push(index);
        self.done.push(completion);
    }
}

impl Medium for Ring {
    fn submit(&mut self, token: u64, operation: Operation) {
        match operation {
            Operation::Read { file, runs, buffer } => self.submit_read(token, file, runs, buffer),
            Operation::Write {
                file,
                offset,
                pieces,
                durable,
            } => {
                self.submit_write(token, file, offset, pieces, durable);
            }
            Operation::Flush(file) => {
                let entry = opcode::Fsync::new(self.descriptor(file))
                    .flags(types::FsyncFlags::DATASYNC)
                    .build();
                self.submit_plain(token, entry);
            }
            // Punching is rare and may block long in the file system: it goes to the thread.
            Operation::Punch { file, offset, length } => {
                let files = Arc::clone(&self.files);
                let task = move || Outcome::Done(files.punch(file, offset, length));
                self.pool.submit(Box::new(move || Completion {
                    token,
                    outcome: task(),
                }));
            }
            Operation::Job(job) => {
                self.pool.submit(Box::new(move || Completion {
                    token,
                    outcome: Outcome::Done(job()),
                }));
            }
        }
    }

    fn kick(&mut self) {
        while !self.queued.is_empty() {
            let before = self.queued.len();
            self.push();
            // An error here is one of resources (EAGAIN, EBUSY): what is in the ring stays there,
            // and goes with the next call.
            if let Err(error) = self.kernel.submit() {
                tracing::debug!(%error, "the kernel takes no submissions now");
                return;
            }
            if self.queued.len() == before {
                return;
            }
        }
        if !self.kernel.submission().is_empty() {
            let _ = self.kernel.submit();
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        loop {
            self.reap();
            self.pool.poll(&mut self.done);
            if self.done.is_empty() {
                break;
            }
            completions.append(&mut self.done);
            self.quiet();
            if !self.has_more() {
                break;
            }
        }
        if !self.queued.is_empty() {
            self.kick();
        }
    }

    fn wait(&mut self) {
        self.kick();
        // Before looking for completions: one that comes after the look fills it.
        self.quiet();
        if self.in_kernel == 0 && !self.pool.is_busy() {
            return;
        }
        self.fetch();
        if !self.done.is_empty() || !self.kernel.completion().is_empty() || self.pool.has_done() {
            return;
        }
        let mut watched = [PollFd::new(&*self.wake, PollFlags::IN)];
        // Interrupted: the caller looks again.
        let _ = rustix::event::poll(&mut watched, None);
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn length(&self, file: File) -> io::Result<u64> {
        self.files.length(file)
    }

    fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.files.read(file, offset, buffer)
    }

    fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.files.write_now(file, offset, bytes)
    }

    fn flush_now(&self, file: File) -> io::Result<()> {
        self.files.flush(file)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.files.free_bytes()
    }

    fn meta(&self) -> Arc<dyn MetaFile> {
        Arc::clone(&self.files) as Arc<dyn MetaFile>
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.queued.clear();
        // The kernel may still write into buffers that `entries` owns: wait until it let go.
        while self.in_kernel > 0 {
            if let Err(error) = self.kernel.submit_and_wait(1) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // Freeing the memory now could let the kernel write into someone else's.
                tracing::error!(%error, "cannot wait for the ring: its buffers are left behind");
                std::mem::forget(std::mem::take(&mut self.entries));
                return;
            }
            self.reap();
        }
    }
}
