//! The process at the other end of a unix socket: is it dead, or does it only connect anew?

use std::os::fd::OwnedFd;

use client::transport::Stream;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

/// A front end's process.
pub(super) struct Peer {
    pid: Option<i32>,
    /// Becomes readable when the process ends, even if its number is used again by then.
    descriptor: Option<AsyncFd<OwnedFd>>,
}

impl Peer {
    /// The process that connected. Over TCP, or from another world of process numbers, nothing is
    /// known of it, and only its lease tells whether it lives.
    pub(super) fn of(stream: &Stream) -> Self {
        let pid = stream.peer_process();
        let descriptor = pid
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
            .and_then(watched);
        Self { pid, descriptor }
    }

    /// Its number as this process sees it; zero, which is nobody's, if it cannot be seen from here. What the
    /// process calls itself does not count: it may live on another machine or in another world of numbers.
    pub(super) fn number(&self) -> u32 {
        self.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
    }

    /// Waits until the process has ended; for ever if nothing is known of it.
    pub(super) async fn ended(&self) {
        match &self.descriptor {
            Some(descriptor) if descriptor.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// Whether it is this very process.
    pub(super) fn is_ourselves(&self) -> bool {
        let own = i32::try_from(std::process::id()).ok();
        self.pid.is_some() && self.pid == own
    }
}

#[expect(
    deprecated,
    reason = "an `OwnedFd` keeps what the unsafe `register` asks its caller to keep"
)]
fn watched(descriptor: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor).ok()
}
