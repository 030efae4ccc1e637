//! Asks the admin API over its unix socket, or over TCP where it listens there.

use std::path::PathBuf;
use std::time::Duration;

use admin_api::ErrorBody;
use reqwest::{Client, Method, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long an answer may take. The longest that the server holds one back is a minute, and a
/// snapshot of a busy volume waits for its writes.
const ANSWER_TIME_MAX: Duration = Duration::from_mins(2);
/// A drain is answered when its requests are, at the latest when its limit is over.
const LONGEST_HOLD: Duration = Duration::from_millis(admin_api::vhost::HOLD_MS_MAX);
/// Front ends tell their figures at once, or stand still: then the others are shown without them.
const FIGURES_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a connection may take to open: the server is on this host or near.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The most bytes of an answer that is not one of ours which are shown.
const STRANGE_BYTES_MAX: usize = 200;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The server understood, and says no.
    #[error("{0}")]
    Refused(ErrorBody),
    /// There is no server, or it went away.
    #[error("cannot reach {server} at {place}: {reason}. {}", server.advice())]
    Unreachable {
        /// Who.
        server: Server,
        /// Where it was looked for.
        place: String,
        /// What was seen.
        reason: String,
    },
    /// The answer is not one of this API.
    #[error("{place} does not answer as {server} does: {reason}. Is it another program, or another version?")]
    Broken {
        /// Who should have.
        server: Server,
        /// Who answered.
        place: String,
        /// What was seen.
        reason: String,
    },
}

/// Where the admin API is: `--socket` as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A unix socket.
    Socket(PathBuf),
    /// `http://host:port`.
    Url(String),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") {
            return Ok(Self::Url(text.trim_end_matches('/').to_owned()));
        }
        if text.starts_with("https://") {
            return Err(
                "storagectl asks the storaged of its own host, by its socket or http://: from elsewhere, run it there \
                 with ssh. Programs ask with https:// and an access token (`storagectl access --help`)"
                    .into(),
            );
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.is_empty() {
            Err("a path or http://HOST:PORT is needed".into())
        } else {
            Ok(Self::Socket(path.into()))
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `storaged`, on its admin API.
    Storaged,
    /// A `vhost-blk`, on its control socket.
    VhostBlk,
    /// Some front end, on its control socket.
    FrontEnd,
}

impl Server {
    fn advice(self) -> &'static str {
        match self {
            Self::Storaged => "Is it running? Name its admin socket with --socket or STORAGED_ADMIN",
            Self::VhostBlk | Self::FrontEnd => "Is it running, as the same user, with --control unix:PATH?",
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Storaged => "storaged",
            Self::VhostBlk => "vhost-blk",
            Self::FrontEnd => "a front end",
        })
    }
}

/// A client of one server.
pub(crate) struct Api {
    server: Server,
    client: Client,
    base: String,
    place: Place,
}

impl Api {
    /// A client for the `storaged` there. Does not connect yet.
    pub(crate) fn new(place: Place) -> Result<Self, ApiError> {
        Self::of(Server::Storaged, place, ANSWER_TIME_MAX)
    }

    /// A client for the `vhost-blk` there. Does not connect yet.
    pub(crate) fn of_vhost_blk(place: Place) -> Result<Self, ApiError> {
        Self::of(Server::VhostBlk, place, ANSWER_TIME_MAX + LONGEST_HOLD)
    }

    /// A client for the front end there, to ask for figures. Does not connect yet.
    pub(crate) fn of_front_end(place: Place) -> Result<Self, ApiError> {
        Self::of(Server::FrontEnd, place, FIGURES_TIME_MAX)
    }

    fn of(server: Server, place: Place, answer_time_max: Duration) -> Result<Self, ApiError> {
        let mut builder = Client::builder()
            .timeout(answer_time_max)
            .connect_timeout(CONNECT_TIME_MAX)
            .no_proxy();
        let base = match &place {
            Place::Socket(path) => {
                builder = builder.unix_socket(path.as_path());
                "http://storaged".to_owned()
            }
            Place::Url(url) => url.clone(),
        };
        match builder.build() {
            Ok(client) => Ok(Self {
                server,
                client,
                base,
                place,
            }),
            Err(error) => Err(ApiError::Broken {
                server,
                place: place.to_string(),
                reason: error.to_string(),
            }),
        }
    }

    /// Where the server is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Asks for a thing.
    pub(crate) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ApiError> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Asks for something to be made or done.
    pub(crate) async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, ApiError> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Asks for a thing to be as is said.
    pub(crate) async fn put<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, ApiError> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Asks for a thing to be changed.
    pub(crate) async fn patch<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, ApiError> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// Asks for a thing to be deleted.
    pub(crate) async fn delete<A: DeserializeOwned>(&self, path: &str) -> Result<A, ApiError> {
        self.ask(Method::DELETE, path, None::<&()>).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, ApiError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    async fn read<A: DeserializeOwned>(&self, response: Response) -> Result<A, ApiError> {
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            // An answer without a body reads as null, which is what `()` is.
            let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(text).map_err(|error| self.broken(&error.to_string()));
        }
        if let Ok(body) = serde_json::from_slice::<ErrorBody>(&bytes) {
            return Err(ApiError::Refused(body));
        }
        let start = bytes.get(..STRANGE_BYTES_MAX).unwrap_or(&bytes);
        Err(self.broken(&format!(
            "status {status} with {:?}",
            String::from_utf8_lossy(start)
        )))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        // The outermost error repeats the URL; the innermost one says what happened.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        ApiError::Unreachable {
            server: self.server,
            place: self.place.to_string(),
            reason: cause.to_string(),
        }
    }

    fn broken(&self, reason: &str) -> ApiError {
        ApiError::Broken {
            server: self.server,
            place: self.place.to_string(),
            reason: reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What people write as an address is what is connected to.
    use super::*;

    #[test]
    fn an_address_is_a_path_or_a_url() {
        assert_eq!("/run/a.sock".parse(), Ok(Place::Socket("/run/a.sock".into())));
        assert_eq!(
            "unix:/run/a.sock".parse(),
            Ok(Place::Socket("/run/a.sock".into()))
        );
        assert_eq!(
            "http://127.0.0.1:7000/".parse(),
            Ok(Place::Url("http://127.0.0.1:7000".into()))
        );
        assert!("https://127.0.0.1".parse::<Place>().is_err());
        assert!("".parse::<Place>().is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let api = Api::new(Place::Socket(folder.path().join("none.sock"))).unwrap();
        let error = api.get::<()>("/v1/status").await.unwrap_err();
        assert!(matches!(error, ApiError::Unreachable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("none.sock") && text.contains("STORAGED_ADMIN"),
            "{text}"
        );
    }
}
