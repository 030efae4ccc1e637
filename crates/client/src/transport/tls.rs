//! TLS 1.3 over TCP for whoever does not wait: bytes go in and come out as the socket allows, and the handshake
//! happens along the way. Both ends show certificates of one authority; what a certificate's bearer may do
//! follows from its name ([`Role`]). Where certificates come from is not known here.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a connection may gather before the socket takes it, in bytes of either kind.
const BUFFER_MAX: usize = 1 << 20;
/// What the names of nodes end with, in certificates.
const NODES: &str = "nodes.storaged";
/// What the names of a node's front ends end with.
const FRONT_ENDS: &str = "front-ends.storaged";

/// What the bearer of a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The `storaged` of a node, by the node's number.
    Node(u32),
    /// A front end of a node, by the node's number.
    FrontEnd(u32),
}

impl Role {
    /// Its name in a certificate.
    pub fn name(&self) -> String {
        match self {
            Self::Node(node) => format!("node-{node}.{NODES}"),
            Self::FrontEnd(node) => format!("node-{node}.{FRONT_ENDS}"),
        }
    }

    /// What has this name.
    pub fn parse(name: &str) -> Option<Self> {
        let (node, kind) = name.strip_prefix("node-")?.split_once('.')?;
        let number = node.parse().ok()?;
        let role = match kind {
            NODES => Self::Node(number),
            FRONT_ENDS => Self::FrontEnd(number),
            _ => return None,
        };
        (role.name() == name).then_some(role)
    }
}

/// A certificate with its key and its authority, ready to be shown and to check others with. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// What the peer is that showed these certificates; nothing if they name no role, or there are none.
pub fn role_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<Role> {
    let leaf = certificates?.first()?;
    let certificate = webpki::EndEntityCert::try_from(leaf).ok()?;
    certificate.valid_dns_names().find_map(Role::parse)
}

/// Credentials are not of use.
#[derive(Debug, thiserror::Error)]
#[error("the certificates of the cluster cannot be used: {0}")]
pub struct CredentialsError(String);

impl Credentials {
    /// From the texts of PEM files: the authority's certificate, our own, and its key.
    pub fn from_pem(authority: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        let wrong = |error: &dyn std::error::Error| CredentialsError(error.to_string());
        let certificates = |text: &str| {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| wrong(&error))
        };
        let private_key = || PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&error));
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root).map_err(|error| wrong(&error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(certificate)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong(&error))?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), private_key()?)
            .map_err(|error| wrong(&error))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| wrong(&error))?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private_key()?)
            .map_err(|error| wrong(&error))?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// For whoever connects without frames: shows the certificate, and accepts the authority's only.
    pub fn connecting(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// For whoever accepts without frames: shows the certificate, and wants one of the authority's.
    pub fn accepting(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

/// See the module.
pub struct TlsSocket {
    stream: TcpStream,
    session: Mutex<Connection>,
}

impl std::fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TlsSocket").field(&self.stream).finish()
    }
}

