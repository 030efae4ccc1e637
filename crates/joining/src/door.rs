//! The side of a node that is one already: shows its certificate, reads the question, gives the answer. Whoever asks
//! shows no certificate, for he has none, and can do nothing here but ask that one question.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use rustls::version::TLS13;
use rustls::{ServerConfig, crypto};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::message::{Answer, MessageError, QUESTION_LENGTH, Question};
use crate::token::Fingerprint;

/// Certificates are not of use.
#[derive(Debug, thiserror::Error)]
#[error("certificates for visitors cannot be used: {0}")]
pub struct DoorError(String);

/// What a node shows to those who want to join. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    config: Arc<ServerConfig>,
    authority: Fingerprint,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// TLS 1.3 for visitors that have no certificate, who know the authority by its fingerprint or its certificate: they are shown
/// both, ours and the authority's. `key` is the text of a PEM file.
pub fn serving(
    authority: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: &str,
) -> Result<Arc<ServerConfig>, DoorError> {
    let wrong = |error: &dyn std::error::Error| DoorError(error.to_string());
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| wrong(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate, authority], key)
        .map_err(|error| wrong(&error))?;
    Ok(Arc::new(config))
}

/// A certificate from the text of a PEM file.
pub fn certificate_of(text: &str) -> Result<CertificateDer<'static>, DoorError> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| DoorError(error.to_string()))
}

impl Door {
    /// From the texts of PEM files: the authority's certificate, one that it signed for [`crate::NAME`], and the
    /// key of that.
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Self, DoorError> {
        let authority = certificate_of(authority)?;
        let fingerprint = Fingerprint::of(&authority);
        Ok(Self {
            config: serving(authority, certificate_of(certificate)?, key)?,
            authority: fingerprint,
        })
    }

    /// The authority that a token for this door names.
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// Lets somebody ask: the question, and where its answer goes. The caller limits how long that may take.
    pub async fn hear(&self, stream: TcpStream) -> io::Result<(Question, Asker)> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        self.hear_after(hello).await
    }

    /// The same of somebody whose first words were read already, because others are served at the same port.
    pub async fn hear_after(&self, hello: StartHandshake<TcpStream>) -> io::Result<(Question, Asker)> {
        let mut stream = hello.into_stream(Arc::clone(&self.config)).await?;
        let mut head = [0; QUESTION_LENGTH];
        stream.read_exact(&mut head).await?;
        let mut name = vec![0; Question::name_length(&head).map_err(invalid)?];
        stream.read_exact(&mut name).await?;
        let question = Question::decode(&head, &name).map_err(invalid)?;
        Ok((question, Asker(Box::new(stream))))
    }
}

/// Who waits for an answer.
pub struct Asker(Box<TlsStream<TcpStream>>);

impl Asker {
    /// Gives the answer and takes leave.
    pub async fn answer(mut self, answer: &Answer) -> io::Result<()> {
        self.0.write_all(&answer.encode().map_err(invalid)?).await?;
        self.0.flush().await?;
        self.0.shutdown().await
    }
}

fn invalid(error: MessageError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
