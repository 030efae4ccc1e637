//! The thread that owns the engine and its database, and serves requests in batches.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::error;

use super::database::Records;
use crate::engine::{Effect, Engine};
use crate::store::{
    Batch, CoordinationError, Entry, Event, LeaseId, Outcome, Range, Revision, Transaction, Watch,
};

/// Requests that are served with one commit. A guess: enough to share a flush among all who
/// wait, few enough that the first does not wait for long.
const BATCH_MAX: usize = 64;
/// The thread looks at the clock at least this often while there are leases.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(1);

/// A request's answer.
pub(super) type Served<T> = Result<T, CoordinationError>;
type Reply<T> = oneshot::Sender<Served<T>>;

/// A request with the place where its answer goes.
pub(super) struct Request(pub(super) Command);

/// What may be asked.
pub(super) enum Command {
    Get(String, Reply<Option<Entry>>),
    Range(String, Reply<Range>),
    Commit(Transaction, Reply<Outcome>),
    Watch(String, Revision, Reply<Watch>),
    Raise(Revision, Reply<()>),
    Grant(Duration, Reply<LeaseId>),
    Keep(LeaseId, Reply<()>),
    Revoke(LeaseId, Reply<()>),
}

/// An answer that waits for the batch's commit.
type Answer = Box<dyn FnOnce(Result<(), CoordinationError>) + Send>;

struct Watcher {
    prefix: String,
    sender: mpsc::Sender<Batch>,
}

struct Keeper {
    engine: Engine,
    records: Records,
    watchers: Vec<Watcher>,
    started: Instant,
    failed: Option<CoordinationError>,
}

/// What a batch of requests leaves to be done.
#[derive(Default)]
struct Pending {
    effects: Vec<Effect>,
    granted: Vec<(LeaseId, u64)>,
    answers: Vec<Answer>,
}

/// Starts the thread. It ends when all senders of requests are gone.
pub(super) fn spawn(
    records: Records,
    engine: Engine,
    requests: mpsc::Receiver<Request>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    std::thread::Builder::new()
        .name("coordination".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let keeper = Keeper {
                    engine,
                    records,
                    watchers: Vec::new(),
                    started: Instant::now(),
                    failed: None,
                };
                keeper.run(requests).await;
            });
        })
}

impl Keeper {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let wait = self.until_next_expiry();
            tokio::select! {
                count = requests.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            self.serve(&mut batch);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn until_next_expiry(&self) -> Duration {
        match self.engine.next_expiry_ms() {
            Some(at) => Duration::from_millis(at.saturating_sub(self.now_ms())).min(CLOCK_STEP_MAX),
            None => CLOCK_STEP_MAX,
        }
    }

    fn serve(&mut self, batch: &mut Vec<Request>) {
        let mut pending = Pending::default();
        let now_ms = self.now_ms();
        if self.failed.is_none() {
            // Renewals that wait in the queue are served before any lease lapses: after a stall of
            // this thread, those who did their part must not lose their lease.
            let (keeps, others): (Vec<_>, Vec<_>) = batch
                .drain(..)
                .partition(|request| matches!(request.0, Command::Keep(..)));
            for Request(command) in keeps {
                self.take(command, now_ms, &mut pending);
            }
            pending.effects.extend(self.engine.expire(now_ms));
            for Request(command) in others {
                self.take(command, now_ms, &mut pending);
            }
        } else {
            for Request(command) in batch.drain(..) {
                self.take(command, now_ms, &mut pending);
            }
        }
        let result = self.make_durable(&pending);
        for answer in pending.answers {
            answer(result.clone());
        }
        if result.is_ok() {
            for effect in &pending.effects {
                publish(&mut self.watchers, &effect.batch);
            }
        }
    }

    fn take(&mut self, command: Command, now_ms: u64, pending: &mut Pending) {
        match command {
            Command::Get(key, reply) => {
                let entry = self.engine.get(&key);
                self.defer(pending, reply, Ok(entry));
            }
            Command::Range(prefix, reply) => {
                let range = self.engine.range(&prefix);
                self.defer(pending, reply, Ok(range));
            }
            Command::Commit(transaction, reply) => {
                let outcome = self
                    .unless_failed()
                    .and_then(|()| self.engine.commit(&transaction));
                let outcome = outcome.map(|(outcome, effect)| {
                    pending.effects.extend(effect);
                    outcome
                });
                self.defer(pending, reply, outcome);
            }
            Command::Watch(prefix, after, reply) => {
                let watch = self.watch(&prefix, after, &pending.effects);
                self.defer(pending, reply, watch);
            }
            Command::Raise(floor, reply) => {
                let raised = self
                    .unless_failed()
                    .and_then(|()| self.engine.raise_revision(floor));
                let raised = raised.map(|effect| pending.effects.extend(effect));
                self.defer(pending, reply, raised);
            }
            Command::Grant(time_to_live, reply) => {
                let time_to_live_ms = u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX);
                let lease = self.unless_failed().map(|()| {
                    let lease = self.engine.grant_lease(now_ms, time_to_live_ms);
                    pending.granted.push((lease, time_to_live_ms));
                    lease
                });
                self.defer(pending, reply, lease);
            }
            Command::Keep(lease, reply) => {
                let kept = self.engine.keep_lease(now_ms, lease);
                self.defer(pending, reply, kept);
            }
            Command::Revoke(lease, reply) => {
                let revoked = self.unless_failed();
                if revoked.is_ok() {
                    pending.effects.extend(self.engine.revoke_lease(lease));
                }
                self.defer(pending, reply, revoked);
            }
        }
    }

