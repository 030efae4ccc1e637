//! What is said to the kernel's NBD client by generic netlink, as bytes, and what it says: commands and attributes of
//! `linux/nbd-netlink.h`. No socket is known here.

use std::os::fd::RawFd;

use netlink_packet_core::{
    DecodeError, Emitable, Nla, NlasIterator, ParseableParametrized, emit_u32, emit_u64, parse_u32,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

/// What the family is called.
pub const FAMILY: &str = "nbd";
/// What the group is called that is told of dead links.
pub const GROUP: &str = "nbd_mc_group";
const VERSION: u8 = 1;

/// Bytes of a sector, as the host sees it. Guests that used the volume by another way saw 512, too, and a partition table
/// is only found in sectors of the size that it was written with.
const SECTOR: u64 = 512;

mod command {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const DISCONNECT: u8 = 2;
    pub(super) const RECONFIGURE: u8 = 3;
    pub(super) const LINK_DEAD: u8 = 4;
}

mod attribute {
    pub(super) const INDEX: u16 = 1;
    pub(super) const SIZE: u16 = 2;
    pub(super) const BLOCK_SIZE: u16 = 3;
    pub(super) const TIMEOUT: u16 = 4;
    pub(super) const SERVER_FLAGS: u16 = 5;
    pub(super) const CLIENT_FLAGS: u16 = 6;
    pub(super) const SOCKETS: u16 = 7;
    pub(super) const DEAD_CONNECTION_TIMEOUT: u16 = 8;
    pub(super) const BACKEND: u16 = 10;
    /// Within `SOCKETS`.
    pub(super) const SOCKET: u16 = 1;
    /// Within `SOCKET`.
    pub(super) const DESCRIPTOR: u16 = 1;
}

/// A flag of the client: the device ends when nobody has it open any more.
const DISCONNECT_ON_CLOSE: u64 = 1 << 1;
/// For how long I/O waits for a link, in seconds, before it fails: a week, so that somebody who is away for the
/// weekend finds it waiting. Ending the device ends the waiting.
const DEAD_CONNECTION_TIMEOUT_S: u64 = 7 * 24 * 60 * 60;

/// A netlink attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    kind: u16,
    value: Vec<u8>,
}

impl Attribute {
    fn number(kind: u16, value: u64) -> Self {
        let mut bytes = vec![0; 8];
        // The buffer has the length that is needed.
        let _ = emit_u64(&mut bytes, value);
        Self { kind, value: bytes }
    }

    fn short_number(kind: u16, value: u32) -> Self {
        let mut bytes = vec![0; 4];
        // As above.
        let _ = emit_u32(&mut bytes, value);
        Self { kind, value: bytes }
    }

    fn text(kind: u16, text: &str) -> Self {
        let value = [text.as_bytes(), &[0]].concat();
        Self { kind, value }
    }

    fn nested(kind: u16, inner: &Self) -> Self {
        let mut value = vec![0; inner.buffer_len()];
        inner.emit(&mut value);
        Self { kind, value }
    }

    /// One socket.
    fn sockets(link: RawFd) -> Self {
        let descriptor = Self::short_number(attribute::DESCRIPTOR, link.cast_unsigned());
        let socket = Self::nested(attribute::SOCKET, &descriptor);
        Self::nested(attribute::SOCKETS, &socket)
    }
}

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        self.value.len()
    }

    fn kind(&self) -> u16 {
        self.kind
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.value);
    }
}

/// What a device is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup<'a> {
    /// Its size in bytes.
    pub size: u64,
    /// What the server takes: the transmission flags of the protocol.
    pub flags: u16,
    /// What is kept with it in the kernel, to know it again.
    pub tag: &'a str,
}

/// A message of the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    command: u8,
    attributes: Vec<Attribute>,
}

impl Message {
    /// Makes a device, with any number that is free. Commands have no time limit: storage that is away is waited for.
    pub fn connect(setup: &Setup<'_>, link: RawFd) -> Self {
        Self {
            command: command::CONNECT,
            attributes: vec![
                Attribute::number(attribute::SIZE, setup.size),
                Attribute::number(attribute::BLOCK_SIZE, SECTOR),
                Attribute::number(attribute::TIMEOUT, 0),
                Attribute::number(attribute::DEAD_CONNECTION_TIMEOUT, DEAD_CONNECTION_TIMEOUT_S),
                Attribute::number(attribute::SERVER_FLAGS, setup.flags.into()),
                Attribute::sockets(link),
                Attribute::text(attribute::BACKEND, setup.tag),
            ],
        }
    }

    /// Gives a device a new link in place of a dead one. The kernel drops it if none is dead.
    pub fn relink(index: u32, tag: &str, link: RawFd) -> Self {
        Self::reconfigure(index, tag, Attribute::sockets(link))
    }

    /// Changes the size of a device, in bytes.
    pub fn resize(index: u32, tag: &str, size: u64) -> Self {
        Self::reconfigure(index, tag, Attribute::number(attribute::SIZE, size))
    }

