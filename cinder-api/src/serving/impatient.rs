//! A connection whose peer must take what is sent to it. One that does not, or takes a byte now and then, loses it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How much a peer must take within the limit, unless less is left.
pub const PROGRESS_BYTES: usize = 64 * 1024;

/// A connection, and since when its peer takes too little.
pub(super) struct Impatient {
    stream: TcpStream,
    limit: Duration,
    /// Runs while something waits to be taken, and what has been taken since it runs.
    waits: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Impatient {
    pub(super) fn new(stream: TcpStream, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            waits: None,
        }
    }

    /// What became of an attempt to send `wanted` bytes.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        wanted: usize,
        sent: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match sent {
            Poll::Ready(Ok(taken)) => {
                let is_enough = |waited: usize| waited + taken >= PROGRESS_BYTES;
                self.waits = match self.waits.take() {
                    Some((timer, waited)) if taken < wanted && !is_enough(waited) => {
                        Some((timer, waited + taken))
                    }
                    _ => None,
                };
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let limit = self.limit;
                let (timer, _) = self.waits.get_or_insert_with(|| (Box::pin(sleep(limit)), 0));
                ready!(timer.as_mut().poll(context));
                let message = format!("the peer has not taken its answer for {} s", limit.as_secs());
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
            }
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, bytes.len(), sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, parts.iter().map(|part| part.len()).sum(), sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
