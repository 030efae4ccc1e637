//! PDUs from a socket: header, additional headers, data and digests (RFC 7143 section 11.2).

use std::io;

use bytes::Bytes;
use client::device::WriteBuffer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::login::parameters::RECEIVE_MAX;
use crate::wire::digest::{DIGEST_LENGTH, digest, digest_of, padding};
use crate::wire::header::{HEADER_LENGTH, Header};

/// How many bytes are read from the socket in one go; data that is longer than what is left of it goes straight to where
/// it stays.
const READ_BUFFER: usize = 32 * 1024;

/// Which digests PDUs carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Of headers.
    pub header: bool,
    /// Of data.
    pub data: bool,
}

/// A PDU that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pdu {
    /// Its header.
    pub header: Header,
    /// Its data, at an address that disks can write from.
    pub data: Bytes,
    /// Whether the data's digest is wrong.
    pub damaged: bool,
}

/// Why there is no PDU.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The socket failed, or ended in the middle.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// Nothing after this can be told apart.
    #[error("the digest of a header was wrong")]
    HeaderDigest,
    /// More data than was agreed on.
    #[error("a PDU announced {0} bytes of data; {RECEIVE_MAX} are the most")]
    TooLong(usize),
}

/// Reads PDUs.
pub struct PduReader<R> {
    input: BufReader<R>,
    digests: Digests,
}

impl<R: AsyncRead + Unpin> PduReader<R> {
    /// A reader of a connection that begins: nothing carries digests.
    pub fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BUFFER, input),
            digests: Digests::default(),
        }
    }

    /// From the next PDU on these digests are there.
    pub fn expect(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Which digests are there.
    pub fn digests(&self) -> Digests {
        self.digests
    }

    /// The socket, to write to.
    pub fn get_mut(&mut self) -> &mut R {
        self.input.get_mut()
    }

    /// The socket, to ask.
    pub fn get_ref(&self) -> &R {
        self.input.get_ref()
    }

    /// Waits until something comes; false if the other side has closed.
    pub async fn ready(&mut self) -> io::Result<bool> {
        Ok(!self.input.fill_buf().await?.is_empty())
    }

    /// Reads one PDU.
    pub async fn read(&mut self) -> Result<Pdu, ReadError> {
        let header = self.header().await?;
        self.rest(header).await
    }

    /// Reads what comes after a header.
    pub async fn rest(&mut self, header: Header) -> Result<Pdu, ReadError> {
        let length = header.data_length();
        if length == 0 {
            return Ok(Pdu {
                header,
                data: Bytes::new(),
                damaged: false,
            });
        }
        let mut buffer = WriteBuffer::new(length);
        let damaged = self.fill(buffer.bytes_mut()).await?;
        Ok(Pdu {
            header,
            data: buffer.freeze(),
            damaged,
        })
    }

    /// Reads the data that comes after a header, which is not empty, to where it is wanted: as much as the header says. Says
    /// whether its digest is wrong.
    pub async fn fill(&mut self, data: &mut [u8]) -> Result<bool, ReadError> {
        self.input.read_exact(data).await?;
        let mut trailer = [0; 3];
        let trailer = &mut trailer[..padding(data.len())];
        self.input.read_exact(trailer).await?;
        Ok(self.digests.data && {
            let mut sent = [0; DIGEST_LENGTH];
            self.input.read_exact(&mut sent).await?;
            sent != digest_of([&*data, trailer])
        })
    }

    /// Reads a header, and additional headers, of which none is needed here.
    pub async fn header(&mut self) -> Result<Header, ReadError> {
        let mut bytes = [0; HEADER_LENGTH];
        self.input.read_exact(&mut bytes).await?;
        let header = Header(bytes);
        // At most 1020 bytes: the length is one byte, in words.
        let mut additional = vec![0; header.additional_length()];
        self.input.read_exact(&mut additional).await?;
        if self.digests.header {
            let mut sent = [0; DIGEST_LENGTH];
            self.input.read_exact(&mut sent).await?;
            let expected = if additional.is_empty() {
                digest(&bytes)
            } else {
                digest_of([&bytes[..], &additional])
            };
            if sent != expected {
                return Err(ReadError::HeaderDigest);
            }
        }
        let length = header.data_length();
        if length > RECEIVE_MAX as usize {
            return Err(ReadError::TooLong(length));
        }
        Ok(header)
    }

    /// The socket. What was read and not taken is lost, so it may only be asked for when nothing is.
    pub fn into_inner(self) -> Result<R, io::Error> {
        if self.input.buffer().is_empty() {
            return Ok(self.input.into_inner());
        }
        Err(io::Error::other("the initiator sent more before it was answered"))
    }
}
