//! Which volumes are open: one thread each, shared by all connections to that export, gone with the
//! last of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use protocol::session::ExportEntry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::control::Counted;
use crate::export::{Description, ExportName, names_of};
use crate::source::{Source, SourceError};
use crate::volume::{self, Order, VolumeHandle};

/// Orders that may wait for one volume's thread. They are few: two for each new connection.
const ORDERS_MAX: usize = 64;

/// How long volumes may take to tell what they have counted.
const COUNT_LIMIT: Duration = Duration::from_secs(1);

/// What all volume threads watch: whether the process is leaving.
pub type Leaving = watch::Receiver<bool>;

/// The open volumes. Lives on the thread that negotiates.
pub struct Registry {
    source: Source,
    leaving: Leaving,
    open: RefCell<HashMap<ExportName, Entry>>,
    /// Every volume thread holds a clone, so that the end of all can be awaited.
    alive: mpsc::Sender<()>,
}

struct Entry {
    handle: mpsc::WeakSender<Order>,
    /// Holds volumes open that would otherwise be lost.
    _kept: Option<VolumeHandle>,
}

/// An export that is open, and what it is now.
pub struct Opened {
    /// The way to its thread; it stays open while this is held.
    pub handle: VolumeHandle,
    /// What to tell the client.
    pub description: Description,
}

impl Registry {
    /// No volume is open yet. The receiver gives nothing until the last volume's thread has ended
    /// and the registry is gone.
    pub fn new(source: Source, leaving: Leaving) -> (Rc<Self>, mpsc::Receiver<()>) {
        let (alive, ended) = mpsc::channel(1);
        (
            Rc::new(Self {
                source,
                leaving,
                open: RefCell::default(),
                alive,
            }),
            ended,
        )
    }

    /// All volumes with their snapshots.
    pub async fn list(&self) -> Result<Vec<ExportEntry>, SourceError> {
        self.source.list().await
    }

    /// What an export is, without opening it: somebody else may be using it.
    pub async fn describe(&self, name: &ExportName) -> Result<Description, SourceError> {
        if let Some(handle) = self.present(name)
            && let Ok(description) = ask(&handle).await
        {
            return Ok(description);
        }
        let entries = self.list().await?;
        let found = entries
            .iter()
            .find(|entry| names_of(entry).any(|known| known == *name));
        let entry = found.ok_or_else(|| SourceError::NotFound(name.to_string()))?;
        Ok(self.source.describe(name, entry))
    }

    /// Opens an export, or joins those who have it open.
    pub async fn open(&self, name: &ExportName) -> Result<Opened, SourceError> {
        if let Some(handle) = self.present(name) {
            match ask(&handle).await {
                Ok(description) => return Ok(Opened { handle, description }),
                // It ended between the two lines above: it is opened anew.
                Err(AskError::Ended) => {}
                Err(AskError::Source(error)) => return Err(error),
            }
        }
        let (handle, answered) = self.start(name)?;
        match answered.await {
            Ok(Ok(description)) => Ok(Opened { handle, description }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SourceError::Unavailable("the volume's thread ended".to_owned())),
        }
    }

    /// What all open volumes have counted, by name. Those that do not answer in time are left out: they are
    /// being opened.
    pub async fn count(&self) -> Vec<Counted> {
        let mut asked = Vec::new();
        for entry in self.open.borrow().values() {
            let (answer, answered) = oneshot::channel();
            // One whose queue is full tells the next time.
            if let Some(handle) = entry.handle.upgrade()
                && handle.try_send(Order::Count(answer)).is_ok()
            {
                asked.push(answered);
            }
        }
        let deadline = Instant::now() + COUNT_LIMIT;
        let mut counted = Vec::new();
        for answered in asked {
            if let Ok(Ok(volume)) = timeout_at(deadline, answered).await {
                counted.push(volume);
            }
        }
        counted.sort_by(|a, b| a.name.cmp(&b.name));
        counted
    }

    /// Ends the connections to an export, and says how many there are; none if it is not open.
    pub async fn disconnect(&self, name: &ExportName) -> Option<usize> {
        let handle = self.present(name)?;
        let (answer, answered) = oneshot::channel();
        handle.send(Order::Disconnect(answer)).await.ok()?;
        answered.await.ok()
    }

    fn present(&self, name: &ExportName) -> Option<VolumeHandle> {
        self.open
            .borrow()
            .get(name)?
            .handle
            .upgrade()
            .filter(|handle| !handle.is_closed())
    }

    /// Starts a volume's thread. The question what it is goes into the queue before the thread is
    /// there: a thread that cannot open its volume ends at once, and answers only who has asked.
    fn start(&self, name: &ExportName) -> Result<(VolumeHandle, Answered), SourceError> {
        let (handle, orders) = mpsc::channel(ORDERS_MAX);
        let (answer, answered) = oneshot::channel();
        handle
            .try_send(Order::Describe(answer))
            .map_err(|_| SourceError::Unavailable("the volume's thread takes no orders".to_owned()))?;
        volume::start(
            self.source.clone(),
            name.clone(),
            orders,
            self.leaving.clone(),
            self.alive.clone(),
        )
        .map_err(|error| SourceError::Unavailable(format!("no thread for the volume: {error}")))?;
        let kept = self.source.stays_open().then(|| handle.clone());
        let mut open = self.open.borrow_mut();
        open.retain(|_, entry| entry.handle.strong_count() > 0);
        open.insert(
            name.clone(),
            Entry {
                handle: handle.downgrade(),
                _kept: kept,
            },
        );
        Ok((handle, answered))
    }
}

/// The answer to what a volume is.
type Answered = oneshot::Receiver<Result<Description, SourceError>>;

enum AskError {
    Ended,
    Source(SourceError),
}

async fn ask(handle: &VolumeHandle) -> Result<Description, AskError> {
    let (answer, answered) = oneshot::channel();
    handle
        .send(Order::Describe(answer))
        .await
        .map_err(|_| AskError::Ended)?;
    answered
        .await
        .map_err(|_| AskError::Ended)?
        .map_err(AskError::Source)
}
