//! A unix socket that does not wake its reader when its peer has read.
//!
//! The kernel tells of room to write whenever the peer takes a message. Who listens for that is
//! woken twice for each request: once for nothing. So room is listened for only from a write that
//! found none until the next one that goes out whole.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub struct UnixSocket {
    readable: AsyncFd<UnixStream>,
    /// There while the socket was last found full.
    writable: Mutex<Option<Arc<AsyncFd<UnixStream>>>>,
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
            writable: Mutex::default(),
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

    fn writable(&self) -> Option<Arc<AsyncFd<UnixStream>>> {
        self.writable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_writable(&self, watched: Option<Arc<AsyncFd<UnixStream>>>) {
        *self.writable.lock().unwrap_or_else(PoisonError::into_inner) = watched;
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(writable) = self.writable() {
            let written = writable.try_io(Interest::WRITABLE, |mut stream| stream.write_vectored(slices));
            let whole: usize = slices.iter().map(|slice| slice.len()).sum();
            // Whoever waits for room at this moment holds the registration, and is still told.
            if matches!(written, Ok(count) if count == whole) {
                self.set_writable(None);
            }
            return written;
        }
        let written = self.readable.get_ref().write_vectored(slices);
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            // The kernel tells of room that there is by now as soon as this is registered. Nobody
            // else can have been faster: a link has one writer.
            let stream = self.readable.get_ref().try_clone()?;
            self.set_writable(Some(Arc::new(watched(stream, Interest::WRITABLE)?)));
        }
        written
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<()> {
        // Dropping a guard leaves the readiness as it is: whoever reads or writes clears it.
        match self.writable().filter(|_| interest.is_writable()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixSocket, tokio::net::UnixStream) {
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        (UnixSocket::new(one).unwrap(), other)
    }

    async fn take(other: &tokio::net::UnixStream, mut count: usize) {
        let mut buffer = vec![0; 1 << 16];
        while count > 0 {
            other.readable().await.unwrap();
            match other.try_read(&mut buffer) {
                Ok(taken) => count -= taken,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    /// Law: room to write is listened for only between a write that found none and one that went
    /// out whole, and a writer that waits is told.
    #[tokio::test]
    async fn room_is_listened_for_only_while_it_is_wanted() {
        let (socket, other) = pair();
        let bytes = [7; 4096];
        let mut sent = 0;
        let full = loop {
            match socket.try_write(&[IoSlice::new(&bytes)]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(socket.writable().is_some());
        let ((), ready) = tokio::join!(take(&other, sent), socket.ready(Interest::WRITABLE));
        ready.unwrap();
        assert_eq!(socket.try_write(&[IoSlice::new(&bytes)]).unwrap(), bytes.len());
        assert!(socket.writable().is_none(), "the socket still listens for room");
    }
}
