//! A connection that carries frames: a unix or TCP socket with an inbox and an outbox.
//!
//! Nothing here blocks or awaits but [`Link::ready`] and [`connect`]: whoever drives a link reads
//! what is there, acts upon all of it, and writes all answers at once. Both ends of the data path
//! and of the session use it; it does not know which message means what.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use protocol::codec::Message;
use protocol::inbox::Inbox;
use protocol::outbox::Outbox;
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

mod tls;
mod unix;

use tls::TlsSocket;
pub use tls::{Credentials, CredentialsError, Role, role_of};
use unix::UnixSocket;

/// What the kernel may buffer in each direction of a unix socket, in bytes: so that a large write
/// and the header that follows it go out in one system call. Linux grants what its limit allows.
const SOCKET_BUFFER: usize = 1024 * 1024;

/// Where somebody listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix socket, `unix:/path` or a bare path that begins with `/` or `.`.
    Unix(PathBuf),
    /// `tcp:host:port`.
    Tcp(String),
    /// `tls:name@host:port`.
    Tls {
        /// What the certificate of whoever listens there must name.
        name: String,
        /// `host:port`.
        host: String,
    },
}

/// A text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write `unix:/path/of/socket`, `tcp:host:port` or `tls:name@host:port`")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(wrong())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let with_port = |host: &str| {
            let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(_))).then(|| host.to_owned())
        };
        if let Some(host) = text.strip_prefix("tcp:") {
            return with_port(host).map(Self::Tcp).ok_or_else(wrong);
        }
        if let Some((name, host)) = text.strip_prefix("tls:").and_then(|rest| rest.split_once('@')) {
            let host = with_port(host).filter(|_| !name.is_empty()).ok_or_else(wrong)?;
            let name = name.to_owned();
            return Ok(Self::Tls { name, host });
        }
        if text.starts_with(['/', '.']) {
            Ok(Self::Unix(text.into()))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp:{host}"),
            Self::Tls { name, host } => write!(f, "tls:{name}@{host}"),
        }
    }
}

/// A socket that frames come in on and go out on.
#[derive(Debug)]
pub enum Stream {
    /// On this machine.
    Unix(UnixSocket),
    /// Elsewhere.
    Tcp(TcpStream),
    /// Elsewhere, encrypted.
    Tls(Box<TlsSocket>),
}

/// Connects to an address, showing these credentials if somebody asks there.
pub async fn connect(address: &Address, credentials: Option<&Credentials>) -> io::Result<Stream> {
    match address {
        Address::Unix(path) => prepared_unix(UnixStream::connect(path).await?),
        Address::Tcp(host) => Ok(Stream::Tcp(prepared(TcpStream::connect(host.as_str()).await?))),
        Address::Tls { name, host } => {
            let missing =
                || io::Error::new(io::ErrorKind::PermissionDenied, "there is no certificate to show");
            let credentials = credentials.ok_or_else(missing)?;
            let stream = prepared(TcpStream::connect(host.as_str()).await?);
            Ok(Stream::Tls(Box::new(TlsSocket::client(
                stream,
                name,
                credentials,
            )?)))
        }
    }
}

/// A TCP connection that sends at once. The kernel sizes its buffers by itself; one that refuses the option
/// works all the same.
fn prepared(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

/// A connection on this machine with room for large messages. One that refuses the option works all the same.
fn prepared_unix(stream: UnixStream) -> io::Result<Stream> {
    let socket = UnixSocket::new(stream)?;
    let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
    Ok(Stream::Unix(socket))
}

impl Stream {
    fn try_read(&self, spaces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_read(spaces),
            Self::Tcp(stream) => stream.try_read_vectored(spaces),
            Self::Tls(socket) => socket.try_read(spaces),
        }
    }

    /// Says that a read found less than it had room for: there is nothing more until the kernel says
    /// so anew (it tells of every arrival once). Saves the read that would only find that out.
    fn mark_drained(&self) {
        let nothing = || -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) };
        // The error that comes back is the one that was just made.
        let _ = match self {
            Self::Unix(socket) => socket.mark_drained(nothing),
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            // Its reads end at the end of a record, whatever else there is.
            Self::Tls(_) => Ok(()),
        };
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_write(slices),
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Tls(socket) => socket.try_write(slices),
        }
    }

    /// Gives the socket what was written and is still here.
    fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => Ok(()),
            Self::Tls(socket) => socket.try_flush(),
        }
    }

    /// Whether something that was written is still here.
    fn has_unsent(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Tcp(_) => false,
            Self::Tls(socket) => socket.has_unsent(),
        }
    }

    /// What the peer is by its certificate; nothing if it showed none, or none yet.
    pub fn peer_role(&self) -> Option<Role> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => None,
            Self::Tls(socket) => socket.peer_role(),
        }
    }

    /// The number of the process at the other end; nothing over TCP, or if the kernel has none for
    /// us.
    pub fn peer_process(&self) -> Option<i32> {
        match self {
            Self::Unix(socket) => socket.peer_process(),
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }

    /// Waits until it can be read, or written if that is wanted, or is broken.
    pub async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.ready(interest).await,
            Self::Tcp(stream) => stream.ready(interest).await.map(drop),
            Self::Tls(socket) => socket.ready(interest).await,
        }
    }

    /// The same, or until somebody has set `wake` off: there is something new to send.
    pub async fn ready_or_woken(&self, interest: Interest, wake: &Notify) -> io::Result<()> {
        tokio::select! {
            ready = self.ready(interest) => ready,
            () = wake.notified() => Ok(()),
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
pub enum Listener {
    /// For this machine.
    Unix(UnixListener),
    /// For others.
    Tcp(TcpListener),
    /// For others, encrypted.
    Tls {
        /// The socket.
        listener: TcpListener,
        /// What our certificate names.
        name: String,
        /// The newest of our certificates.
        credentials: CredentialsWatch,
    },
}

/// The newest of our own certificates, for those who accept connections while it changes.
pub type CredentialsWatch = watch::Receiver<Credentials>;

impl Listener {
    /// Listens at an address. A unix socket that a dead process left behind is replaced; one that a
    /// live process listens on is not: [`io::ErrorKind::AddrInUse`].
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => {
                match UnixStream::connect(path).await {
                    Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(path)?;
                    }
                    Err(_) => {}
                }
                Ok(Self::Unix(UnixListener::bind(path)?))
            }
            Address::Tcp(host) => Ok(Self::Tcp(TcpListener::bind(host.as_str()).await?)),
            Address::Tls { .. } => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "there is no certificate to show",
            )),
        }
    }

    /// As [`Listener::bind`], where addresses with TLS may be among them.
    pub async fn bind_with(address: &Address, credentials: Option<&CredentialsWatch>) -> io::Result<Self> {
        match (address, credentials) {
            (Address::Tls { name, host }, Some(credentials)) => Ok(Self::Tls {
                listener: TcpListener::bind(host.as_str()).await?,
                name: name.clone(),
                credentials: credentials.clone(),
            }),
            _ => Self::bind(address).await,
        }
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => prepared_unix(listener.accept().await?.0),
            Self::Tcp(listener) => Ok(Stream::Tcp(prepared(listener.accept().await?.0))),
            Self::Tls {
                listener,
                credentials,
                ..
            } => {
                let stream = prepared(listener.accept().await?.0);
                let credentials = credentials.borrow().clone();
                Ok(Stream::Tls(Box::new(TlsSocket::server(stream, &credentials)?)))
            }
        }
    }

    /// Where it listens, as others may connect to it: with the port that was chosen.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(Address::Unix(path.to_owned()))
            }
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?.to_string())),
            Self::Tls { listener, name, .. } => Ok(Address::Tls {
                name: name.clone(),
                host: listener.local_addr()?.to_string(),
            }),
        }
    }
}

