//! A unix socket that does not wake its reader when its peer has read.
//!
//! The kernel tells of room to write whenever the peer takes a message. Who listens for that is
//! woken twice for each request: once for nothing. So room is listened for only from the first time
//! on that a write found none.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub struct UnixSocket {
    readable: AsyncFd<UnixStream>,
    writable: OnceLock<AsyncFd<UnixStream>>,
    /// The process that connected, or that listens.
    peer: Option<i32>,
}

#[expect(
    deprecated,
    reason = "a `UnixStream` keeps what the unsafe way asks its caller to keep"
)]
fn watched(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl UnixSocket {
    pub(super) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred().ok();
        Ok(Self {
            peer: credentials
                .and_then(|credentials| credentials.pid())
                .filter(|pid| *pid > 0),
            readable: watched(stream.into_std()?, Interest::READABLE)?,
            writable: OnceLock::new(),
        })
    }

    pub(super) fn try_read(&self, spaces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.readable
            .try_io(Interest::READABLE, |mut stream| stream.read_vectored(spaces))
    }

    /// Forgets that it was readable, until the kernel says so anew.
    pub(super) fn mark_drained(&self, nothing: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.readable.try_io(Interest::READABLE, |_| nothing())
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(writable) = self.writable.get() {
            return writable.try_io(Interest::WRITABLE, |mut stream| stream.write_vectored(slices));
        }
        let written = self.readable.get_ref().write_vectored(slices);
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            // The kernel tells of room that there is by now as soon as this is registered. Nobody
            // else can have been faster: a link has one writer.
            let stream = self.readable.get_ref().try_clone()?;
            let _ = self.writable.set(watched(stream, Interest::WRITABLE)?);
        }
        written
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<()> {
        // Dropping a guard leaves the readiness as it is: whoever reads or writes clears it.
        match self.writable.get().filter(|_| interest.is_writable()) {
            None => self.readable.ready(Interest::READABLE).await.map(drop),
            Some(writable) if !interest.is_readable() => writable.ready(Interest::WRITABLE).await.map(drop),
            Some(writable) => tokio::select! {
                ready = self.readable.ready(Interest::READABLE) => ready.map(drop),
                ready = writable.ready(Interest::WRITABLE) => ready.map(drop),
            },
        }
    }

    pub(super) fn peer_process(&self) -> Option<i32> {
        self.peer
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.get_ref().as_fd()
    }
}
