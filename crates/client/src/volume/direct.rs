//! Reads that a front end does itself, of the files of disks on its own machine.
//!
//! The owner knows nothing of it: it says which disk is to be asked, and here the request is carried
//! out instead of being sent, if the disk has told where the blocks lie. Whatever goes wrong, the
//! request is sent after all. Questions about places go along with reads, under numbers of their own.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use direct::cache::Cache;
use direct::places::Shown;
use direct::reader::{Disk, Finished, Reader};
use protocol::DiskId;
use protocol::message::{Request, Response};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use super::driver::Driver;

/// Set in the numbers of questions. An owner counts its requests from one, and never comes so far.
const QUESTION: u64 = 1 << 63;

/// What a disk says of where its files are.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) directory: Vec<u8>,
    pub(super) opening: [u8; 16],
}

/// What became of a request.
pub(super) enum Begun {
    /// It is carried out here.
    Here,
    /// It must be sent, with a question after it if there is one.
    AtDisk(Option<(u64, Box<Request>)>),
}

/// A read under way here, to be sent if it fails.
struct UnderWay {
    disk: DiskId,
    number: u64,
    request: Request,
}

/// What direct reads are done with. Who opens volumes one after the other hands it from one to the next, and who
/// gives up the right to make one makes it before.
pub struct ReadRing {
    reader: Reader,
    /// Where the tokens of its reads have come to: what a former volume left must not be taken for the next one's.
    next: u64,
}

impl ReadRing {
    /// A new one, if the system gives it. What comes is kept in `cache`, if there is one.
    pub fn new(cache: Option<Cache>) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::new(cache)?,
            next: 0,
        })
    }
}

#[derive(Default)]
struct State {
    ring: Option<ReadRing>,
    disks: BTreeMap<DiskId, Disk>,
    under_way: HashMap<u64, UnderWay>,
    questions: HashMap<u64, (DiskId, Shown)>,
    /// Tokens of reads and numbers of questions.
    next: u64,
    finished: Vec<Finished>,
}

/// All that a volume reads directly.
#[derive(Default)]
pub(super) struct DirectReads {
    state: RefCell<State>,
    cache: Option<Cache>,
    count: Cell<u64>,
}

impl State {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl DirectReads {
    /// With a ring that was made before, or with one that is made when the first disk of this machine is met, and keeps
    /// what it reads in `cache`.
    pub(super) fn new(ring: Option<ReadRing>, cache: Option<Cache>) -> Self {
        let reads = Self {
            cache,
            ..Self::default()
        };
        {
            let mut state = reads.state.borrow_mut();
            state.next = ring.as_ref().map_or(0, |ring| ring.next);
            state.ring = ring;
        }
        reads
    }

    /// Becomes readable when reads are finished; nothing while there is no ring.
    pub(super) fn wake(&self) -> io::Result<Option<AsyncFd<OwnedFd>>> {
        let state = self.state.borrow();
        let ring = state.ring.as_ref();
        ring.map(|ring| watched(ring.reader.wake_descriptor().try_clone_to_owned()?))
            .transpose()
    }

    /// Takes the ring out, for another volume. Reads that are still under way end unheard.
    pub(super) fn take_ring(&self) -> Option<ReadRing> {
        let mut state = self.state.borrow_mut();
        let next = state.next;
        state.ring.take().map(|ring| ReadRing { next, ..ring })
    }

    /// Reads with a ring that another volume had, if there is none; gives what [`DirectReads::wake`] gives then.
    pub(super) fn adopt(&self, ring: ReadRing) -> io::Result<Option<AsyncFd<OwnedFd>>> {
        {
            let mut state = self.state.borrow_mut();
            if state.ring.is_some() {
                return Ok(None);
            }
            state.next = state.next.max(ring.next);
            state.ring = Some(ring);
        }
        self.wake()
    }

    /// Reads the files of a disk from now on. Gives what [`DirectReads::wake`] gives if the ring is new.
    pub(super) fn open(&self, disk: DiskId, shared: &Shared) -> io::Result<Option<AsyncFd<OwnedFd>>> {
        let opened = Disk::open(Path::new(OsStr::from_bytes(&shared.directory)), shared.opening)?;
        let is_new = self.state.borrow().ring.is_none();
        if is_new {
            self.state.borrow_mut().ring = Some(ReadRing::new(self.cache.clone())?);
        }
        let wake = if is_new { self.wake()? } else { None };
        self.state.borrow_mut().disks.insert(disk, opened);
        info!(%disk, "its file is read directly");
        Ok(wake)
    }

