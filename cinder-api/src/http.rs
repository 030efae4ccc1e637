//! Asks other services of the cloud: HTTP and HTTPS, JSON in and out, with a limit on how long and how large an answer is.
//!
//! Not reqwest, which the rest of the project uses for its unix sockets: its TLS would have to be switched on for all
//! programs, and then none of their clients could be made without a provider of cryptography.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// How long an answer may take, with all of its body.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a connection may take to open.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: a token with a large cloud's catalogue is some hundred thousand.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A client. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

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
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(Full::from(body))
            .map_err(|error| NoAnswer(error.to_string()))?;
        let answered = tokio::time::timeout(ANSWER_TIME_MAX, self.exchange(request)).await;
        answered.unwrap_or_else(|_| {
            Err(NoAnswer(format!(
                "no answer within {} s",
                ANSWER_TIME_MAX.as_secs()
            )))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
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
