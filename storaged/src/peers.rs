//! Asks other nodes what only they know, and is asked: HTTP at the node's own port, between nodes of one authority.
//!
//! Nothing of it is on the way of a read or a write, and nothing waits for a node that does not answer: the asker
//! says so, in a sentence, and goes on. What is asked is in [`words`], what is answered in `crate::admin`; where the
//! port is, is not known here.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use admin_api::ErrorBody;
use bytes::Bytes;
use client::transport::{CredentialsWatch, Role};
use coordination::map::MapWatch;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use protocol::NodeId;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub mod gate;
pub mod survey;
mod usage;
pub mod words;

/// How long one question may take, from the connection to the end of the answer. A node asks its own disks for a
/// second at most ([`crate::disks`]); the rest is for the way.
pub const ASK_LIMIT: Duration = Duration::from_millis(1500);
/// Nodes that are asked at the same time.
const ASKED_MAX: usize = 64;
/// The longest answer, in bytes: the report of a check with all its findings, or some hundred disks.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why another node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// Its lease has lapsed, or it is no node of the cluster.
    #[error("it is down")]
    Down,
    /// Nobody knows where to ask it.
    #[error("it does not say where it can be asked (`listen` in its section [cluster])")]
    NoAddress,
    /// Nothing came in time.
    #[error("it did not answer within {} ms", ASK_LIMIT.as_millis())]
    Late,
    /// The connection did not come about, or broke.
    #[error("it cannot be asked: {0}")]
    Broken(String),
    /// It answered that it does not.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<hyper::Error> for Silence {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// The way to other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    map: MapWatch,
    /// What is shown to them; nothing where nodes speak in plaintext.
    credentials: Option<CredentialsWatch>,
}

impl Peers {
    /// Finds nodes in this map, and shows them the newest of these.
    pub fn new(map: MapWatch, credentials: Option<CredentialsWatch>) -> Self {
        Self { map, credentials }
    }

    /// Asks a node for what is at a path.
    pub async fn get<T: DeserializeOwned>(&self, node: NodeId, path: &str) -> Result<T, Silence> {
        self.ask(node, Method::GET, path, Vec::new()).await
    }

    /// Asks a node to do something.
    pub async fn post<T: DeserializeOwned>(
        &self,
        node: NodeId,
        path: &str,
        words: &(impl Serialize + Sync),
    ) -> Result<T, Silence> {
        let body = serde_json::to_vec(words).map_err(|error| Silence::Broken(error.to_string()))?;
        self.ask(node, Method::POST, path, body).await
    }

    /// Asks nodes for what is at a path, all at once. Whoever has not answered when all have had their time has not
    /// answered; why, is said in a sentence.
    pub async fn ask_all<T: DeserializeOwned + Send + 'static>(
        &self,
        nodes: Vec<NodeId>,
        path: &str,
    ) -> BTreeMap<NodeId, Result<T, String>> {
        let late = || Err(Silence::Late.to_string());
        let mut answers: BTreeMap<_, _> = nodes.iter().map(|node| (*node, late())).collect();
        let places = Arc::new(Semaphore::new(ASKED_MAX));
        let mut asked = JoinSet::new();
        for node in nodes {
            let (peers, places, path) = (self.clone(), places.clone(), path.to_owned());
            asked.spawn(async move {
                // It is never closed.
                let _place = places.acquire().await;
                (node, peers.get::<T>(node, &path).await)
            });
        }
        let gather = async {
            while let Some(answered) = asked.join_next().await {
                if let Ok((node, answer)) = answered {
                    answers.insert(node, answer.map_err(|silence| silence.to_string()));
                }
            }
        };
        let _ = timeout(ASK_LIMIT, gather).await;
        answers
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        node: NodeId,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Silence> {
        let at = self.address(node)?;
        let asked = async {
            let stream = TcpStream::connect(&at).await?;
            let name = Role::Node(node.0).name();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, &name)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body)))
                .map_err(|error| Silence::Broken(error.to_string()))?;
            let credentials = self.credentials.as_ref().map(|newest| newest.borrow().clone());
            let Some(credentials) = credentials else {
                return converse(stream, request).await;
            };
            let name = ServerName::try_from(name).map_err(|error| Silence::Broken(error.to_string()))?;
            let connector = TlsConnector::from(credentials.connecting());
            converse(connector.connect(name, stream).await?, request).await
        };
        timeout(ASK_LIMIT, asked).await.map_err(|_| Silence::Late)?
    }

    /// Where a node that is up is asked.
    fn address(&self, node: NodeId) -> Result<String, Silence> {
        let map = self.map.current();
        let known = map.nodes().get(&node).filter(|_| map.up().contains_key(&node));
        let addresses = &known.ok_or(Silence::Down)?.record.addresses;
        let at = addresses.iter().find_map(|address| address.strip_prefix("tcp:"));
        at.map(str::to_owned).ok_or(Silence::NoAddress)
    }
}

/// One question and its answer over a connection that is for them alone.
async fn converse<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<T, Silence> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with this conversation, however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body
        .map_err(|error| Silence::Broken(error.to_string()))?
        .to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| Silence::Broken(error.to_string()));
    }
    let refusal = serde_json::from_slice(&body);
    Err(refusal.map_or_else(
        |_| Silence::Broken(format!("it answered {status}")),
        Silence::Refused,
    ))
}

#[cfg(test)]
mod tests;
