//! One `storaged`: questions go out as JSON over its admin socket, answers and refusals come back typed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use admin_api::{ErrorBody, ErrorKind};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long an answer may take that is not waited for: the coordination store may be electing a leader.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
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

    /// What `storaged` says about why not, if it says anything.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(body) => Some(body.kind),
            _ => None,
        }
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(body) if body.kind == ErrorKind::NotFound)
    }
}

/// Who wants to know of every question: whether it had a good answer, and how long that took.
pub type Observer = fn(Result<(), &AskError>, Duration);

/// Asks one `storaged`. Cheap to clone; any number of questions may be under way.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    client: Client,
    socket: PathBuf,
    observer: Option<Observer>,
}

impl Asker {
    /// The `storaged` whose admin socket this is. Does not connect yet.
    pub(crate) fn new(socket: &Path) -> Result<Self, AskError> {
        let builder = Client::builder().connect_timeout(CONNECT_TIME_MAX).no_proxy();
        match builder.unix_socket(socket).build() {
            Ok(client) => Ok(Self {
                client,
                socket: socket.to_owned(),
                observer: None,
            }),
            Err(error) => Err(AskError::Broken {
                socket: socket.to_owned(),
                reason: error.to_string(),
            }),
        }
    }

    /// The same, with somebody who is told of every question.
    pub(crate) fn observed_by(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Asks, and reads the answer.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<A, AskError> {
        let bytes = self.ask_bytes(method, path, body, limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error.to_string()))
    }

    /// Asks where the answer says nothing but that it was done.
    pub(crate) async fn ask_silently(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<(), AskError> {
        self.ask_bytes(method, path, None::<&()>, limit).await.map(|_| ())
    }

    async fn ask_bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let began = Instant::now();
        let answer = self.exchange(method, path, body, limit).await;
        if let Some(observer) = self.observer {
            observer(answer.as_ref().map(|_| ()), began.elapsed());
        }
        answer
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let url = format!("http://storaged{path}");
        let mut request = self.client.request(method, url).timeout(limit);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let bytes = self.read(answer).await?;
        if status.is_success() {
            return Ok(bytes);
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
