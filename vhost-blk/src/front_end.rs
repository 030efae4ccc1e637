//! The way back to the front end: telling QEMU that the configuration space has changed.
//!
//! The `vhost` crate takes the socket that the front end hands over for this and keeps it to itself,
//! and it cannot send this one message. So this module looks at each message before that crate
//! reads it (`MSG_PEEK` leaves it in place), keeps a copy of the descriptor, and sends the twelve bytes.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use vhost::vhost_user::message::{BackendReq, FrontendReq};

use crate::config_space::ConfigSpace;

/// Bytes of a vhost-user message's header: request, flags, length of the body.
const HEADER_BYTES: usize = 12;
/// The protocol's version, which is in the lowest bits of a header's flags.
const VERSION: u32 = 1;
/// Descriptors that may come with one message.
const DESCRIPTORS_MAX: usize = 8;

/// What the two threads share: the configuration space, and the socket for news of it.
#[derive(Debug)]
pub struct FrontEnd {
    config: Mutex<ConfigSpace>,
    channel: Mutex<Option<UnixStream>>,
    connected: AtomicBool,
}

impl FrontEnd {
    /// No front end is connected yet.
    pub fn new(config: ConfigSpace) -> Self {
        Self {
            config: Mutex::new(config),
            channel: Mutex::new(None),
            connected: AtomicBool::new(false),
        }
    }

    /// A front end has connected.
    pub fn connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
    }

    /// Whether a front end is connected.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The configuration space. Held for single reads and writes only.
    pub fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device has another size: the guest is told, if the front end can be.
    pub fn resized(&self, size: u64) -> io::Result<()> {
        if self.config().resize(size) {
            self.announce()?;
        }
        Ok(())
    }

    /// Waits for the next message on the control socket and takes a copy of the back channel
    /// from it, if it brings one. The message stays to be read. False if the front end has closed.
    pub fn look_ahead(&self, control: &UnixStream) -> io::Result<bool> {
        let mut header = [0; HEADER_BYTES];
        let (count, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(control, &mut header, RecvFlags::PEEK | RecvFlags::WAITALL)
        })?;
        let [r0, r1, r2, r3, ..] = header;
        if count == HEADER_BYTES
            && u32::from_le_bytes([r0, r1, r2, r3]) == u32::from(FrontendReq::SET_BACKEND_REQ_FD)
            && let Some(socket) = peek_descriptor(control)?
        {
            *self.channel() = Some(UnixStream::from(socket));
        }
        Ok(count > 0)
    }

    /// The front end is gone.
    pub fn disconnected(&self) {
        *self.channel() = None;
        self.connected.store(false, Ordering::Relaxed);
    }

    /// Tells the guest to read the configuration space, whether it has changed or not. False if there
    /// is nobody to tell.
    pub fn announce(&self) -> io::Result<bool> {
        let mut channel = self.channel();
        let Some(socket) = channel.as_ref() else {
            return Ok(false);
        };
        let request = u32::from(BackendReq::CONFIG_CHANGE_MSG).to_le_bytes();
        let message: Vec<u8> = [request, VERSION.to_le_bytes(), 0u32.to_le_bytes()].concat();
        // Never waits: a front end that does not read its news must not hold the data thread. It
        // will read the configuration space again after its next reset.
        match rustix::net::send(socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) if count == message.len() => Ok(true),
            Ok(_) => {
                // Half a message would garble all later ones.
                *channel = None;
                Err(io::ErrorKind::WriteZero.into())
            }
            Err(cause) => Err(cause.into()),
        }
    }

    fn channel(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn peek_descriptor(control: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut header = [0; HEADER_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        control,
        &mut [IoSliceMut::new(&mut header)],
        &mut ancillary,
        RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.next().and_then(|mut descriptors| descriptors.next()))
}

#[cfg(test)]
mod tests {
    //! A peeked message is still there afterwards, and a new size is announced once, in twelve bytes.
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

    use super::*;
    use crate::config_space::Shape;

    fn front_end() -> FrontEnd {
        FrontEnd::new(ConfigSpace::new(
            Shape {
                block_size: 512,
                read_only: false,
                queues: 1,
            },
            1 << 20,
        ))
    }

    fn send_with_descriptor(socket: &UnixStream, bytes: &[u8], descriptor: &UnixStream) {
        let descriptors = [descriptor.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_new_size_is_announced_once_on_the_channel_that_was_peeked() {
        let front_end = front_end();
        let (control, mut peer) = UnixStream::pair().unwrap();
        let (channel, mut news) = UnixStream::pair().unwrap();
        let message = [21u32.to_le_bytes(), 1u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        send_with_descriptor(&peer, &message, &channel);
        assert!(front_end.look_ahead(&control).unwrap());
        let mut still_there = [0; 12];
        (&control).read_exact(&mut still_there).unwrap();
        assert_eq!(still_there.as_slice(), message);

        front_end.resized(1 << 20).unwrap();
        front_end.resized(2 << 20).unwrap();
        front_end.disconnected();
        drop(channel);
        let mut announced = Vec::new();
        news.read_to_end(&mut announced).unwrap();
        assert_eq!(announced, [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        peer.write_all(&[0]).unwrap();
    }

    #[test]
    fn a_size_without_anybody_to_tell_is_kept_for_the_next_front_end() {
        let front_end = front_end();
        front_end.resized(2 << 20).unwrap();
        assert_eq!(front_end.config().read(0, 8), 4096u64.to_le_bytes());
    }

    #[test]
    fn a_closed_control_socket_is_seen_and_not_an_error() {
        let (control, peer) = UnixStream::pair().unwrap();
        drop(peer);
        assert!(!front_end().look_ahead(&control).unwrap());
    }
}