    fn unless_failed(&self) -> Result<(), CoordinationError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Keeps an answer until what it rests on is durable: a reader must not see what a crash could
    /// take back.
    fn defer<T: Send + 'static>(&self, pending: &mut Pending, reply: Reply<T>, served: Served<T>) {
        let served = self.unless_failed().and(served);
        pending.answers.push(Box::new(move |durable| {
            // Nobody waits any more if this fails, and then nobody needs the answer.
            let _ = reply.send(durable.and(served));
        }));
    }

    fn watch(&mut self, prefix: &str, after: Revision, unpublished: &[Effect]) -> Served<Watch> {
        // What this batch changed so far will be published to all watchers at its end.
        let last_published = unpublished
            .first()
            .map_or(Revision(u64::MAX), |effect| effect.batch.revision);
        let past = self.engine.since(after)?;
        let (sender, watch) = Watch::channel();
        let mut watcher = Watcher {
            prefix: prefix.to_owned(),
            sender,
        };
        for batch in past.iter().filter(|batch| batch.revision < last_published) {
            if !watcher.feed(batch) {
                return Err(CoordinationError::Compacted(after));
            }
        }
        self.watchers.push(watcher);
        Ok(watch)
    }

    fn make_durable(&mut self, pending: &Pending) -> Result<(), CoordinationError> {
        self.unless_failed()?;
        if pending.effects.is_empty() && pending.granted.is_empty() {
            return Ok(());
        }
        let result = self.records.store(
            &pending.effects,
            &pending.granted,
            self.engine.revision(),
            self.engine.next_lease(),
        );
        result.map_err(|cause| {
            error!(error = %cause, "the coordination store cannot be written, it is out of service now");
            let failure = CoordinationError::Failed(cause.to_string().into());
            self.failed = Some(failure.clone());
            self.watchers.clear();
            failure
        })
    }
}

impl Watcher {
    /// False if the watcher is gone or fell behind too far.
    fn feed(&mut self, batch: &Arc<Batch>) -> bool {
        let ours = |event: &&Event| match event {
            Event::Put(entry) => entry.key.starts_with(&self.prefix),
            Event::Deleted(key) => key.starts_with(&self.prefix),
        };
        let events: Vec<Event> = batch.events.iter().filter(ours).cloned().collect();
        self.sender
            .try_send(Batch {
                revision: batch.revision,
                events,
            })
            .is_ok()
    }
}

fn publish(watchers: &mut Vec<Watcher>, batch: &Arc<Batch>) {
    watchers.retain_mut(|watcher| watcher.feed(batch));
}
