//! How hosts reach volumes: kinds of connections behind one small trait. `connection_info` of the API is what a kind says.
//!
//! Which attachments there are is [`crate::api::attachments`]' business; a kind only opens and closes ways.

use admin_client::AskError;
use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::records::Volume;
use crate::storage::Storage;

mod iscsi;

pub use iscsi::Iscsi;

/// What a host says of itself: the API's `connector`.
pub type Connector = Map<String, Value>;

/// Why there is no way.
#[derive(Debug)]
pub enum ConnectionError {
    /// The host did not say what is needed.
    Connector(String),
    /// What serves the kind is away.
    Away(String),
    /// The storage refuses.
    Storage(AskError),
}

impl From<AskError> for ConnectionError {
    fn from(error: AskError) -> Self {
        Self::Storage(error)
    }
}

impl From<ConnectionError> for Fault {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Connector(why) => Self::bad_request(format!("Invalid input received: {why}")),
            ConnectionError::Away(why) => Self::unavailable(why),
            ConnectionError::Storage(error @ AskError::Unreachable { .. }) => {
                Self::unavailable(error.to_string())
            }
            ConnectionError::Storage(error) => Self::internal(&error),
        }
    }
}

/// A kind of connections.
#[async_trait]
pub trait Kind: Send + Sync {
    /// Whether it is what a host asks for.
    fn is_for(&self, connector: &Connector) -> bool;

    /// Opens a way for a host, or finds the one that is open. The answer has `driver_volume_type` and the kind's own fields.
    async fn open(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<Map<String, Value>, ConnectionError>;

    /// Closes the way of a host. Nothing to do if there is none.
    async fn close(&self, storage: &Storage, volume: &Volume, connector: &Connector) -> Result<(), AskError>;

    /// Closes every way to a volume.
    async fn withdraw(&self, storage: &Storage, volume: &Volume) -> Result<(), AskError>;
}

/// The kinds that there are, the one for everybody else last.
pub struct Connections(Vec<Box<dyn Kind>>);

impl Connections {
    /// These kinds.
    pub fn new(kinds: Vec<Box<dyn Kind>>) -> Self {
        Self(kinds)
    }

    /// See [`Kind::open`].
    pub async fn open(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<Map<String, Value>, ConnectionError> {
        match self.kind(connector) {
            Some(kind) => kind.open(storage, volume, connector).await,
            None => Err(ConnectionError::Connector(
                "no kind of connection fits the connector".to_owned(),
            )),
        }
    }

    /// See [`Kind::close`].
    pub async fn close(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<(), AskError> {
        match self.kind(connector) {
            Some(kind) => kind.close(storage, volume, connector).await,
            None => Ok(()),
        }
    }

    /// See [`Kind::withdraw`].
    pub async fn withdraw(&self, storage: &Storage, volume: &Volume) -> Result<(), AskError> {
        for kind in &self.0 {
            kind.withdraw(storage, volume).await?;
        }
        Ok(())
    }

    fn kind(&self, connector: &Connector) -> Option<&dyn Kind> {
        self.0
            .iter()
            .find(|kind| kind.is_for(connector))
            .map(AsRef::as_ref)
    }
}
