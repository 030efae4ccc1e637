//! Large writes to disks on the same machine: their data is in memory that all of them map.
//!
//! The volume has one area, from which its front end takes the buffers that it copies writes into. A
//! disk that was offered the area is sent requests that name a place there instead of the data. Each
//! connection keeps what it sent that way until the answer comes. If it ends before, the disk may still
//! be at it: the area is retired, and the next connection is offered a new one.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use direct::area::Area;
use protocol::codec::Message;
use protocol::message::{Request, Response};
use protocol::storage::{Change, ObjectWrite};

use crate::transport::Link;

/// What one connection shares.
pub(super) struct SharedWrites {
    area: Area,
    under_way: HashMap<u64, Bytes>,
}

impl SharedWrites {
    /// Offers memory to a disk that was just greeted; nothing if it cannot use it.
    pub(super) async fn offer(link: &mut Link, area: Area) -> io::Result<Option<Self>> {
        let descriptor = area.descriptor();
        link.outbox.push_request(0, &Request::Area { descriptor });
        match link.converse().await? {
            (0, Message::Response(Response::Ok)) => Ok(Some(Self {
                area,
                under_way: HashMap::new(),
            })),
            (0, Message::Response(Response::Refused(_))) => Ok(None),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the disk does not say whether it takes the memory",
            )),
        }
    }

    /// The request to send in place of a write whose data is in the memory. Nothing if it is another
    /// request, its data is elsewhere, or it has no whole chunk.
    pub(super) fn share(&mut self, number: u64, request: &Request) -> Option<Request> {
        let Request::Write { scope, write } = request else {
            return None;
        };
        let Change::Data { bytes, checksums } = &write.change else {
            return None;
        };
        if !write.range.has_whole_chunk() {
            return None;
        }
        let at = self.area.place_of(bytes)?;
        self.under_way.insert(number, bytes.clone());
        let change = Change::Data {
            bytes: Bytes::new(),
            checksums: checksums.clone(),
        };
        let write = ObjectWrite {
            change,
            ..write.clone()
        };
        let scope = *scope;
        Some(Request::WriteShared { scope, write, at })
    }

    /// A request was answered: the disk needs its data no more.
    pub(super) fn answered(&mut self, number: u64) {
        self.under_way.remove(&number);
    }
}

impl Drop for SharedWrites {
    fn drop(&mut self) {
        if !self.under_way.is_empty() {
            self.area.retire();
        }
    }
}
