//! The least of an NBD client: one request at a time, simple replies. What the server may refuse is an error.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const READ: u16 = 0;
const WRITE: u16 = 1;
/// The first bytes of a server, and of an option.
const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";
const OPTION: &[u8] = b"IHAVEOPT";
/// The first bytes of a request and of a reply.
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// We know the fixed greeting, and want no zeros after it.
const FLAGS: u32 = 3;
/// The option that names the export and begins.
const EXPORT_NAME: u32 = 1;
/// A request that takes longer hangs.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server answered with this error: the volume failed.
    Refused(u32),
    /// The connection is of no use any more.
    Gone(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// A client of an export.
pub(crate) struct Client(UnixStream);

impl Client {
    /// Opens an export.
    pub(crate) fn connect(socket: &Path, export: &str) -> io::Result<Self> {
        let mut client = Self(UnixStream::connect(socket)?);
        client.0.set_read_timeout(Some(ANSWER_LIMIT))?;
        if client.take::<18>()? != *GREETING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no NBD server"));
        }
        client.0.write_all(&FLAGS.to_be_bytes())?;
        let length = u32::try_from(export.len()).map_err(io::Error::other)?;
        let option = [
            OPTION,
            &EXPORT_NAME.to_be_bytes(),
            &length.to_be_bytes(),
            export.as_bytes(),
        ];
        client.0.write_all(&option.concat())?;
        // Its size and its flags.
        client.take::<10>()?;
        Ok(client)
    }

    /// Writes; done when it is on all copies.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let head = head(WRITE, offset, data.len())?;
        self.0.write_all(&[&head[..], data].concat())?;
        self.answer()
    }

    /// Reads.
    pub(crate) fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Failure> {
        self.0.write_all(&head(READ, offset, length)?)?;
        self.answer()?;
        let mut data = vec![0; length];
        self.0.read_exact(&mut data)?;
        Ok(data)
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let [m0, m1, m2, m3, e0, e1, e2, e3, ..] = self.take::<16>()?;
        if u32::from_be_bytes([m0, m1, m2, m3]) != REPLY {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no reply").into());
        }
        match u32::from_be_bytes([e0, e1, e2, e3]) {
            0 => Ok(()),
            error => Err(Failure::Refused(error)),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn head(command: u16, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    let parts: [&[u8]; 6] = [
        &REQUEST.to_be_bytes(),
        &[0, 0],
        &command.to_be_bytes(),
        &[0; 8],
        &offset.to_be_bytes(),
        &length.to_be_bytes(),
    ];
    Ok(parts.concat())
}
