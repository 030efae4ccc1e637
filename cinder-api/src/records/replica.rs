//! Keeps all records in memory, up to date with the coordination store, and changes them.
//!
//! A read is as new as the store is when the read begins ([`Records::fresh`]): otherwise a volume that one process has just
//! made would be unknown to the next request that a load balancer gives to another one. The question costs one look at one
//! key, and all requests that wait at one moment share it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, Instant};

use coordination::{Coordination, CoordinationError, Outcome, Revision, Transaction, Watch};
use tokio::sync::{Mutex, watch};
use tracing::{error, warn};

use super::edit::Edit;
use super::tables::{FORMAT, LAST, ROOT, RecordError, Tables};
use crate::metrics::{self, Whom};

/// Between attempts to list again when the store is away.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often a change is decided anew because others changed the same records meanwhile. Each attempt that fails is one in
/// which another one succeeded, so this many means that the records are under siege.
const ATTEMPTS_MAX: usize = 64;
/// The format that this program reads and writes.
const FORMAT_KNOWN: &str = "1";

/// Why records cannot be read or changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordsError {
    /// The store is away, or refuses.
    #[error(transparent)]
    Store(#[from] CoordinationError),
    /// A record cannot be read: what is in memory is of no use any more.
    #[error("{0}")]
    Unreadable(Arc<str>),
    /// Others changed the same records all the time. Nothing was changed.
    #[error("others changed the same records {ATTEMPTS_MAX} times in a row; nothing was done, try again")]
    Siege,
}

impl From<RecordError> for RecordsError {
    fn from(error: RecordError) -> Self {
        Self::Unreadable(error.to_string().into())
    }
}

/// All records. Cheap to clone; what it does in the background ends with the last clone.
#[derive(Clone)]
pub struct Records(Arc<Inner>);

struct Inner {
    store: Arc<dyn Coordination>,
    tables: RwLock<Tables>,
    /// How far the tables are; or why they go no further.
    reached: watch::Sender<Result<Revision, RecordsError>>,
    /// Changes of this process are made one after the other: two at once would mostly be about the same project's usage, and
    /// one of them would be decided in vain. Between processes the store decides.
    turn: Mutex<()>,
    /// How many have asked how far the store is.
    asked: watch::Sender<u64>,
    /// How many of those have their answer, and the newest one.
    answered: watch::Sender<(u64, Result<Revision, RecordsError>)>,
    /// When memory last became newer.
    moved: watch::Sender<Instant>,
}

impl Records {
    /// Reads the whole store, and follows it from now on.
    pub async fn start(store: Arc<dyn Coordination>) -> Result<Self, RecordsError> {
        settle_format(store.as_ref()).await?;
        let (tables, following) = list(store.as_ref()).await?;
        let revision = tables.revision;
        let records = Self(Arc::new(Inner {
            store,
            tables: RwLock::new(tables),
            reached: watch::Sender::new(Ok(revision)),
            turn: Mutex::default(),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new((0, Ok(revision))),
            moved: watch::Sender::new(Instant::now()),
        }));
        tokio::spawn(follow(Arc::downgrade(&records.0), following));
        tokio::spawn(answer(Arc::downgrade(&records.0), records.0.asked.subscribe()));
        Ok(records)
    }

    /// The coordination store, for what is not kept in memory.
    pub fn store(&self) -> &dyn Coordination {
        self.0.store.as_ref()
    }

    /// All records as they are in memory. Not to be held while waiting for anything.
    pub fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<Result<Revision, RecordsError>> {
        self.0.reached.subscribe()
    }

    /// The newest revision that memory holds, and how long ago that was seen.
    pub fn newest(&self) -> (Revision, Duration) {
        (self.tables().revision, self.0.moved.borrow().elapsed())
    }

    /// Waits until memory holds all that was in the store when this was called.
    pub async fn fresh(&self) -> Result<(), RecordsError> {
        let mut answers = self.0.answered.subscribe();
        let mut mine = 0;
        self.0.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        let revision = match answers.wait_for(|(served, _)| *served >= mine).await {
            Ok(answer) => answer.1.clone(),
            Err(_) => Err(CoordinationError::Unavailable("cinder-api is ending".into()).into()),
        };
        self.at_least(revision?).await
    }

    /// Waits until memory is as new as a transaction.
    async fn at_least(&self, revision: Revision) -> Result<(), RecordsError> {
        let mut reached = self.0.reached.subscribe();
        let is_there =
            |reached: &Result<Revision, RecordsError>| !matches!(reached, Ok(now) if *now < revision);
        match reached.wait_for(is_there).await {
            Ok(reached) => reached.clone().map(|_| ()),
            Err(_) => Err(CoordinationError::Unavailable("cinder-api is ending".into()).into()),
        }
    }

