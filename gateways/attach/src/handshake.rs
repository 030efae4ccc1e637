//! The client's side of the NBD handshake: chooses an export, or asks what it is. What comes after the choice is the
//! kernel's business.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use storaged_nbd::address::ListenAddress;
use storaged_nbd::wire::option::{information, number};
use storaged_nbd::wire::reply::OptionReply;
use storaged_nbd::wire::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INIT_MAGIC, OPTION_LENGTH_MAX, OPTION_MAGIC, OPTION_REPLY_MAGIC,
};

/// How long the gateway may take for each answer. It waits itself for a volume that somebody else has open: 10 seconds,
/// unless its `--wait` says otherwise.
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// Answers to one option at most: a gateway says three or four things of an export.
const ANSWERS_MAX: usize = 32;
/// An answer of this kind or above is a refusal.
const REFUSALS: u32 = 1 << 31;

/// What a gateway says of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// Its size in bytes.
    pub size: u64,
    /// What it takes: transmission flags.
    pub flags: u16,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Nobody listens, or nobody answers.
    #[error("the NBD gateway at {gateway} does not answer: {source}")]
    Away {
        /// Where it should be.
        gateway: ListenAddress,
        /// What the system says.
        source: io::Error,
    },
    /// It refuses the export.
    #[error("the NBD gateway refuses: {0}")]
    Refused(String),
    /// It is no gateway.
    #[error("what answers at {0} is no NBD gateway of storaged")]
    Stranger(ListenAddress),
}

/// A connection to a gateway.
pub struct Link(Stream);

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link {
    fn connect(gateway: &ListenAddress) -> io::Result<Self> {
        let link = match gateway {
            ListenAddress::Unix(path) => Self(Stream::Unix(UnixStream::connect(path)?)),
            ListenAddress::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, ANSWER_WAIT)?;
                stream.set_nodelay(true)?;
                Self(Stream::Tcp(stream))
            }
        };
        link.limit(Some(ANSWER_WAIT))?;
        Ok(link)
    }

    /// The limits are the socket's own: the kernel would have them, too, and must not.
    fn limit(&self, wait: Option<Duration>) -> io::Result<()> {
        match &self.0 {
            Stream::Unix(stream) => stream.set_read_timeout(wait).and(stream.set_write_timeout(wait)),
            Stream::Tcp(stream) => stream.set_read_timeout(wait).and(stream.set_write_timeout(wait)),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Why a dialogue ends.
enum Trouble {
    Io(io::Error),
    Refused(String),
    Stranger,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Chooses an export: from here on the link takes requests.
pub fn open(gateway: &ListenAddress, export: &str) -> Result<(Link, Export), HandshakeError> {
    dialogue(gateway, |link| {
        let found = ask(link, number::GO, export)?;
        link.limit(None)?;
        Ok(found)
    })
}

/// Asks what an export is now, without opening it.
pub fn describe(gateway: &ListenAddress, export: &str) -> Result<Export, HandshakeError> {
    dialogue(gateway, |link| ask(link, number::INFO, export)).map(|(_, found)| found)
}

fn dialogue(
    gateway: &ListenAddress,
    talk: impl FnOnce(&mut Link) -> Result<Export, Trouble>,
) -> Result<(Link, Export), HandshakeError> {
    let held = || {
        let mut link = Link::connect(gateway)?;
        greet(&mut link)?;
        let found = talk(&mut link)?;
        Ok((link, found))
    };
    held().map_err(|trouble| match trouble {
        Trouble::Io(source) => HandshakeError::Away {
            gateway: gateway.clone(),
            source,
        },
        Trouble::Refused(why) => HandshakeError::Refused(why),
        Trouble::Stranger => HandshakeError::Stranger(gateway.clone()),
    })
}

fn greet(link: &mut Link) -> Result<(), Trouble> {
    let is_nbd =
        u64::from_be_bytes(link.take()?) == INIT_MAGIC && u64::from_be_bytes(link.take()?) == OPTION_MAGIC;
    let offered = u16::from_be_bytes(link.take()?);
    let wanted = FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES;
    if !is_nbd || offered & wanted != wanted {
        return Err(Trouble::Stranger);
    }
    link.write_all(&u32::from(wanted).to_be_bytes())?;
    Ok(())
}

/// Sends `GO` or `INFO`, and reads the answers up to the last one.
fn ask(link: &mut Link, option: u32, export: &str) -> Result<Export, Trouble> {
    let length =
        u32::try_from(export.len()).map_err(|_| Trouble::Refused("the name is too long".to_owned()))?;
    let mut question = Vec::with_capacity(22 + export.len());
    question.extend(OPTION_MAGIC.to_be_bytes());
    question.extend(option.to_be_bytes());
    // The name with its length, and that nothing besides size and flags is asked for.
    question.extend(length.saturating_add(6).to_be_bytes());
    question.extend(length.to_be_bytes());
    question.extend(export.as_bytes());
    question.extend(0_u16.to_be_bytes());
    link.write_all(&question)?;
    let mut found = None;
    for _ in 0..ANSWERS_MAX {
        let (kind, data) = answer(link, option)?;
        if kind >= REFUSALS {
            return Err(Trouble::Refused(String::from_utf8_lossy(&data).into_owned()));
        }
        if kind == OptionReply::Ack as u32 {
            return found.ok_or(Trouble::Stranger);
        }
        if kind == OptionReply::Info as u32 {
            found = read(&data).or(found);
        }
    }
    Err(Trouble::Stranger)
}

fn answer(link: &mut Link, option: u32) -> Result<(u32, Vec<u8>), Trouble> {
    let is_answer =
        u64::from_be_bytes(link.take()?) == OPTION_REPLY_MAGIC && u32::from_be_bytes(link.take()?) == option;
    let kind = u32::from_be_bytes(link.take()?);
    let length = u32::from_be_bytes(link.take()?);
    if !is_answer || length > OPTION_LENGTH_MAX {
        return Err(Trouble::Stranger);
    }
    let mut data = Vec::new();
    Read::take(link, length.into()).read_to_end(&mut data)?;
    if u32::try_from(data.len()) != Ok(length) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok((kind, data))
}

/// Size and flags, if that is what is told.
fn read(data: &[u8]) -> Option<Export> {
    let (kind, rest) = data.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let flags = rest.first_chunk()?;
    (u16::from_be_bytes(*kind) == information::EXPORT).then(|| Export {
        size: u64::from_be_bytes(*size),
        flags: u16::from_be_bytes(*flags),
    })
}
