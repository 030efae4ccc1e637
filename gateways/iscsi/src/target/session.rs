//! A session: one initiator's connections to a target, with one order of commands.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::login::parameters::Parameters;
use crate::reservation::Nexus;
use crate::session::numbers::CommandNumbers;

/// See the module.
pub struct Session {
    /// Our part of its name; never 0.
    pub tsih: u16,
    /// The initiator's part.
    pub isid: [u8; 6],
    /// The path that it is to every unit.
    pub nexus: Nexus,
    /// What its first connection agreed on.
    pub parameters: Parameters,
    /// The order of its commands.
    pub numbers: RefCell<CommandNumbers>,
    /// The order went on: whoever waits for its turn looks again.
    pub went_on: Notify,
    /// Its connections, each with what ends it.
    connections: RefCell<BTreeMap<u16, watch::Sender<bool>>>,
    stay: watch::Sender<Stay>,
}

/// How long a session may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// As long as it likes.
    Welcome,
    /// The initiator is to log out, within [`LOG_OUT_LIMIT`].
    AskedToLeave,
    /// It ends now, and the initiator is told.
    Dismissed,
    /// It ends now. The initiator knows, or is not there.
    Over,
}

/// How long an initiator that is asked to log out may take for it.
pub const LOG_OUT_LIMIT: Duration = Duration::from_secs(3);

impl Session {
    /// A session without connections.
    pub fn new(tsih: u16, isid: [u8; 6], nexus: Nexus, parameters: Parameters, first_command: u32) -> Self {
        Self {
            tsih,
            isid,
            nexus,
            parameters,
            numbers: RefCell::new(CommandNumbers::new(first_command)),
            went_on: Notify::new(),
            connections: RefCell::default(),
            stay: watch::Sender::new(Stay::Welcome),
        }
    }

    /// Adds a connection. One of the same name, which the initiator has given up, ends. Nothing if there are too many.
    pub fn join(&self, connection: u16) -> Option<watch::Receiver<bool>> {
        let mut connections = self.connections.borrow_mut();
        let known = connections.contains_key(&connection);
        let most = usize::try_from(self.parameters.connections_max).unwrap_or(usize::MAX);
        if !known && connections.len() >= most {
            return None;
        }
        let (end, ended) = watch::channel(false);
        if let Some(former) = connections.insert(connection, end) {
            former.send_replace(true);
        }
        Some(ended)
    }

    /// A connection is over. Says whether it was the last one.
    pub fn leave(&self, connection: u16, ended: &watch::Receiver<bool>) -> bool {
        let mut connections = self.connections.borrow_mut();
        // One that took its name is left alone.
        if connections
            .get(&connection)
            .is_some_and(|end| end.subscribe().same_channel(ended))
        {
            connections.remove(&connection);
        }
        connections.is_empty()
    }

    /// Ends one connection; says whether there was one.
    pub fn end_connection(&self, connection: u16) -> bool {
        let connections = self.connections.borrow();
        connections.get(&connection).is_some_and(|end| {
            end.send_replace(true);
            true
        })
    }

    /// It may stay no longer than this.
    pub fn limit(&self, stay: Stay) {
        self.stay.send_if_modified(|present| {
            let shorter = *present < stay;
            *present = stay.max(*present);
            shorter
        });
    }

    /// How long it may stay, now and later.
    pub fn stay(&self) -> watch::Receiver<Stay> {
        self.stay.subscribe()
    }
}
