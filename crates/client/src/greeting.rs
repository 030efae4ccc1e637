//! The first words on a connection to a disk: finds an address where it answers, and agrees on a version of the
//! messages. What is said afterwards is the caller's business.

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use protocol::DiskId;
use protocol::codec::Message;
use protocol::message::{Request, Response};
use protocol::session::DiskView;
use tokio::time::timeout;

use crate::transport::{self, Address, Credentials, Link};

/// How long a connection may take until the disk has answered its greeting: one that does not
/// within this time may be a machine that went away without a word.
pub const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// A connection that was greeted.
pub struct Greeted {
    /// The connection.
    pub link: Link,
    /// Where the disk answered.
    pub address: Address,
    /// The version of the messages that both speak.
    pub version: u16,
}

/// Tries a disk's addresses in order, until one greets back as the disk that is looked for. Takes up to
/// [`GREETING_LIMIT`] for each; the error is the last one's.
pub async fn reach(
    disk: &DiskView,
    cluster: [u8; 16],
    versions: RangeInclusive<u16>,
    credentials: Option<&Credentials>,
) -> io::Result<Greeted> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the disk has no address");
    for address in &disk.addresses {
        let Ok(address) = address.parse::<Address>() else {
            continue;
        };
        let greeting = greet(address, disk.disk, cluster, &versions, credentials);
        match timeout(GREETING_LIMIT, greeting).await {
            Ok(Ok(greeted)) => return Ok(greeted),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn greet(
    address: Address,
    disk: DiskId,
    cluster: [u8; 16],
    versions: &RangeInclusive<u16>,
    credentials: Option<&Credentials>,
) -> io::Result<Greeted> {
    let mut link = Link::new(transport::connect(&address, credentials).await?);
    let hello = Request::Hello {
        version_min: *versions.start(),
        version_max: *versions.end(),
        cluster,
        disk,
    };
    link.outbox.push_request(0, &hello);
    match link.converse().await? {
        (0, Message::Response(Response::Welcome { version, disk: found }))
            if found == disk && versions.contains(&version) =>
        {
            Ok(Greeted {
                link,
                address,
                version,
            })
        }
        (_, Message::Response(Response::Refused(refusal))) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the disk does not greet as it should",
        )),
    }
}
