//! A disk in memory that keeps some operations waiting while its gate is shut.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

use store::medium::memory::Memory;
use store::medium::{Completion, File, Medium, MetaFile, Operation};

/// Where operations wait while it is shut.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) shut: bool,
    pub(crate) waiting: Vec<(u64, Operation)>,
}

/// See the module.
pub(crate) struct Gated {
    pub(crate) disk: Memory,
    pub(crate) gate: Rc<RefCell<Gate>>,
    /// Which operations wait.
    pub(crate) holds: fn(&Operation) -> bool,
}

impl Medium for Gated {
    fn submit(&mut self, token: u64, operation: Operation) {
        if (self.holds)(&operation) {
            self.gate.borrow_mut().waiting.push((token, operation));
        } else {
            self.disk.submit(token, operation);
        }
    }
    fn kick(&mut self) {
        let mut gate = self.gate.borrow_mut();
        if !gate.shut {
            for (token, operation) in gate.waiting.drain(..) {
                self.disk.submit(token, operation);
            }
        }
        self.disk.kick();
    }
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.disk.poll(completions);
    }
    fn wait(&mut self) {
        self.disk.wait();
    }
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.disk.wake_fd()
    }
    fn length(&self, file: File) -> io::Result<u64> {
        self.disk.length(file)
    }
    fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_now(file, offset, buffer)
    }
    fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_now(file, offset, bytes)
    }
    fn flush_now(&self, file: File) -> io::Result<()> {
        self.disk.flush_now(file)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
    fn meta(&self) -> Arc<dyn MetaFile> {
        self.disk.meta()
    }
}
