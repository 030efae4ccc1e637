//! The coordination store of one node: nothing to install, nothing to run.
//!
//! One thread owns the [`Engine`] and its database. Requests come to it through a bounded queue; all
//! transactions that wait are made durable in one commit, and only then answered. A commit that
//! failed takes the store out of service, for what is on the disk then is unknown.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::engine::Engine;
use crate::store::{
    Coordination, CoordinationError, Entry, LeaseId, Outcome, Range, Revision, Transaction, Watch,
};

mod database;
mod keeper_thread;

use database::Records;
use keeper_thread::{Command, Request, Served};

/// Requests that may wait for the store's thread; more wait outside.
const REQUESTS_MAX: usize = 256;

/// Why an embedded store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process: is a storaged running there already?")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file was written by a newer program.
    #[error("{path} has format {found}; this program knows formats up to {known}: upgrade it")]
    Newer {
        /// The file.
        path: String,
        /// The format found.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// The file cannot be read or written, or is damaged.
    #[error("cannot open the coordination store {path}: {source}")]
    Storage {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: redb::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the coordination store's thread: {0}")]
    Thread(std::io::Error),
}

/// A coordination store in a file of this node, or in memory. Cheap to clone; the last one that is
/// dropped waits until the file is closed.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    /// Nothing once it is being dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The thread ends when it has served what was asked before.
        self.requests = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the coordination store's thread ended in a panic");
        }
    }
}

impl Embedded {
    /// Opens the store in a file, or makes it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::start(Records::open(path)?)
    }

    /// A store that forgets everything when it is dropped, with the same code as the other.
    pub fn in_memory() -> Result<Self, OpenError> {
        Self::start(Records::in_memory()?)
    }

    fn start((records, engine): (Records, Engine)) -> Result<Self, OpenError> {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let thread = keeper_thread::spawn(records, engine, receiver).map_err(OpenError::Thread)?;
        Ok(Self(Arc::new(Inner {
            requests: Some(sender),
            thread: Mutex::new(Some(thread)),
        })))
    }

    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Served<T>>) -> Command,
    ) -> Result<T, CoordinationError> {
        let gone = || CoordinationError::Unavailable("its thread has ended".into());
        let (sender, receiver) = oneshot::channel();
        let queue = self.0.requests.as_ref().ok_or_else(gone)?;
        queue.send(Request(make(sender))).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Coordination for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>, CoordinationError> {
        self.ask(|reply| Command::Get(key.to_owned(), reply)).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, CoordinationError> {
        self.ask(|reply| Command::Range(prefix.to_owned(), reply)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, CoordinationError> {
        let told = self.ask(|reply| Command::Commit(transaction, reply)).await;
        // Its thread may have ended with the transaction made, and the answer not given.
        told.map_err(|error| match error {
            CoordinationError::Unavailable(why) => CoordinationError::Unknown(why),
            error => error,
        })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, CoordinationError> {
        self.ask(|reply| Command::Watch(prefix.to_owned(), after, reply))
            .await
    }

    async fn raise_revision(&self, floor: Revision) -> Result<(), CoordinationError> {
        self.ask(|reply| Command::Raise(floor, reply)).await
    }

    async fn grant_lease(&self, time_to_live: Duration) -> Result<LeaseId, CoordinationError> {
        self.ask(|reply| Command::Grant(time_to_live, reply)).await
    }

    async fn keep_lease(&self, lease: LeaseId) -> Result<(), CoordinationError> {
        self.ask(|reply| Command::Keep(lease, reply)).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CoordinationError> {
        self.ask(|reply| Command::Revoke(lease, reply)).await
    }
}

#[cfg(test)]
mod tests;