impl TlsSocket {
    /// Over a connection to a peer that must have this name.
    pub(super) fn client(stream: TcpStream, name: &str, credentials: &Credentials) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(invalid)?;
        let session = ClientConnection::new(Arc::clone(&credentials.client), name).map_err(invalid)?;
        Ok(Self::new(stream, session.into()))
    }

    /// Over a connection that was accepted.
    pub(super) fn server(stream: TcpStream, credentials: &Credentials) -> io::Result<Self> {
        let session = ServerConnection::new(Arc::clone(&credentials.server)).map_err(invalid)?;
        Ok(Self::new(stream, session.into()))
    }

    fn new(stream: TcpStream, mut session: Connection) -> Self {
        session.set_buffer_limit(Some(BUFFER_MAX));
        Self {
            stream,
            session: Mutex::new(session),
        }
    }

    fn session(&self) -> MutexGuard<'_, Connection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_read(&self, spaces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut session = self.session();
        loop {
            match session.reader().read_vectored(spaces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.flush(&mut session)?;
            if session.read_tls(&mut Ready(&self.stream))? == 0 {
                return Ok(0);
            }
            if let Err(error) = session.process_new_packets() {
                // The peer is told why, if it still listens.
                let _ = self.flush(&mut session);
                return Err(invalid(error));
            }
        }
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut session = self.session();
        self.flush(&mut session)?;
        let count = session.writer().write_vectored(slices)?;
        self.flush(&mut session)?;
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// Gives the socket what it takes. What it does not take is still unsent.
    fn flush(&self, session: &mut Connection) -> io::Result<()> {
        while session.wants_write() {
            match session.write_tls(&mut Ready(&self.stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits for the socket that was taken from the writer already.
    pub(super) fn has_unsent(&self) -> bool {
        self.session().wants_write()
    }

    /// Gives the socket what waits for it.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        self.flush(&mut self.session())
    }

    /// What the peer is, once the handshake is done.
    pub(super) fn peer_role(&self) -> Option<Role> {
        role_of(self.session().peer_certificates())
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<()> {
        self.stream.ready(interest).await.map(drop)
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A socket for those who do not wait.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Bytes come through whatever the sizes; who is of another authority, or is not who was looked for, is
    //! refused.
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::super::{Address, Listener, Stream, connect};
    use super::*;

    const NODE: Role = Role::Node(2);

    struct Authority {
        certificate: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let pair = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let certificate = params.self_signed(&pair).unwrap().pem();
            Self {
                certificate,
                issuer: Issuer::new(params, pair),
            }
        }

        fn issue(&self, role: &Role) -> Credentials {
            let pair = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![role.name()]).unwrap();
            let certificate = params.signed_by(&pair, &self.issuer).unwrap().pem();
            Credentials::from_pem(&self.certificate, &certificate, &pair.serialize_pem()).unwrap()
        }
    }

    /// A client that looks for node 2, and whom it meets.
    async fn pair(client: &Credentials, server: &Credentials) -> (TlsSocket, TlsSocket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (out, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let client = TlsSocket::client(out.unwrap(), &NODE.name(), client).unwrap();
        (client, TlsSocket::server(accepted.unwrap().0, server).unwrap())
    }

    async fn interested(socket: &TlsSocket) {
        let interest = if socket.has_unsent() {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        socket.ready(interest).await.unwrap();
        socket.try_flush().unwrap();
    }

    async fn send(socket: &TlsSocket, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || socket.has_unsent() {
            match socket.try_write(&[IoSlice::new(bytes)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Before the handshake is done, what comes moves what goes.
                    let nothing = socket.try_read(&mut [IoSliceMut::new(&mut [0])]);
                    if let Err(error) = nothing
                        && error.kind() != io::ErrorKind::WouldBlock
                    {
                        return Err(error);
                    }
                    if !bytes.is_empty() || socket.has_unsent() {
                        interested(socket).await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn receive(socket: &TlsSocket, count: usize) -> io::Result<Vec<u8>> {
        let mut all = vec![0; count];
        let mut have = 0;
        while have < count {
            match socket.try_read(&mut [IoSliceMut::new(&mut all[have..])]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => have += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => interested(socket).await,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    #[test]
    fn a_role_is_known_by_its_exact_name_only() {
        for role in [Role::Node(2), Role::FrontEnd(77)] {
            assert_eq!(Role::parse(&role.name()), Some(role));
        }
        for name in [
            "node-02.nodes.storaged",
            "node-2.nodes",
            "2.nodes.storaged",
            "node-x.front-ends.storaged",
        ] {
            assert_eq!(Role::parse(name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn more_than_any_buffer_comes_through_and_both_know_each_other() {
        let authority = Authority::new();
        let (front_end, node) = (authority.issue(&Role::FrontEnd(1)), authority.issue(&NODE));
        let (client, server) = pair(&front_end, &node).await;
        let bytes: Vec<u8> = (0..5_u32 << 20)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let (sent, received) = tokio::join!(send(&client, &bytes), receive(&server, bytes.len()));
        sent.unwrap();
        assert!(received.unwrap() == bytes);
        assert_eq!(server.peer_role(), Some(Role::FrontEnd(1)));
        assert_eq!(client.peer_role(), Some(NODE));
    }

    /// A front end that connects to a listener, and what the listener has of it.
    async fn connected(listener: &Listener, credentials: &Credentials) -> (TlsSocket, TlsSocket) {
        let address = listener.address().unwrap();
        let (out, accepted) = tokio::join!(connect(&address, Some(credentials)), listener.accept());
        let (Stream::Tls(client), Stream::Tls(server)) = (out.unwrap(), accepted.unwrap()) else {
            panic!("it is not encrypted");
        };
        (*client, *server)
    }

    /// Something there and something back: the client reads all the time, so that a handshake gets on.
    async fn converse((client, server): &(TlsSocket, TlsSocket)) {
        let ask = async {
            send(client, b"hello").await?;
            receive(client, 5).await
        };
        let answer = async {
            let heard = receive(server, 5).await?;
            send(server, &heard).await
        };
        let (heard, answered) = tokio::join!(ask, answer);
        answered.unwrap();
        assert_eq!(heard.unwrap(), b"hello");
    }

    fn shown(socket: &TlsSocket) -> Vec<u8> {
        socket.session().peer_certificates().unwrap()[0].to_vec()
    }

    #[tokio::test]
    async fn a_listener_shows_its_newest_certificate_and_connections_of_before_go_on() {
        let authority = Authority::new();
        let front_end = authority.issue(&Role::FrontEnd(1));
        let (renewal, newest) = watch::channel(authority.issue(&NODE));
        let address = Address::Tls {
            name: NODE.name(),
            host: "127.0.0.1:0".to_owned(),
        };
        let listener = Listener::bind_with(&address, Some(&newest)).await.unwrap();
        let before = connected(&listener, &front_end).await;
        converse(&before).await;
        let first = shown(&before.0);

        renewal.send_replace(authority.issue(&NODE));
        let after = connected(&listener, &front_end).await;
        converse(&after).await;
        converse(&before).await;
        assert_ne!(shown(&after.0), first);
        assert_eq!(shown(&before.0), first);
    }

    #[tokio::test]
    async fn a_stranger_and_a_node_that_is_another_one_are_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        for (client, server) in [
            // A client of another cluster, at one of ours; one of ours at a node of theirs, and at another of ours;
            // and a front end that poses as a node.
            (theirs.issue(&Role::FrontEnd(1)), ours.issue(&NODE)),
            (ours.issue(&Role::FrontEnd(1)), theirs.issue(&NODE)),
            (ours.issue(&Role::FrontEnd(1)), ours.issue(&Role::Node(3))),
            (ours.issue(&Role::FrontEnd(1)), ours.issue(&Role::FrontEnd(2))),
        ] {
            let (client, server) = pair(&client, &server).await;
            let talk = async {
                tokio::select! {
                    received = receive(&server, 1) => assert!(received.is_err(), "it was accepted"),
                    received = receive(&client, 1) => assert!(received.is_err(), "it was accepted"),
                }
            };
            tokio::join!(talk, async { _ = client.try_write(&[IoSlice::new(&[1])]) });
        }
    }
}
