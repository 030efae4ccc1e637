//! The receiving end of a connection: bytes go in as they come, whole checked messages come out.
//!
//! Payloads end in buffers whose address is a multiple of 4096, so that a disk can write them as
//! they are. A payload that has not come as a whole is received straight into such a buffer; only
//! what came together with other frames is copied. Knows nothing of sockets.

use std::io::IoSliceMut;

use aligned_vec::{AVec, ConstAlign};
use bytes::Bytes;

use crate::checksum::crc;
use crate::codec::{self, Message};
use crate::frame::{HEADER_LEN, Header, WireError};

/// Where bytes arrive first. One read brings up to 30 small writes with their data; a larger buffer
/// did not bring more messages a read, and costs cache.
const BUFFER_LEN: usize = 128 * 1024;

/// Bytes that begin at an address that is a multiple of 4096.
type Aligned = AVec<u8, ConstAlign<4096>>;

/// A frame whose payload is still coming.
struct Partial {
    header: Header,
    body: Vec<u8>,
    payload: Aligned,
    filled: usize,
}

/// Takes the bytes of one connection, in order.
pub struct Inbox {
    buffer: Vec<u8>,
    /// What of the buffer was received and not used yet.
    start: usize,
    end: usize,
    partial: Option<Partial>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// An inbox for a new connection.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_LEN],
            start: 0,
            end: 0,
            partial: None,
        }
    }

    /// Where the next bytes belong, in this order. At least one of the two is not empty.
    pub fn spaces(&mut self) -> [IoSliceMut<'_>; 2] {
        let payload = match &mut self.partial {
            Some(partial) => &mut partial.payload[partial.filled..],
            None => &mut [],
        };
        [
            IoSliceMut::new(payload),
            IoSliceMut::new(&mut self.buffer[self.end..]),
        ]
    }

    /// Says that `count` bytes were put into [`Self::spaces`].
    pub fn received(&mut self, count: usize) {
        let mut rest = count;
        if let Some(partial) = &mut self.partial {
            let direct = rest.min(partial.payload.len() - partial.filled);
            partial.filled += direct;
            rest -= direct;
        }
        self.end = self.buffer.len().min(self.end + rest);
    }

    /// Whether the bytes so far end between two frames: a connection that ends elsewhere was cut.
    pub fn is_between_frames(&self) -> bool {
        self.partial.is_none() && self.start == self.end
    }

    /// The next whole message and its request number, or nothing until more bytes came.
    ///
    /// After an error the connection is of no use any more.
    pub fn take_message(&mut self) -> Result<Option<(u64, Message)>, WireError> {
        if self.partial.is_none() {
            match self.begin()? {
                Begun::Nothing => return Ok(None),
                Begun::Whole(number, message) => return Ok(Some((number, message))),
                Begun::Partial(partial) => self.partial = Some(partial),
            }
        }
        let Some(partial) = self
            .partial
            .take_if(|partial| partial.filled == partial.payload.len())
        else {
            return Ok(None);
        };
        let payload = Bytes::from_owner(partial.payload);
        let message = codec::decode(partial.header.kind, &partial.body, payload)?;
        Ok(Some((partial.header.number, message)))
    }

    fn begin(&mut self) -> Result<Begun, WireError> {
        let received = &self.buffer[self.start..self.end];
        let Some(header) = received.first_chunk::<HEADER_LEN>() else {
            self.make_room(HEADER_LEN);
            return Ok(Begun::Nothing);
        };
        let header = Header::decode(header)?;
        let head_len = HEADER_LEN + header.body_len as usize;
        let Some(body) = received.get(HEADER_LEN..head_len) else {
            self.make_room(head_len);
            return Ok(Begun::Nothing);
        };
        if crc(body) != header.body_crc {
            return Err(WireError::Checksum("body"));
        }
        let payload_len = header.payload_len as usize;
        let here = &received[head_len..received.len().min(head_len + payload_len)];
        if here.len() == payload_len {
            let payload = match here {
                [] => Bytes::new(),
                here => Bytes::from_owner(Aligned::from_slice(4096, here)),
            };
            let message = codec::decode(header.kind, body, payload)?;
            self.start += head_len + payload_len;
            return Ok(Begun::Whole(header.number, message));
        }
        let mut payload = Aligned::with_capacity(4096, payload_len);
        payload.extend_from_slice(here);
        payload.resize(payload_len, 0);
        let partial = Partial {
            header,
            body: body.to_vec(),
            payload,
            filled: here.len(),
        };
        // The payload takes all that came, so that what comes next goes straight into it.
        (self.start, self.end) = (0, 0);
        Ok(Begun::Partial(partial))
    }

    /// Sees to it that a head of `needed` bytes fits behind `start`, and that there is room to read.
    fn make_room(&mut self, needed: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // A long session message made it longer: give that back.
            self.buffer.truncate(BUFFER_LEN);
            self.buffer.shrink_to(BUFFER_LEN);
        }
        if self.start + needed > self.buffer.len() || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if needed > self.buffer.len() {
            self.buffer.resize(needed, 0);
        }
    }
}

enum Begun {
    Nothing,
    Whole(u64, Message),
    Partial(Partial),
}

