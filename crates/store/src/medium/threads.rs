//! The medium where `io_uring` is forbidden (containers, seccomp): a few threads that block.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::medium::directory::Directory;
use crate::medium::pool::{Pool, wake_fd};
use crate::medium::{Completion, File, Medium, MetaFile, Operation, Outcome};

/// Threads a disk: enough to keep one log write, one flush and two reads going.
const THREADS: usize = 4;

/// Files asked by threads.
pub(super) struct Threads {
    files: Arc<Directory>,
    wake: Arc<OwnedFd>,
    pool: Pool,
}

impl Threads {
    pub(super) fn new(files: Arc<Directory>) -> io::Result<Self> {
        let wake = wake_fd()?;
        let pool = Pool::new(THREADS, Arc::clone(&wake))?;
        Ok(Self { files, wake, pool })
    }
}

impl Medium for Threads {
    fn submit(&mut self, token: u64, operation: Operation) {
        let files = Arc::clone(&self.files);
        self.pool.submit(Box::new(move || Completion {
            token,
            outcome: perform(&files, operation),
        }));
    }

    fn kick(&mut self) {}

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.pool.poll(completions);
    }

    fn wait(&mut self) {
        self.pool.wait();
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn name(&self) -> &'static str {
        "pread"
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

/// Does an operation, blocking.
fn perform(files: &Directory, operation: Operation) -> Outcome {
    match operation {
        Operation::Read {
            file,
            runs,
            mut buffer,
        } => {
            for (number, run) in runs.iter().enumerate() {
                let part = &mut buffer[run.at..run.at + run.length];
                if let Err(error) = files.read(file, run.offset, part) {
                    return Outcome::ReadFailed(number, error);
                }
            }
            Outcome::Read(buffer)
        }
        Operation::Write {
            file,
            offset,
            pieces,
            durable,
        } => {
            let pieces: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
            Outcome::Done(files.write(file, offset, &pieces, durable))
        }
        Operation::Flush(file) => Outcome::Done(files.flush(file)),
        Operation::Punch { file, offset, length } => Outcome::Done(files.punch(file, offset, length)),
        Operation::Job(job) => Outcome::Done(job()),
    }
}
