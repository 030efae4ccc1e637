//! How hosts reach volumes: kinds of connections behind one small trait. `connection_info` of the API is what a kind says.
//!
//! Which attachments there are is [`crate::api::attachments`]' business; a kind only opens and closes ways.

use admin_client::AskError;
use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::records::Volume;
use crate::storage::Storage;

pub mod agent;
mod iscsi;

pub use agent::ByAgent;
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
    /// What it is called: `driver_volume_type`.
    fn name(&self) -> &'static str;

    /// Whether a host has what it needs.
    async fn serves(&self, connector: &Connector) -> Result<bool, ConnectionError>;

    /// Opens a way for a host, or finds the one that is open. The answer has `driver_volume_type` and the kind's own fields.
    async fn open(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<Map<String, Value>, ConnectionError>;

    /// Closes the way of a host; says whether there may have been one.
    async fn close(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
    ) -> Result<bool, ConnectionError>;

    /// Closes every way to a volume.
    async fn withdraw(&self, storage: &Storage, volume: &Volume) -> Result<(), ConnectionError>;
}

/// Which kind a host is to get.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The kind that it has: what is open stays what it is, whatever was configured since.
    pub recorded: Option<&'a str>,
    /// The kind that the volume's type or the configuration wishes for, where the host has what it needs.
    pub wished: Option<&'a str>,
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
        choice: Choice<'_>,
    ) -> Result<Map<String, Value>, ConnectionError> {
        let kind = self.choose(connector, choice).await?;
        kind.open(storage, volume, connector).await
    }

    /// See [`Kind::close`]: of the kind that opened the way, or if nobody wrote that down, of the first that has one.
    pub async fn close(
        &self,
        storage: &Storage,
        volume: &Volume,
        connector: &Connector,
        recorded: Option<&str>,
    ) -> Result<(), ConnectionError> {
        if let Some(name) = recorded {
            return self
                .named(name)?
                .close(storage, volume, connector)
                .await
                .map(drop);
        }
        for kind in &self.0 {
            if kind.close(storage, volume, connector).await? {
                break;
            }
        }
        Ok(())
    }

    /// See [`Kind::withdraw`].
    pub async fn withdraw(&self, storage: &Storage, volume: &Volume) -> Result<(), ConnectionError> {
        for kind in &self.0 {
            kind.withdraw(storage, volume).await?;
        }
        Ok(())
    }

    async fn choose(&self, connector: &Connector, choice: Choice<'_>) -> Result<&dyn Kind, ConnectionError> {
        if let Some(name) = choice.recorded {
            return self.named(name);
        }
        if let Some(name) = choice.wished {
            let wished = self.named(name)?;
            if wished.serves(connector).await? {
                return Ok(wished);
            }
        }
        let kind = self.0.last().map(AsRef::as_ref);
        kind.ok_or_else(|| ConnectionError::Away("No kind of connection is there.".to_owned()))
    }

    fn named(&self, name: &str) -> Result<&dyn Kind, ConnectionError> {
        let kind = self.0.iter().find(|kind| kind.name() == name);
        kind.map(AsRef::as_ref).ok_or_else(|| {
            ConnectionError::Away(format!(
                "This service has no connections of the kind {name}: an operator configures them, or changes the volume's type."
            ))
        })
    }
}