    /// Says whether a device ends when nobody has it open any more.
    pub fn end_when_closed(index: u32, tag: &str, ends: bool) -> Self {
        let flags = if ends { DISCONNECT_ON_CLOSE } else { 0 };
        Self::reconfigure(index, tag, Attribute::number(attribute::CLIENT_FLAGS, flags))
    }

    /// Ends a device, used or not.
    pub fn disconnect(index: u32) -> Self {
        Self {
            command: command::DISCONNECT,
            attributes: vec![Attribute::short_number(attribute::INDEX, index)],
        }
    }

    /// The kernel refuses to change a device for somebody who does not know its tag.
    fn reconfigure(index: u32, tag: &str, change: Attribute) -> Self {
        Self {
            command: command::RECONFIGURE,
            attributes: vec![
                Attribute::short_number(attribute::INDEX, index),
                Attribute::text(attribute::BACKEND, tag),
                change,
            ],
        }
    }

    /// The number of the device that it is about, if it says one.
    pub fn index(&self) -> Option<u32> {
        let found = self
            .attributes
            .iter()
            .find(|found| found.kind == attribute::INDEX)?;
        parse_u32(&found.value).ok()
    }

    /// The device whose link is dead, if that is what it says.
    pub fn dead_link(&self) -> Option<u32> {
        (self.command == command::LINK_DEAD)
            .then(|| self.index())
            .flatten()
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(bytes).map(|attribute| {
            attribute.map(|attribute| Attribute {
                kind: attribute.kind(),
                value: attribute.value().to_vec(),
            })
        });
        Ok(Self {
            command: header.cmd,
            attributes: attributes.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    //! Golden bytes, as `linux/nbd-netlink.h` lays them out, and that nothing the kernel could say makes this panic.
    use super::*;

    fn bytes(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0xaa; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn parse(command: u8, bytes: &[u8]) -> Result<Message, DecodeError> {
        let header = GenlHeader {
            cmd: command,
            version: 1,
        };
        Message::parse_with_param(bytes, header)
    }

    #[test]
    fn a_device_is_made_with_these_bytes() {
        let setup = Setup {
            size: 0x1000_0000,
            flags: 0x056d,
            tag: "t:vol",
        };
        let message = Message::connect(&setup, 9);
        assert_eq!(message.command(), 1);
        let golden: &[&[u8]] = &[
            &[12, 0, 2, 0, 0, 0, 0, 0x10, 0, 0, 0, 0],
            &[12, 0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0],
            &[12, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0, 8, 0, 0x80, 0x3a, 0x09, 0, 0, 0, 0, 0],
            &[12, 0, 5, 0, 0x6d, 0x05, 0, 0, 0, 0, 0, 0],
            &[16, 0, 7, 0, 12, 0, 1, 0, 8, 0, 1, 0, 9, 0, 0, 0],
            &[10, 0, 10, 0, b't', b':', b'v', b'o', b'l', 0, 0, 0],
        ];
        assert_eq!(bytes(&message), golden.concat());
    }

    #[test]
    fn a_device_is_changed_with_these_bytes() {
        let head: &[u8] = &[8, 0, 1, 0, 3, 0, 0, 0, 6, 0, 10, 0, b't', 0, 0, 0];
        let changes: [(Message, &[u8]); 4] = [
            (
                Message::relink(3, "t", 5),
                &[16, 0, 7, 0, 12, 0, 1, 0, 8, 0, 1, 0, 5, 0, 0, 0],
            ),
            (
                Message::resize(3, "t", 0x2000),
                &[12, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0],
            ),
            (
                Message::end_when_closed(3, "t", true),
                &[12, 0, 6, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                Message::end_when_closed(3, "t", false),
                &[12, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ];
        for (message, tail) in changes {
            assert_eq!(message.command(), 3);
            assert_eq!(bytes(&message), [head, tail].concat());
        }
        let end = Message::disconnect(3);
        assert_eq!((end.command(), bytes(&end)), (2, vec![8, 0, 1, 0, 3, 0, 0, 0]));
    }

    #[test]
    fn the_kernel_names_the_device_whose_link_is_dead() {
        let said = [8, 0, 1, 0, 7, 0, 0, 0];
        assert_eq!(parse(4, &said).unwrap().dead_link(), Some(7));
        assert_eq!(parse(1, &said).unwrap().dead_link(), None);
        assert_eq!(parse(1, &said).unwrap().index(), Some(7));
    }

    #[test]
    fn what_is_cut_off_is_refused_and_never_a_panic() {
        let whole = bytes(&Message::relink(3, "t", 5));
        for length in 0..whole.len() {
            // Whole attributes are read, however few.
            let _ = parse(3, &whole[..length]).map(|message| message.index());
        }
        assert!(parse(4, &[9, 0, 1, 0, 7, 0, 0, 0]).is_err());
        assert_eq!(parse(4, &[6, 0, 1, 0, 7, 0]).unwrap().index(), None);
    }
}
