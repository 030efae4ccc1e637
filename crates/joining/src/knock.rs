//! The side of the machine that is not yet a node: connects to where the token says, makes sure that the cluster
//! of the token is there, and only then shows the secret.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::NAME;
use crate::message::{ANSWER_LENGTH, Answer, Bundle, Question, Refusal};
use crate::token::{Fingerprint, Token};

/// How long it may take to reach a node and to know it.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// How long the answer may take: the node asks the coordination store, which may have to choose a leader.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What a machine comes back with.
#[derive(Debug)]
pub struct Admitted {
    /// What it needs to become a node.
    pub bundle: Box<Bundle>,
    /// Which node let it in.
    pub door: String,
    /// Our own address on the way there: other nodes reach this machine by it too, unless a network translates.
    pub own_address: IpAddr,
}

/// Why a machine was not let in.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    /// Nobody is there.
    #[error(
        "cannot reach the node that made the token: {0}. Is its storaged running, and is the port open to this \
         machine? The token was not used"
    )]
    Unreachable(String),
    /// Somebody else is there.
    #[error(
        "who answers at {address} is not of the cluster that the token is for ({reason}). Nothing was sent to him, \
         and the token was not used"
    )]
    Impostor {
        /// Where.
        address: String,
        /// What does not fit.
        reason: String,
    },
    /// The certificates are of another time.
    #[error(
        "the certificate of {address} is not good at this time ({reason}): set this machine's clock, and that \
         one's. The token was not used"
    )]
    Clock {
        /// Where.
        address: String,
        /// What does not fit.
        reason: String,
    },
    /// The cluster says no.
    #[error("{sentence}")]
    Refused {
        /// Why, for programs.
        refusal: Refusal,
        /// Why, for people.
        sentence: String,
    },
    /// The connection ended too early.
    #[error(
        "{address} gave no whole answer ({reason}). The token may be used up: `storagectl cluster tokens` on a \
         node shows that. Nothing was written here"
    )]
    Lost {
        /// Where.
        address: String,
        /// What was seen.
        reason: String,
    },
}

/// Asks to be let in, as a machine of this name, at the first of the token's addresses where somebody is. What it
/// returns has the authority that the token names.
pub async fn knock(token: &Token, name: &str) -> Result<Admitted, KnockError> {
    let mut missed = Vec::new();
    for address in &token.addresses {
        match timeout(REACH_LIMIT, TcpStream::connect(address.as_str())).await {
            Ok(Ok(stream)) => return ask(token, name, address, stream).await,
            Ok(Err(error)) => missed.push(format!("{address}: {error}")),
            Err(_) => missed.push(format!("{address}: nobody answers")),
        }
    }
    Err(KnockError::Unreachable(missed.join(", ")))
}

async fn ask(token: &Token, name: &str, address: &str, stream: TcpStream) -> Result<Admitted, KnockError> {
    let lost = |reason: String| KnockError::Lost {
        address: address.to_owned(),
        reason,
    };
    let unreachable = |error: &dyn std::error::Error| KnockError::Unreachable(format!("{address}: {error}"));
    let own_address = stream.local_addr().map_err(|error| unreachable(&error))?.ip();
    let question = Question {
        id: token.id,
        secret: token.secret.clone(),
        name: name.to_owned(),
    };
    let question = question.encode().map_err(|error| unreachable(&error))?;
    let connector = connector(token.authority).map_err(|error| unreachable(&error))?;
    let server = ServerName::try_from(NAME).map_err(|error| unreachable(&error))?;
    // With TLS 1.3 the server is known for certain when this returns, and nothing of ours was sent before.
    let mut stream = match timeout(REACH_LIMIT, connector.connect(server, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(mistrust(address, &error)),
        Err(_) => return Err(KnockError::Unreachable(format!("{address}: nobody answers"))),
    };
    let answer = timeout(ANSWER_LIMIT, converse(&mut stream, &question)).await;
    let answer = answer.map_err(|_| lost("it takes too long".to_owned()))?;
    match answer.map_err(|error| lost(error.to_string()))? {
        Answer::Refused(refusal, sentence) => Err(KnockError::Refused { refusal, sentence }),
        Answer::Granted(bundle) if is_of(&bundle, token.authority) => Ok(Admitted {
            bundle,
            door: address.to_owned(),
            own_address,
        }),
        Answer::Granted(_) => Err(lost("it hands over another authority than its own".to_owned())),
    }
}

async fn converse(stream: &mut TlsStream<TcpStream>, question: &[u8]) -> io::Result<Answer> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    stream.write_all(question).await?;
    stream.flush().await?;
    let mut head = [0; ANSWER_LENGTH];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; Answer::body_length(&head).map_err(invalid)?];
    stream.read_exact(&mut body).await?;
    Answer::decode(&head, &body).map_err(invalid)
}

fn is_of(bundle: &Bundle, authority: Fingerprint) -> bool {
    CertificateDer::from_pem_slice(bundle.certificate.as_bytes())
        .is_ok_and(|certificate| Fingerprint::of(&certificate) == authority)
}

fn mistrust(address: &str, error: &io::Error) -> KnockError {
    let address = address.to_owned();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let reason = error.to_string();
    match inner {
        Some(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => KnockError::Clock { address, reason },
        Some(_) => KnockError::Impostor { address, reason },
        None => KnockError::Unreachable(format!("{address}: {reason}")),
    }
}

fn connector(authority: Fingerprint) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(ByFingerprint {
        authority,
        provider: Arc::clone(&provider),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Trusts whom an authority vouches for that is known by its fingerprint only: the server shows the authority's
/// certificate along with its own.
#[derive(Debug)]
struct ByFingerprint {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.authority)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
