//! Asks other services of the cloud: HTTP and HTTPS, JSON in and out, with a limit on how long and how large an answer is.
//!
//! Bodies of images go through piece by piece ([`HttpClient::download`], [`HttpClient::upload`]); they may take as long as
//! they need, but not stand still.
//!
//! Not reqwest, which the rest of the project uses for its unix sockets: its TLS would have to be switched on for all
//! programs, and then none of their clients could be made without a provider of cryptography.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::sync::mpsc;

/// How long an answer may take, with all of its body.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a connection may take to open.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: a token with a large cloud's catalogue is some hundred thousand.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long a body that goes through piece by piece may stand still.
const STALL_TIME_MAX: Duration = Duration::from_mins(1);
/// How long the answer may take after the last piece of a body: who takes it in may still have to store it.
const STORED_TIME_MAX: Duration = Duration::from_mins(10);

/// How much of a refusal's body is repeated to people.
const BEGINNING_CHARACTERS: usize = 200;

/// A body that is sent: whole, or piece by piece.
type Sent = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Sent>);

/// A body that is read piece by piece.
#[derive(Debug)]
pub struct Download(Incoming);

impl Download {
    /// The next piece; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        loop {
            let frame = tokio::time::timeout(STALL_TIME_MAX, self.0.frame()).await;
            let frame = frame.map_err(|_| stalled())?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(NoAnswer(innermost(&error))),
                // What comes besides data means nothing here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

fn stalled() -> NoAnswer {
    NoAnswer(format!("the body stood still for {} s", STALL_TIME_MAX.as_secs()))
}

/// An answer, wholly read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Bytes,
}

/// Why there is no answer: a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

impl HttpClient {
    /// One that trusts the system's authorities, and those of a PEM file.
    pub fn new(more_authorities: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = more_authorities {
            for certificate in CertificateDer::pem_file_iter(path)? {
                roots.add(certificate?)?;
            }
        }
        let provider = rustls::crypto::ring::default_provider().into();
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Asks, and reads the answer, whatever its status.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, NoAnswer> {
        let mut all = headers.to_vec();
        if body.is_some() {
            all.push((header::CONTENT_TYPE.as_str(), "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, url, &all, body.into(), ANSWER_TIME_MAX).await
    }

    /// Sends a body as a whole, and reads the answer, whatever its status; all within a time.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        time_max: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).map_err(|error| NoAnswer(error.to_string()))?;
        let answered = tokio::time::timeout(time_max, self.exchange(request)).await;
        answered.unwrap_or_else(|_| Err(NoAnswer(format!("no answer within {} s", time_max.as_secs()))))
    }

    /// Asks for a body that is too large for memory. The status is the caller's to look at.
    pub async fn download(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<(StatusCode, Download), NoAnswer> {
        let mut request = Request::builder().method(Method::GET).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let nothing = Full::default().map_err(|never| match never {}).boxed_unsync();
        let request = request
            .body(nothing)
            .map_err(|error| NoAnswer(error.to_string()))?;
        let asked = tokio::time::timeout(STALL_TIME_MAX, self.0.request(request)).await;
        let response = asked
            .map_err(|_| stalled())?
            .map_err(|error| NoAnswer(innermost(&error)))?;
        let (parts, body) = response.into_parts();
        Ok((parts.status, Download(body)))
    }

    /// Sends a body piece by piece, as `pieces` gives them; an error among them breaks it off. Whoever gives them sees that
    /// nobody takes them any more when the answer is there.
    pub async fn upload(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder().method(Method::PUT).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (moved, mut moves) = tokio::sync::watch::channel(());
        let frames = stream::unfold((pieces, moved), |(mut pieces, moved)| async move {
            let piece = pieces.recv().await?;
            let _ = moved.send(());
            Some((piece.map(Frame::data), (pieces, moved)))
        });
        let request = request
            .body(StreamBody::new(frames).boxed_unsync())
            .map_err(|error| NoAnswer(error.to_string()))?;
        let mut answered = std::pin::pin!(self.exchange(request));
        loop {
            // When the body is over, or is dropped, the sender of moves goes away.
            let moved = async {
                match tokio::time::timeout(STALL_TIME_MAX, moves.changed()).await {
                    Ok(Ok(())) => Ok(true),
                    Ok(Err(_)) => Ok(false),
                    Err(_) => Err(stalled()),
                }
            };
            let goes_on = tokio::select! {
                answer = &mut answered => return answer,
                moved = moved => moved?,
            };
            if !goes_on {
                let answered = tokio::time::timeout(STORED_TIME_MAX, answered).await;
                return answered.unwrap_or_else(|_| Err(stalled()));
            }
        }
    }

    async fn exchange(&self, request: Request<Sent>) -> Result<Answer, NoAnswer> {
        let response = self
            .0
            .request(request)
            .await
            .map_err(|error| NoAnswer(innermost(&error)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| NoAnswer(error.to_string()))?.to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

impl Answer {
    /// The answer as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, NoAnswer> {
        serde_json::from_slice(&self.body)
            .map_err(|error| NoAnswer(format!("its answer cannot be read: {error}")))
    }

    /// Its body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Its body as text.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// How its body begins, for people.
    pub fn beginning(&self) -> String {
        self.text().chars().take(BEGINNING_CHARACTERS).collect()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// An error's innermost cause: the outer ones only say that there was one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