    /// Changes records. `decide` sees them as they are and says what to change; if somebody else changed meanwhile what it
    /// went by, it is asked again. When this returns, the change is on stable storage and in this process's memory.
    pub async fn edit<T, E>(&self, mut decide: impl FnMut(&mut Edit<'_>) -> Result<T, E>) -> Result<T, E>
    where
        E: From<RecordsError>,
    {
        let _turn = self.0.turn.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            self.fresh().await?;
            let (decided, transaction) = {
                let tables = self.tables();
                let mut edit = Edit::new(&tables);
                let decided = decide(&mut edit)?;
                (decided, edit.into_transaction())
            };
            if self.commit(transaction).await? {
                return Ok(decided);
            }
        }
        Err(RecordsError::Siege.into())
    }

    /// Whether it was made. An empty one is.
    async fn commit(&self, transaction: Transaction) -> Result<bool, RecordsError> {
        if transaction.changes.is_empty() {
            return Ok(true);
        }
        let transaction = transaction.put(LAST, Vec::new());
        let began = Instant::now();
        let committed = self.0.store.commit(transaction).await;
        metrics::asked(Whom::Records, committed.is_err(), began.elapsed());
        match committed? {
            Outcome::Committed(revision) => {
                self.at_least(revision).await?;
                Ok(true)
            }
            Outcome::Conflict(_) => Ok(false),
        }
    }
}

async fn settle_format(store: &dyn Coordination) -> Result<(), RecordsError> {
    let new = Transaction::new()
        .when(coordination::Compare::Absent(FORMAT.to_owned()))
        .put(FORMAT, FORMAT_KNOWN.as_bytes().to_vec());
    if let Outcome::Committed(_) = store.commit(new).await? {
        return Ok(());
    }
    let found = store.get(FORMAT).await?;
    let found = found.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
    if found.as_deref() == Some(FORMAT_KNOWN) {
        return Ok(());
    }
    let found = found.unwrap_or_default();
    let message = format!(
        "the records have format {found:?}, and this cinder-api knows {FORMAT_KNOWN}: upgrade it before you start it"
    );
    Err(RecordsError::Unreadable(message.into()))
}

async fn list(store: &dyn Coordination) -> Result<(Tables, Watch), RecordsError> {
    let range = store.range(ROOT).await?;
    let following = store.watch(ROOT, range.revision).await?;
    let mut tables = Tables::default();
    for entry in &range.entries {
        tables.load(entry)?;
    }
    tables.revision = range.revision;
    Ok((tables, following))
}

/// Brings the store's changes into memory until nobody needs them.
async fn follow(inner: Weak<Inner>, mut following: Watch) {
    loop {
        let next = following.next().await;
        let Some(records) = inner.upgrade().map(Records) else {
            return;
        };
        let followed = match next {
            Ok(batch) => {
                let mut tables = records.0.tables.write().unwrap_or_else(PoisonError::into_inner);
                let applied = batch.events.iter().try_for_each(|event| tables.apply(event));
                tables.revision = batch.revision;
                applied.map(|()| batch.revision).map_err(RecordsError::from)
            }
            Err(_) => match list_again(&records).await {
                Ok((tables, again)) => {
                    following = again;
                    let revision = tables.revision;
                    *records.0.tables.write().unwrap_or_else(PoisonError::into_inner) = tables;
                    Ok(revision)
                }
                Err(error) => Err(error),
            },
        };
        records.0.moved.send_replace(Instant::now());
        let failed = followed.as_ref().err().map(ToString::to_string);
        let _ = records.0.reached.send_replace(followed);
        if let Some(error) = failed {
            error!(
                error,
                "the records cannot be followed any more: restart cinder-api when that is mended"
            );
            return;
        }
    }
}

async fn list_again(records: &Records) -> Result<(Tables, Watch), RecordsError> {
    loop {
        match list(records.store()).await {
            Err(RecordsError::Store(error)) if !matches!(error, CoordinationError::Failed(_)) => {
                warn!(%error, "cannot list the records, trying again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            other => return other,
        }
    }
}

/// Asks the store how far it is, for all who wait for that at once.
async fn answer(inner: Weak<Inner>, mut asked: watch::Receiver<u64>) {
    while asked.changed().await.is_ok() {
        let Some(records) = inner.upgrade().map(Records) else {
            return;
        };
        // Whoever is counted here asked before the store is looked at.
        let served = *asked.borrow_and_update();
        let began = Instant::now();
        let look = records.store().get(LAST).await;
        metrics::asked(Whom::Records, look.is_err(), began.elapsed());
        let newest = look.map(|entry| entry.map_or(Revision(0), |entry| entry.modified));
        let _ = records
            .0
            .answered
            .send_replace((served, newest.map_err(RecordsError::from)));
    }
}