    /// The connection to a disk is gone: what it said is not true any more. Reads under way end
    /// unheard; the owner asks for them again.
    pub(super) fn close(&self, disk: DiskId) {
        let mut state = self.state.borrow_mut();
        state.disks.remove(&disk);
        state.under_way.retain(|_, read| read.disk != disk);
        state.questions.retain(|_, (asked, _)| *asked != disk);
    }

    /// Carries a request out, if it is a read and the disk has told where its blocks are.
    pub(super) fn begin(&self, disk: DiskId, number: u64, request: &Request) -> Begun {
        let Some((scope, shown, ranges)) = Shown::of(request) else {
            return Begun::AtDisk(None);
        };
        let mut state = self.state.borrow_mut();
        let token = state.next();
        let State { ring, disks, .. } = &mut *state;
        let (Some(ReadRing { reader, .. }), Some(open)) = (ring, disks.get_mut(&disk)) else {
            return Begun::AtDisk(None);
        };
        match reader.begin(open, token, &shown, &ranges) {
            Ok(()) => {
                let read = UnderWay {
                    disk,
                    number,
                    request: request.clone(),
                };
                state.under_way.insert(token, read);
                Begun::Here
            }
            Err(None) => Begun::AtDisk(None),
            Err(Some(range)) => {
                let number = QUESTION | token;
                state.questions.insert(number, (disk, shown));
                let question = shown.question(scope, range);
                Begun::AtDisk(Some((number, Box::new(question))))
            }
        }
    }

    /// Takes an answer in if it is one to a question; gives back all others.
    pub(super) fn answered(&self, disk: DiskId, number: u64, response: Response) -> Option<Response> {
        if number & QUESTION == 0 {
            return Some(response);
        }
        let mut state = self.state.borrow_mut();
        let State { questions, disks, .. } = &mut *state;
        if let Some((_, shown)) = questions.remove(&number)
            && let Some(open) = disks.get_mut(&disk)
        {
            match response {
                Response::Placed { admission, chunks } => open.places().learn(&shown, admission, chunks),
                _ => open.places().refused(&shown),
            }
        }
        None
    }

    /// Hands the kernel what was begun. True if something is finished already.
    pub(super) fn submit(&self) -> bool {
        match &mut self.state.borrow_mut().ring {
            Some(ReadRing { reader, .. }) => {
                reader.submit();
                reader.has_ended()
            }
            None => false,
        }
    }

    /// What came to its end: the bytes, or the request that must be sent after all.
    pub(super) fn finished(&self) -> Vec<(DiskId, u64, Result<Bytes, Request>)> {
        let mut state = self.state.borrow_mut();
        let mut finished = std::mem::take(&mut state.finished);
        if let Some(ring) = &mut state.ring {
            ring.reader.finished(&mut finished);
        }
        let mut ended = Vec::with_capacity(finished.len());
        for read in finished.drain(..) {
            // A read whose connection is gone is not awaited any more.
            let Some(under_way) = state.under_way.remove(&read.token) else {
                continue;
            };
            self.count.set(self.count.get() + u64::from(read.bytes.is_some()));
            let outcome = read.bytes.ok_or(under_way.request);
            ended.push((under_way.disk, under_way.number, outcome));
        }
        state.finished = finished;
        ended
    }

    /// How many reads were done here.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }
}

#[expect(
    deprecated,
    reason = "an `OwnedFd` keeps what the unsafe `register` asks its caller to keep"
)]
fn watched(wake: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // An eventfd can always be written to, and would wake the thread for that, too.
    AsyncFd::with_interest(wake, Interest::READABLE)
}

/// Takes in finished reads whenever there are any.
pub(super) async fn follow(driver: Rc<Driver>, wake: AsyncFd<OwnedFd>) {
    loop {
        match wake.readable().await {
            // The next completion makes it readable anew: it is edge-triggered.
            Ok(mut guard) => guard.clear_ready(),
            Err(error) => {
                warn!(%error, "cannot wait for direct reads any more");
                return;
            }
        }
        driver.take_direct();
    }
}