/// A connection with its messages.
pub struct Link {
    stream: Arc<Stream>,
    inbox: Inbox,
    /// What is to be sent: fill it, then call [`Link::send`].
    pub outbox: Outbox,
}

impl Link {
    /// The end of a connection whose other end is not there: for tests that carry what is in the outbox themselves.
    #[cfg(test)]
    pub(crate) fn loose() -> Self {
        let (end, _) = UnixStream::pair().expect("the system has sockets, and a runtime was entered");
        Self::new(prepared_unix(end).expect("a socket that was just made"))
    }

    /// A link over a socket that was just opened.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream: Arc::new(stream),
            inbox: Inbox::new(),
            outbox: Outbox::new(),
        }
    }

    /// Reads once, without waiting. False if nothing was there.
    /// The end of the connection is [`io::ErrorKind::UnexpectedEof`].
    pub fn receive(&mut self) -> io::Result<bool> {
        let mut spaces = self.inbox.spaces();
        let room: usize = spaces.iter().map(|space| space.len()).sum();
        match self.stream.try_read(&mut spaces) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                if count < room {
                    self.stream.mark_drained();
                }
                self.inbox.received(count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next whole message of what was read, with its request number.
    /// Bytes that make no sense are [`io::ErrorKind::InvalidData`].
    pub fn message(&mut self) -> io::Result<Option<(u64, Message)>> {
        self.inbox
            .take_message()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes what the outbox holds, as far as the socket takes it without waiting.
    pub fn send(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox.slices()) {
                Ok(count) => self.outbox.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.try_flush()
    }

    /// Whether all of the outbox has gone out to the socket.
    pub fn is_sent(&self) -> bool {
        self.outbox.is_empty() && !self.stream.has_unsent()
    }

    /// Waits for the next message, sending what is to be sent meanwhile: for the slow conversations
    /// at the beginning of a connection.
    pub async fn converse(&mut self) -> io::Result<(u64, Message)> {
        loop {
            self.send()?;
            if let Some(message) = self.message()? {
                return Ok(message);
            }
            if !self.receive()? {
                self.stream.ready(self.interest()).await?;
            }
        }
    }

    /// What to wait for: bytes to read, and room to write if something could not be sent.
    pub fn interest(&self) -> Interest {
        if self.is_sent() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        }
    }

    /// The socket, to wait on while the link itself is not borrowed.
    pub fn stream(&self) -> Arc<Stream> {
        Arc::clone(&self.stream)
    }
}

#[cfg(test)]
mod tests {
    //! Addresses are what people write; a socket file of the dead is replaced, one of the living not.
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for text in [
            "unix:/run/storaged/disk-1.sock",
            "tcp:127.0.0.1:7000",
            "tcp:[::1]:7000",
            "tls:node-1.nodes.storaged@10.0.0.1:7000",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("/run/a.sock".parse(), Ok(Address::Unix("/run/a.sock".into())));
        for text in [
            "",
            "unix:",
            "tcp:",
            "tcp:host",
            "tcp:host:99999",
            "tls:host:1",
            "tls:@host:1",
            "tls:name@host",
            "host:1",
            "http://x",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_process_left_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix(directory.path().join("socket"));
        let first = Listener::bind(&address).await.unwrap();
        let refused = Listener::bind(&address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(&address).await.unwrap();
    }
}
