//! Stands between a store and its medium and takes the time of every operation. It changes nothing.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use store::medium::{Completion, File, Medium, MetaFile, Operation, Outcome};

use super::ledger::Ledger;

/// The kinds of operations.
const NAMES: &[&str] = &["log", "read", "write", "flush", "other"];
/// Operations under way that are timed: the store begins fewer.
const PLACES: usize = 1024;

/// A medium whose operations are timed.
pub(super) struct Stopwatch {
    medium: Box<dyn Medium>,
    ledger: Rc<RefCell<Ledger>>,
}

impl Stopwatch {
    /// Where times are written down.
    pub(super) fn ledger() -> Rc<RefCell<Ledger>> {
        Rc::new(RefCell::new(Ledger::new(NAMES, PLACES)))
    }

    /// Times `medium`.
    pub(super) fn new(medium: Box<dyn Medium>, ledger: Rc<RefCell<Ledger>>) -> Self {
        Self { medium, ledger }
    }
}

/// The place of an operation's kind in [`NAMES`], and its bytes.
fn kind(operation: &Operation) -> (usize, u64) {
    match operation {
        Operation::Write {
            file: File::Log,
            pieces,
            ..
        } => (0, length(pieces)),
        Operation::Read { runs, .. } => (1, runs.iter().map(|run| run.length as u64).sum()),
        Operation::Write { pieces, .. } => (2, length(pieces)),
        Operation::Flush(_) => (3, 0),
        Operation::Punch { length, .. } => (4, *length),
        Operation::Job(_) => (4, 0),
    }
}

fn length(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

impl Medium for Stopwatch {
    fn submit(&mut self, token: u64, operation: Operation) {
        let (kind, bytes) = kind(&operation);
        self.ledger.borrow_mut().begin(token, kind, bytes);
        self.medium.submit(token, operation);
    }

    fn kick(&mut self) {
        self.medium.kick();
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.medium.poll(completions);
        let new = completions.get(before..).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut ledger = self.ledger.borrow_mut();
        for completion in new {
            let failed = matches!(
                completion.outcome,
                Outcome::ReadFailed(..) | Outcome::Done(Err(_))
            );
            ledger.end(completion.token, failed, now);
        }
    }

    fn wait(&mut self) {
        self.medium.wait();
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.medium.wake_fd()
    }

    fn length(&self, file: File) -> io::Result<u64> {
        self.medium.length(file)
    }

    fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.medium.read_now(file, offset, buffer)
    }

    fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.medium.write_now(file, offset, bytes)
    }

    fn flush_now(&self, file: File) -> io::Result<()> {
        self.medium.flush_now(file)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.medium.free_bytes()
    }

    fn name(&self) -> &'static str {
        self.medium.name()
    }

    fn meta(&self) -> Arc<dyn MetaFile> {
        self.medium.meta()
    }
}

#[cfg(test)]
mod tests {
    //! A real store on a medium that is slow on purpose: the times are seen, and the disk is found out.
    use std::collections::BTreeMap;
    use std::time::Duration;

    use protocol::storage::StorageRequest;
    use protocol::{DiskId, Generation, VolumeId};
    use store::{Format, Options, Store};

    use super::*;
    use crate::slow::{Judge, Policy, REQUESTS_MIN, Verdict, WINDOWS_TO_EVICT, Windows};

    /// How long the slow medium thinks before each write of its log: above [`crate::slow`]'s floor.
    const PAUSE: Duration = Duration::from_millis(22);

    /// A medium that thinks before it writes its log.
    struct Thoughtful(Box<dyn Medium>, Duration);

    impl Medium for Thoughtful {
        fn submit(&mut self, token: u64, operation: Operation) {
            let deadline = Instant::now() + self.1;
            while kind(&operation).0 == 0 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            self.0.submit(token, operation);
        }
        fn kick(&mut self) {
            self.0.kick();
        }
        fn poll(&mut self, completions: &mut Vec<Completion>) {
            self.0.poll(completions);
        }
        fn wait(&mut self) {
            self.0.wait();
        }
        fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
            self.0.wake_fd()
        }
        fn length(&self, file: File) -> io::Result<u64> {
            self.0.length(file)
        }
        fn read_now(&self, file: File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_now(file, offset, buffer)
        }
        fn write_now(&self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_now(file, offset, bytes)
        }
        fn flush_now(&self, file: File) -> io::Result<()> {
            self.0.flush_now(file)
        }
        fn free_bytes(&self) -> io::Result<u64> {
            self.0.free_bytes()
        }
        fn meta(&self) -> Arc<dyn MetaFile> {
            self.0.meta()
        }
    }

    /// What a disk in memory that thinks for so long tells of its medium after as many log writes as are
    /// judged.
    fn entries(pause: Duration) -> super::super::ledger::Entries {
        let format = Format {
            cluster: [7; 16],
            disk: DiskId(1),
            serial: [1; 16],
            log_bytes: 1 << 20,
        };
        let mut memory: Box<dyn Medium> = Box::new(store::medium::memory::Disk::default().medium());
        Store::create_on(memory.as_mut(), &format).unwrap();
        let ledger = Stopwatch::ledger();
        let medium = Stopwatch::new(Box::new(Thoughtful(memory, pause)), Rc::clone(&ledger));
        let mut store = Store::open_on(Box::new(medium), &Options::default()).unwrap();
        let mut answers = Vec::new();
        for generation in 1..=REQUESTS_MIN {
            let request = StorageRequest::RaiseGeneration(VolumeId(1), Generation(generation));
            store.submit(generation, request);
            store.kick();
            while answers.is_empty() {
                store.kick();
                store.poll(&mut answers);
            }
            answers.drain(..).for_each(|(_, result)| drop(result.unwrap()));
        }
        ledger.borrow().entries()
    }

    #[test]
    fn a_slow_medium_is_timed_and_its_disk_is_found_out() {
        let mut windows = Windows::default();
        let all = BTreeMap::from([(DiskId(1), entries(Duration::ZERO)), (DiskId(2), entries(PAUSE))]);
        let window = windows.close(all);
        let log = |disk| {
            let mut operations = window[&DiskId(disk)].iter();
            operations.find(|found| found.operation == "log").unwrap()
        };
        assert!(log(1).count >= REQUESTS_MIN && log(2).count >= REQUESTS_MIN);
        assert!(log(2).p99 >= PAUSE, "{:?}", log(2));
        let mut judge = Judge::new(Policy {
            evict: true,
            factor: 50,
            at_least: PAUSE,
            after: Duration::from_mins(1),
        });
        let verdicts: Vec<_> = (0..WINDOWS_TO_EVICT).flat_map(|_| judge.judge(&window)).collect();
        assert!(
            matches!(&verdicts[..], [(DiskId(2), Verdict::Slow(_))]),
            "{verdicts:?}"
        );
        assert!(matches!(&judge.unbearable()[..], [(DiskId(2), _)]));
    }
}
