//! A few threads that do what blocks, and an eventfd that says when something is done.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::EventfdFlags;

use crate::medium::Completion;

/// What a wake-up adds to the eventfd: not zero, whatever the order of its bytes.
const ONE: &[u8; 8] = &[1; 8];

/// Something to do, which gives its completion.
pub(super) type Task = Box<dyn FnOnce() -> Completion + Send>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    done: Vec<Completion>,
    /// Tasks taken in whose completion was not taken out.
    in_flight: usize,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// A task came, or the end.
    work: Condvar,
    /// A completion came.
    finished: Condvar,
    wake: Arc<OwnedFd>,
}

/// The threads. Dropping it ends them after the tasks that they have begun.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// An eventfd for wake-ups. Nobody needs to read it: it is watched edge-triggered.
pub(super) fn wake_fd() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(rustix::event::eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?))
}

impl Pool {
    pub(super) fn new(threads: usize, wake: Arc<OwnedFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            finished: Condvar::new(),
            wake,
        });
        let mut pool = Self {
            shared,
            threads: Vec::new(),
        };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("disk-io-{number}"));
            pool.threads.push(builder.spawn(move || work(&shared))?);
        }
        Ok(pool)
    }

    /// Takes a task in. What bounds their number is the store.
    pub(super) fn submit(&self, task: Task) {
        let mut state = lock(&self.shared);
        state.waiting.push_back(task);
        state.in_flight += 1;
        drop(state);
        self.shared.work.notify_one();
    }

    /// Takes out what is done.
    pub(super) fn poll(&self, completions: &mut Vec<Completion>) {
        let mut state = lock(&self.shared);
        state.in_flight -= state.done.len();
        completions.append(&mut state.done);
    }

    /// Whether a completion can be taken out, now or later.
    pub(super) fn is_busy(&self) -> bool {
        lock(&self.shared).in_flight > 0
    }

    /// Whether a completion can be taken out now.
    pub(super) fn has_done(&self) -> bool {
        !lock(&self.shared).done.is_empty()
    }

    /// Blocks until a completion can be taken out, if a task is in flight.
    pub(super) fn wait(&self) {
        let mut state = lock(&self.shared);
        while state.done.is_empty() && state.in_flight > 0 {
            state = self
                .shared
                .finished
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to give.
            let _ = thread.join();
        }
    }
}

/// The state stays whole whatever a task does: no task runs while it is locked.
fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared) {
    let mut state = lock(shared);
    loop {
        if let Some(task) = state.waiting.pop_front() {
            drop(state);
            let completion = task();
            state = lock(shared);
            state.done.push(completion);
            shared.finished.notify_all();
            // Adding one to an eventfd fails only at 2^64 - 2, and then it is readable anyway.
            let _ = rustix::io::write(&*shared.wake, ONE);
        } else if state.closed {
            return;
        } else {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
