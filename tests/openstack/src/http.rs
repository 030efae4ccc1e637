//! Asks over HTTP, as a test does: one question, its whole answer. It does not know who answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
pub use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// How long an answer may take: the first question makes some servers load half of what they are.
const PATIENCE: Duration = Duration::from_mins(1);

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
    bytes: Option<(String, Vec<u8>)>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, if that is JSON; else null.
    pub body: Value,
    /// Its body as text.
    pub text: String,
    /// Its body as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// A header's value, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Question {
    /// Asks what is at an address.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    /// A question without a body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: None,
            bytes: None,
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// In the name of whom this token is for.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("X-Auth-Token", token)
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// With a body that is no JSON, and its type.
    #[must_use]
    pub fn bytes(mut self, kind: &str, bytes: Vec<u8>) -> Self {
        self.bytes = Some((kind.to_owned(), bytes));
        self
    }

    /// Asks; any status is an answer.
    pub fn ask(&self) -> Result<Answer> {
        // A thread of its own, because an asynchronous test has a runtime in this one, which would mind another.
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(self.answer())
            });
            asking.join().ok().context("asking ended in a panic")?
        })
        .with_context(|| format!("{} {}", self.method, self.url))
    }

    /// Asks; the answer must have this status.
    pub fn expect(&self, status: u16) -> Result<Answer> {
        let answer = self.ask()?;
        ensure!(
            answer.status == status,
            "{} {} gave {} and not {status}: {}",
            self.method,
            self.url,
            answer.status,
            answer.text
        );
        Ok(answer)
    }

    async fn answer(&self) -> Result<Answer> {
        // Where another crate of the build wants TLS of reqwest, every client needs to know whose. A second one is refused.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let mut request = client.request(self.method.clone(), &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        if let Some((kind, bytes)) = &self.bytes {
            request = request.header("Content-Type", kind).body(bytes.clone());
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?.to_vec();
        Ok(Answer {
            status,
            headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        })
    }
}
