//! What gateways ask of the `storaged` of their node, over its admin socket: which iSCSI targets there are, and what they
//! keep there of portals and reservations.
//!
//! What follows from the answers, and when to ask again, is the gateway's business. People ask with `storagectl`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use admin_api::iscsi::{AnnouncePortals, Configuration, PortalList, Reservations, WAIT_MS_MAX};
use admin_api::routes::{self, fill};
use admin_api::{ErrorBody, ErrorKind};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long an answer may take that is not waited for: the coordination store may be electing a leader.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a connection may take to open: the server is on this host.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: a thousand targets with a hundred initiators each, with room to spare.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// `storaged` understood, and says no.
    #[error("storaged refuses: {0}")]
    Refused(ErrorBody),
    /// There is no `storaged`, or it went away. A change that was asked for may have been made: read it back.
    #[error("cannot reach storaged at {}: {reason}. Is it running?", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// The answer is not one of this API.
    #[error("{} does not answer as storaged does: {reason}. Is it another version?", socket.display())]
    Broken {
        /// Who answered.
        socket: PathBuf,
        /// What was seen.
        reason: String,
    },
}

impl AskError {
    /// Whether what was to be changed is not what it was made from any more: read it, and decide again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(body) if body.kind == ErrorKind::Conflict)
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(body) if body.kind == ErrorKind::NotFound)
    }
}

/// Asks one `storaged`. Cheap to clone; any number of questions may be under way.
#[derive(Clone, Debug)]
pub struct IscsiDirectory {
    client: Client,
    socket: PathBuf,
}

impl IscsiDirectory {
    /// The `storaged` whose admin socket this is. Does not connect yet.
    pub fn new(socket: &Path) -> Result<Self, AskError> {
        let builder = Client::builder().connect_timeout(CONNECT_TIME_MAX).no_proxy();
        match builder.unix_socket(socket).build() {
            Ok(client) => Ok(Self {
                client,
                socket: socket.to_owned(),
            }),
            Err(error) => Err(AskError::Broken {
                socket: socket.to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    /// All targets and portals, with secrets. At once without `after`, or if the revision is another one; otherwise when
    /// something changes, or after `wait`, at most [`WAIT_MS_MAX`].
    pub async fn configuration(&self, after: Option<u64>, wait: Duration) -> Result<Configuration, AskError> {
        self.wait_for(routes::ISCSI_CONFIGURATION, after, wait).await
    }

    /// Says where this gateway serves: again every [`admin_api::iscsi::PORTAL_RENEWAL_MS`], or it is forgotten.
    pub async fn announce(&self, portals: &AnnouncePortals) -> Result<PortalList, AskError> {
        let request = Some(portals);
        self.ask(Method::PUT, routes::ISCSI_PORTALS, request, ANSWER_TIME_MAX)
            .await
    }

    /// The reservations of a LUN's volume. Without `after` they are read from the coordination store as it is now;
    /// otherwise as [`IscsiDirectory::configuration`].
    pub async fn reservations(
        &self,
        volume: u64,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<Reservations, AskError> {
        let path = fill(routes::ISCSI_RESERVATIONS, &[&volume.to_string()]);
        self.wait_for(&path, after, wait).await
    }

    /// Keeps these reservations, if those of their revision are still kept. Returns them with their new revision.
    pub async fn set_reservations(&self, volume: u64, to: &Reservations) -> Result<Reservations, AskError> {
        let path = fill(routes::ISCSI_RESERVATIONS, &[&volume.to_string()]);
        self.ask(Method::PUT, &path, Some(to), ANSWER_TIME_MAX).await
    }

    async fn wait_for<A: DeserializeOwned>(
        &self,
        path: &str,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<A, AskError> {
        let wait_ms = u64::try_from(wait.as_millis())
            .unwrap_or(WAIT_MS_MAX)
            .min(WAIT_MS_MAX);
        let limit = ANSWER_TIME_MAX + Duration::from_millis(wait_ms);
        let path = match after {
            Some(after) => format!("{path}?after={after}&wait_ms={wait_ms}"),
            None => path.to_owned(),
        };
        self.ask(Method::GET, &path, None::<&()>, limit).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<A, AskError> {
        let url = format!("http://storaged{path}");
        let mut request = self.client.request(method, url).timeout(limit);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let bytes = self.read(answer).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.broken(error.to_string()));
        }
        Err(self.refusal(status, &bytes))
    }

    async fn read(&self, mut answer: Response) -> Result<Vec<u8>, AskError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.broken(format!("its answer has more than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> AskError {
        match serde_json::from_slice::<ErrorBody>(bytes) {
            Ok(body) => AskError::Refused(body),
            Err(_) => self.broken(format!("status {status}")),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> AskError {
        // The outermost error repeats the URL; the innermost one says what happened.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        AskError::Unreachable {
            socket: self.socket.clone(),
            reason: cause.to_string(),
        }
    }

    fn broken(&self, reason: String) -> AskError {
        AskError::Broken {
            socket: self.socket.clone(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Who does not answer is named. Answers of a real `storaged` are in its own tests.
    use super::*;

    #[tokio::test]
    async fn a_storaged_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let directory = IscsiDirectory::new(&folder.path().join("none.sock")).unwrap();
        let error = directory.configuration(None, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, AskError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("none.sock"), "{error}");
    }
}
