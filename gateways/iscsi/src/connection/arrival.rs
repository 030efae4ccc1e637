//! Where the data of a request goes: what will be written, straight from the socket to where the disk takes it from.
//!
//! The room of a write is made once, for all of its data. While a PDU of it is read nothing else holds the room.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use client::device::WriteBuffer;
use tokio::net::tcp::OwnedReadHalf;

use crate::connection::Connection;
use crate::connection::commands::unit_number;
use crate::connection::stream::{PduReader, ReadError};
use crate::scsi::inquiry::TRANSFER_MAX;
use crate::wire::header::Header;
use crate::wire::request::{Kind, Request};

/// Data of a request.
pub(super) enum Data {
    /// In its place in the room of its write.
    InRoom(WriteBuffer),
    /// By itself.
    Alone(Bytes),
}

impl Data {
    /// By itself. Only commands and their data have room made for them; of others this is empty.
    pub(super) fn alone(self) -> Bytes {
        match self {
            Self::Alone(bytes) => bytes,
            Self::InRoom(_) => Bytes::new(),
        }
    }

    /// In a room of this length, the first bytes of it from where they are.
    pub(super) fn in_room(self, length: usize, make: impl FnOnce(usize) -> WriteBuffer) -> WriteBuffer {
        let bytes = match self {
            Self::InRoom(room) if room.length() == length => return room,
            // More was announced than is of use.
            Self::InRoom(room) => room.freeze(),
            Self::Alone(bytes) => bytes,
        };
        let mut room = make(length);
        copy(&bytes, &mut room, 0);
        room
    }
}

/// Copies what fits to a place in a room.
pub(super) fn copy(bytes: &[u8], room: &mut WriteBuffer, offset: usize) {
    let useful = bytes.len().min(room.length().saturating_sub(offset));
    if useful > 0 {
        room.bytes_mut()[offset..offset + useful].copy_from_slice(&bytes[..useful]);
    }
}

impl Connection {
    /// Reads what comes after a header. Says whether the data's digest is wrong.
    pub(super) async fn arrive(
        self: &Rc<Self>,
        reader: &mut PduReader<OwnedReadHalf>,
        header: &Header,
        request: Option<&Request>,
    ) -> Result<(Data, bool), ReadError> {
        let length = header.data_length();
        if let Some((mut room, place)) = request.and_then(|request| self.room(request, length)) {
            let damaged = reader.fill(&mut room.bytes_mut()[place]).await?;
            return Ok((Data::InRoom(room), damaged));
        }
        let pdu = reader.rest(*header).await?;
        Ok((Data::Alone(pdu.data), pdu.damaged))
    }

    /// The room for data of this length, and its place there.
    fn room(&self, request: &Request, length: usize) -> Option<(WriteBuffer, Range<usize>)> {
        match request.kind {
            _ if length == 0 => None,
            // It has its room before it is judged, so no more is taken for it than block limits tell.
            Kind::Command(ref command)
                if command.write && u64::from(command.expected_length) <= TRANSFER_MAX =>
            {
                let all = usize::try_from(command.expected_length).ok()?;
                let unit = unit_number(request.lun).and_then(|number| self.home.unit(number))?;
                (length <= all).then(|| (unit.device.buffer(all), 0..length))
            }
            Kind::DataOut {
                target_tag,
                number,
                offset,
            } => {
                let mut writes = self.writes.borrow_mut();
                let write = writes.get_mut(&request.task_tag)?;
                if !write.assembly.awaits((target_tag, number, offset), length) {
                    return None;
                }
                let start = usize::try_from(offset).ok()?;
                write.room.take().map(|room| (room, start..start + length))
            }
            _ => None,
        }
    }
}