#[cfg(test)]
mod tests {
    //! However the bytes are cut on their way, the same messages come out, and no others.
    use super::*;
    use crate::frame::{Kind, MAGIC};
    use crate::id::{LayerId, ObjectId};
    use crate::message::{Request, Scope};
    use crate::outbox::Outbox;
    use crate::session::SessionRequest;
    use crate::storage::{Change, ObjectWrite};
    use crate::{BlockRange, FamilyId, Generation, Interval, PgId, Stamp, TreeRevision, VolumeId};
    use proptest::prelude::*;

    fn scope() -> Scope {
        Scope {
            pg: PgId::default(),
            interval: Interval(3),
            volume: VolumeId(1),
            generation: Generation(9),
            revision: TreeRevision(2),
        }
    }

    fn write(blocks: u32, seed: u8) -> Request {
        let bytes = Bytes::from(vec![seed; blocks as usize * 4096]);
        let change = Change::Data {
            checksums: crate::checksum::of_blocks(&bytes),
            bytes,
        };
        let object = ObjectId {
            family: FamilyId(1),
            index: 0,
            layer: LayerId(4),
        };
        let stamp = Stamp {
            generation: Generation(9),
            count: seed.into(),
        };
        let range = BlockRange::new(0, blocks).unwrap();
        Request::Write {
            scope: scope(),
            write: ObjectWrite {
                object,
                follows: Stamp::ZERO,
                stamp,
                range,
                change,
                use_reserve: false,
                floor: Stamp::ZERO,
            },
        }
    }

    fn bytes_of(outbox: &mut Outbox) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let chunk: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            outbox.sent(chunk.len());
            all.extend(chunk);
        }
        all
    }

    /// Puts `bytes` in as reads of at most `step` bytes would, and collects what comes out.
    fn receive(bytes: &[u8], steps: &[usize]) -> Result<Vec<(u64, Message)>, WireError> {
        let (mut inbox, mut out, mut at) = (Inbox::new(), Vec::new(), 0);
        for step in steps.iter().copied().cycle() {
            let mut taken = 0;
            for mut space in inbox.spaces() {
                let part = space.len().min(step.max(1) - taken).min(bytes.len() - at);
                space[..part].copy_from_slice(&bytes[at..at + part]);
                at += part;
                taken += part;
            }
            assert!(taken > 0 || at == bytes.len(), "an inbox always has room");
            inbox.received(taken);
            while let Some(message) = inbox.take_message()? {
                out.push(message);
            }
            if at == bytes.len() {
                break;
            }
        }
        Ok(out)
    }

    #[test]
    fn a_payload_begins_at_an_aligned_address_however_it_came() {
        for (blocks, step) in [
            (1, 1 << 20),
            (1, 100),
            (1024, 1 << 20),
            (1024, 5000),
            (40, 131_072),
        ] {
            let mut outbox = Outbox::new();
            outbox.push_request(1, &write(blocks, 5));
            let messages = receive(&bytes_of(&mut outbox), &[step]).unwrap();
            let Message::Request(Request::Write { write, .. }) = &messages[0].1 else {
                panic!("a write")
            };
            let Change::Data { bytes, .. } = &write.change else {
                panic!("data")
            };
            assert_eq!(bytes.as_ptr() as usize % 4096, 0);
        }
    }

    #[test]
    fn a_long_session_message_fits_and_small_ones_follow_it() {
        let program = "x".repeat(300_000);
        let long = SessionRequest::Hello {
            program,
            pid: 1,
            yields: false,
            moves: false,
        };
        let mut outbox = Outbox::new();
        outbox.push_session_request(1, &long);
        outbox.push_request(2, &Request::Ping { scope: scope() });
        let messages = receive(&bytes_of(&mut outbox), &[1000]).unwrap();
        assert_eq!(messages[0], (1, Message::SessionRequest(long)));
        assert_eq!(
            messages[1],
            (2, Message::Request(Request::Ping { scope: scope() }))
        );
    }

    #[test]
    fn a_frame_that_claims_a_large_payload_reserves_nothing_before_its_body_is_sound() {
        let header = Header {
            kind: Kind::Write,
            number: 1,
            body_len: 0,
            payload_len: 4 << 20,
            body_crc: 1,
        };
        assert_eq!(receive(&header.encode(), &[32]), Err(WireError::Checksum("body")));
    }

    #[test]
    fn another_protocol_is_told_by_its_first_bytes() {
        let other = b"GET / HTTP/1.1\r\nHost: localhost\r\n";
        assert!(matches!(receive(other, &[64]), Err(WireError::Magic(magic)) if magic != MAGIC));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            sizes in prop::collection::vec((1u32..70, any::<u8>()), 1..12),
            steps in prop::collection::vec(1usize..200_000, 1..5),
        ) {
            let mut outbox = Outbox::new();
            let mut expected = Vec::new();
            for (number, (blocks, seed)) in (0..).zip(sizes) {
                let request = if seed % 4 == 0 { Request::Ping { scope: scope() } } else { write(blocks, seed) };
                outbox.push_request(number, &request);
                expected.push((number, Message::Request(request)));
            }
            prop_assert_eq!(receive(&bytes_of(&mut outbox), &steps).unwrap(), expected);
        }

        #[test]
        fn a_flipped_bit_outside_a_payload_never_passes(bit in 0usize..2000, seed in any::<u8>()) {
            let mut outbox = Outbox::new();
            outbox.push_request(1, &write(1, seed));
            let mut bytes = bytes_of(&mut outbox);
            let bit = bit % ((bytes.len() - 4096) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let result = receive(&bytes, &[1 << 20]);
            prop_assert!(result.is_err(), "{result:?}");
        }
    }
}
