//! Which targets have threads: one each, gone some time after the last of its connections.

use std::cell::RefCell;
use std::collections::HashMap;

use tokio::sync::{mpsc, watch};

use crate::connection::ConnectionError;
use crate::login::Refusal;
use crate::source::Source;
use crate::target::{self, Configured, NEWCOMERS_MAX, Newcomer};

/// See the module.
pub(super) struct Targets {
    source: Source,
    configured: Configured,
    portal_group: u16,
    leaving: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
    /// The way to each thread. It stays while this is held.
    known: RefCell<HashMap<String, mpsc::Sender<Newcomer>>>,
}

impl Targets {
    pub(super) fn new(
        source: Source,
        configured: Configured,
        portal_group: u16,
        leaving: watch::Receiver<bool>,
        alive: mpsc::Sender<()>,
    ) -> Self {
        Self {
            source,
            configured,
            portal_group,
            leaving,
            alive,
            known: RefCell::default(),
        }
    }

    /// Hands a connection to its target's thread, which is started if it is not there.
    pub(super) async fn hand_over(&self, target: String, newcomer: Newcomer) -> Result<(), ConnectionError> {
        let present = self
            .known
            .borrow()
            .get(&target)
            .filter(|way| !way.is_closed())
            .cloned();
        let way = match present {
            Some(way) => way,
            None => self.start(target)?,
        };
        // A thread that ended just now leaves the initiator to come again, as it does after any loss.
        way.send(newcomer).await.map_err(|_| Refusal::Unavailable.into())
    }

    fn start(&self, name: String) -> Result<mpsc::Sender<Newcomer>, ConnectionError> {
        let (way, newcomers) = mpsc::channel(NEWCOMERS_MAX);
        target::start(
            name.clone(),
            self.portal_group,
            self.source.clone(),
            self.configured.clone(),
            newcomers,
            self.leaving.clone(),
            self.alive.clone(),
        )?;
        let mut known = self.known.borrow_mut();
        known.retain(|_, way| !way.is_closed());
        known.insert(name, way.clone());
        Ok(way)
    }
}
