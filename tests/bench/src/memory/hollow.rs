//! A medium whose data file is not there: what is written to it is forgotten, what is read is always
//! the same block. Superblock, log and metadata are those of the medium below.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use protocol::geometry::BLOCK_SIZE;
use store::medium::{Completion, File, Medium, MetaFile, Operation, Outcome};

/// Free space that it claims, in bytes: more than anyone will write.
const FREE: u64 = 1 << 50;

/// The one block that there is.
pub(super) fn pattern() -> &'static [u8] {
    const PATTERN: &[u8] = &[0x5a; BLOCK_SIZE as usize];
    PATTERN
}

/// See above.
pub(super) struct Hollow {
    below: Box<dyn Medium>,
    done: Vec<Completion>,
}

impl Hollow {
    /// Over a real medium.
    pub(super) fn over(below: Box<dyn Medium>) -> Self {
        Self {
            below,
            done: Vec::new(),
        }
    }
}

impl Medium for Hollow {
    fn submit(&mut self, token: u64, operation: Operation) {
        let outcome = match operation {
            Operation::Read {
                file: File::Data,
                mut buffer,
                ..
            } => {
                for block in buffer.chunks_exact_mut(pattern().len()) {
                    block.copy_from_slice(pattern());
                }
                Outcome::Read(buffer)
            }
            Operation::Write { file: File::Data, .. }
            | Operation::Punch { file: File::Data, .. }
            | Operation::Flush(File::Data) => Outcome::Done(Ok(())),
            other => return self.below.submit(token, other),
        };
        self.done.push(Completion { token, outcome });
    }

    fn kick(&mut self) {
        self.below.kick();
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.done);
        self.below.poll(completions);
    }

    fn wait(&mut self) {
        if self.done.is_empty() {
            self.below.wait();
        }
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.below.wake_fd()
    }

    fn length(&self, file: File) -> io::Result<u64> {
        self.below.length(file)
    }

    fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.below.read_now(file, offset, buffer)
    }

    fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.below.write_now(file, offset, bytes)
    }

    fn flush_now(&self, file: File) -> io::Result<()> {
        self.below.flush_now(file)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(FREE)
    }

    fn meta(&self) -> Arc<dyn MetaFile> {
        self.below.meta()
    }
}
