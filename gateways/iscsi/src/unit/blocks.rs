//! Commands about blocks (SBC-3 clause 5), carried out on the device.

use bytes::{Bytes, BytesMut};
use client::device::{COMPARE_MAX, DeviceError, Operation, Outcome};
use client::request::{joined, perform as ask, read};
use protocol::storage::MapKind;

use crate::scsi::command::{Area, Command, Comparison};
use crate::scsi::inquiry::{RANGE_MAX, SAME_MAX, TRANSFER_MAX, compare_max};
use crate::scsi::provisioning;
use crate::scsi::sense::{Sense, status};
use crate::unit::{Done, Unit, copy};

/// What one write of WRITE SAME covers at most, in bytes.
const SAME_PIECE: u64 = 1 << 20;
/// What is asked of the device at once for GET LBA STATUS, in bytes: most initiators want to know of one run.
pub(super) const MAP_PIECE: u64 = 4 << 20;
/// How often a piece of an ORWRITE is begun anew because somebody else changed it. Each time another one got on.
const OR_TRIES_MAX: u32 = 256;
/// Runs that one GET LBA STATUS tells at most.
const RUNS_MAX: usize = 256;

/// Whether a command is carried out here.
pub fn is_about_blocks(command: &Command) -> bool {
    area(command).is_some() || matches!(command, Command::Unmap { .. } | Command::LbaStatus { .. })
}

/// The blocks that a command names.
fn area(command: &Command) -> Option<Area> {
    match command {
        Command::Read(area)
        | Command::Write(area)
        | Command::WriteVerify(area, _)
        | Command::Verify(area, _)
        | Command::OrWrite(area)
        | Command::CompareAndWrite(area)
        | Command::WriteSame { area, .. }
        | Command::Synchronize(area)
        | Command::Prefetch(area) => Some(*area),
        _ => None,
    }
}

fn changes(command: &Command) -> bool {
    matches!(
        command,
        Command::Write(_)
            | Command::WriteVerify(..)
            | Command::OrWrite(_)
            | Command::CompareAndWrite(_)
            | Command::WriteSame { .. }
            | Command::Unmap { .. }
    )
}

/// Bytes that an initiator must send for a command.
pub fn data_length(command: &Command, block_size: u32) -> u64 {
    let bytes = |count: u64| count.saturating_mul(block_size.into());
    let length = |length: &usize| *length as u64;
    match command {
        Command::Write(area)
        | Command::OrWrite(area)
        | Command::WriteVerify(area, _)
        | Command::Verify(area, Comparison::Data) => bytes(area.count),
        Command::CompareAndWrite(area) => bytes(area.count).saturating_mul(2),
        Command::Verify(_, Comparison::OneBlock) | Command::WriteSame { no_data: false, .. } => bytes(1),
        Command::Unmap { length: named }
        | Command::ModeSelect { length: named, .. }
        | Command::ExtendedCopy { length: named }
        | Command::PersistentOut { length: named, .. } => length(named),
        _ => 0,
    }
}

/// Bytes that a command holds in memory while it is carried out, whatever its initiator announced.
pub fn memory(command: &Command, block_size: u32) -> u64 {
    let bytes = area(command).map_or(0, |area| area.count.saturating_mul(block_size.into()));
    match command {
        Command::Synchronize(_) | Command::Prefetch(_) => 0,
        Command::ExtendedCopy { .. } => copy::MEMORY,
        Command::Verify(_, Comparison::Nothing | Comparison::OneBlock) | Command::WriteSame { .. } => {
            bytes.min(SAME_PIECE)
        }
        _ => bytes.max(data_length(command, block_size)),
    }
}

/// Refuses a command that is one step, and comes with more or less data than it needs: no part of it can be done.
pub fn check_length(command: &Command, block_size: u32, given: u32) -> Result<(), Done> {
    let whole = matches!(
        command,
        Command::CompareAndWrite(_) | Command::OrWrite(_) | Command::WriteSame { no_data: false, .. }
    );
    if whole && data_length(command, block_size) != u64::from(given) {
        return Err(Sense::INVALID_FIELD.into());
    }
    Ok(())
}

/// Refuses what no data can make good: blocks beyond the end, too many of them, changes of what is protected.
pub fn check(unit: &Unit, command: &Command) -> Result<(), Done> {
    let medium = unit.medium();
    if changes(command) {
        if medium.read_only {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        if unit.mode.get().software_protected {
            return Err(Sense::SOFTWARE_PROTECTED.into());
        }
    }
    let Some(area) = area(command) else {
        return Ok(());
    };
    let end = area.block.checked_add(area.count);
    if end.is_none_or(|end| end > medium.blocks) {
        return Err(Sense::OUT_OF_RANGE.at(area.block).into());
    }
    let most = match command {
        Command::Synchronize(_) | Command::Prefetch(_) => u64::MAX,
        Command::CompareAndWrite(_) => {
            u64::from(compare_max(medium.block_size)) * u64::from(medium.block_size)
        }
        Command::WriteSame { area, .. } if area.count == 0 => return Err(Sense::INVALID_FIELD.into()),
        Command::WriteSame { .. } => SAME_MAX,
        // Only what is compared with data must be held in memory.
        Command::Verify(_, Comparison::Nothing | Comparison::OneBlock) => RANGE_MAX,
        _ => TRANSFER_MAX,
    };
    if area.count.saturating_mul(medium.block_size.into()) > most {
        return Err(Sense::INVALID_FIELD.into());
    }
    Ok(())
}

/// Bytes of the device.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Span {
    pub(super) fn of(unit: &Unit, area: Area) -> Self {
        let size = u64::from(unit.lun.block_size);
        Self {
            offset: area.block * size,
            length: area.count * size,
        }
    }

    /// Pieces that a volume compares and writes as one step: none crosses a multiple of its most bytes, so none crosses an
    /// object's border.
    fn compared_pieces(self) -> impl Iterator<Item = Self> {
        let (most, end) = (u64::from(COMPARE_MAX), self.offset + self.length);
        let starts = (self.offset / most..end.div_ceil(most)).map(move |piece| piece * most);
        starts.map(move |start| {
            let offset = start.max(self.offset);
            Self {
                offset,
                length: end.min(start + most) - offset,
            }
        })
    }

    /// Pieces of at most so many bytes.
    pub(super) fn pieces(self, most: u64) -> impl Iterator<Item = Self> {
        let end = self.offset + self.length;
        let starts = (self.offset..end).step_by(usize::try_from(most).unwrap_or(usize::MAX));
        starts.map(move |offset| Self {
            offset,
            length: most.min(end - offset),
        })
    }
}

/// Carries out a command.
pub async fn perform(unit: &Unit, command: Command, data: Vec<Bytes>) -> Result<Done, Done> {
    let span = area(&command).map_or(Span { offset: 0, length: 0 }, |area| Span::of(unit, area));
    match command {
        Command::Read(_) => return read_blocks(unit, span).await,
        Command::Write(_) => {
            let (span, data) = clipped(unit, span, data);
            write(unit, span, data).await?;
        }
        Command::WriteVerify(..) => {
            let (span, data) = clipped(unit, span, data);
            write(unit, span, data.clone()).await?;
            // What the initiator wants to know is whether it can be read back.
            compare(unit, span, &joined(data)).await?;
        }
        Command::Verify(_, Comparison::Nothing) => {
            for piece in span.pieces(SAME_PIECE) {
                read_span(unit, piece).await?;
            }
        }
        Command::Verify(_, Comparison::Data) => {
            let (span, data) = clipped(unit, span, data);
            compare(unit, span, &joined(data)).await?;
        }
        Command::Verify(_, Comparison::OneBlock) => compare_one_block(unit, span, &joined(data)).await?,
        Command::OrWrite(_) => or_write(unit, span, &joined(data)).await?,
        Command::CompareAndWrite(_) => compare_and_write(unit, span, &joined(data)).await?,
        Command::WriteSame { unmap, no_data, .. } => {
            let block = if no_data { Bytes::new() } else { joined(data) };
            write_same(unit, span, &block, unmap, no_data).await?;
        }
        Command::Unmap { length } => unmap(unit, &joined(data), length).await?,
        Command::Synchronize(_) => {
            done(unit, Operation::Flush).await?;
        }
        Command::LbaStatus { block, allocation } => return lba_status(unit, block, allocation).await,
        _ => {}
    }
    Ok(Done::good())
}

/// What an initiator is told about what the device said.
fn sense_of(unit: &Unit, error: &DeviceError) -> Done {
    let block = |offset: u64| offset / u64::from(unit.lun.block_size);
    match error {
        DeviceError::Invalid { .. } => Sense::OUT_OF_RANGE,
        // It crosses a border within the volume, over which nothing is one step.
        DeviceError::NotComparable => Sense::INVALID_FIELD,
        DeviceError::NotKnown | DeviceError::Contended { .. } => Sense::INTERNAL,
        DeviceError::ReadOnly => Sense::WRITE_PROTECTED,
        DeviceError::Damaged { offset } => Sense::UNREADABLE.at(block(*offset)),
        DeviceError::Full => Sense::NO_SPACE,
        DeviceError::Lost | DeviceError::Closed | DeviceError::OlderOwner => Sense::NOT_ACCESSIBLE,
    }
    .into()
}

pub(super) async fn done(unit: &Unit, operation: Operation) -> Result<Outcome, Done> {
    ask(&*unit.device, operation)
        .await
        .map_err(|error| sense_of(unit, &error))
}

pub(super) async fn read_span(unit: &Unit, span: Span) -> Result<Bytes, Done> {
    if span.length == 0 {
        return Ok(Bytes::new());
    }
    let bytes = read(&*unit.device, span.offset, span.length).await;
    bytes.map_err(|error| sense_of(unit, &error))
}

async fn read_blocks(unit: &Unit, span: Span) -> Result<Done, Done> {
    if span.length == 0 {
        return Ok(Done::good());
    }
    let operation = Operation::Read {
        offset: span.offset,
        length: span.length,
    };
    match done(unit, operation).await? {
        Outcome::Data(data) => Ok(Done { data, ..Done::good() }),
        Outcome::Done | Outcome::Map(_) | Outcome::Differs { .. } => Err(Sense::NOT_ACCESSIBLE.into()),
    }
}

/// The part of a span that there is data for, in whole blocks, with the data for it: an initiator may announce less data
/// than its CDB names blocks, and then what came is written.
fn clipped(unit: &Unit, span: Span, data: Vec<Bytes>) -> (Span, Vec<Bytes>) {
    let size = u64::from(unit.lun.block_size);
    let given = data.iter().map(Bytes::len).sum::<usize>() as u64;
    if given == span.length {
        return (span, data);
    }
    let length = span.length.min(given);
    let length = length - length % size;
    let kept = usize::try_from(length).unwrap_or(usize::MAX);
    (Span { length, ..span }, vec![joined(data).slice(..kept)])
}

async fn write(unit: &Unit, span: Span, data: Vec<Bytes>) -> Result<(), Done> {
    if span.length == 0 {
        return Ok(());
    }
    put(unit, span.offset, data).await
}

pub(super) async fn put(unit: &Unit, offset: u64, data: Vec<Bytes>) -> Result<(), Done> {
    done(unit, Operation::Write { offset, data }).await.map(drop)
}

/// Compares what is there with `data`, which is as long as the span.
async fn compare(unit: &Unit, span: Span, data: &[u8]) -> Result<(), Done> {
    let present = read_span(unit, span).await?;
    same(&present, data)
}

fn same(present: &[u8], data: &[u8]) -> Result<(), Done> {
    let differs = present.iter().zip(data).position(|(one, other)| one != other);
    differs.map_or(Ok(()), |at| Err(Sense::MISCOMPARE.at(at as u64).into()))
}

async fn compare_one_block(unit: &Unit, span: Span, block: &[u8]) -> Result<(), Done> {
    let size = unit.lun.block_size as usize;
    if block.len() < size {
        return Err(Sense::NOT_ENOUGH_DATA.into());
    }
    for piece in span.pieces(SAME_PIECE) {
        let present = read_span(unit, piece).await?;
        for one in present.chunks(size) {
            same(one, block)?;
        }
    }
    Ok(())
}

async fn or_write(unit: &Unit, span: Span, data: &[u8]) -> Result<(), Done> {
    if (data.len() as u64) < span.length {
        return Err(Sense::NOT_ENOUGH_DATA.into());
    }
    if span.length == 0 {
        return Ok(());
    }
    // Bits that are set by several at once are all set, in whatever order: pieces may be one step each.
    for piece in span.compared_pieces() {
        let from = usize::try_from(piece.offset - span.offset).unwrap_or(usize::MAX);
        let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
        or_piece(unit, piece, &data[from..from + length]).await?;
    }
    Ok(())
}

async fn or_piece(unit: &Unit, span: Span, data: &[u8]) -> Result<(), Done> {
    for _ in 0..OR_TRIES_MAX {
        let expected = read_span(unit, span).await?;
        let mut bytes = BytesMut::from(&expected[..]);
        for (byte, more) in bytes.iter_mut().zip(data) {
            *byte |= more;
        }
        let operation = Operation::CompareAndWrite {
            offset: span.offset,
            expected,
            data: bytes.freeze(),
        };
        match ask(&*unit.device, operation).await {
            Ok(Outcome::Differs { .. }) => {}
            // The bits are set, by this command or by another one.
            Ok(_) | Err(DeviceError::NotKnown) => return Ok(()),
            Err(error) => return Err(sense_of(unit, &error)),
        }
    }
    Err(Done::status(status::BUSY))
}

async fn compare_and_write(unit: &Unit, span: Span, data: &Bytes) -> Result<(), Done> {
    let length = usize::try_from(span.length).unwrap_or(usize::MAX);
    if data.len() / 2 < length {
        return Err(Sense::NOT_ENOUGH_DATA.into());
    }
    if length == 0 {
        return Ok(());
    }
    let operation = Operation::CompareAndWrite {
        offset: span.offset,
        expected: data.slice(..length),
        data: data.slice(length..2 * length),
    };
    match done(unit, operation).await? {
        Outcome::Differs { offset } => Err(Sense::MISCOMPARE.at(offset - span.offset).into()),
        _ => Ok(()),
    }
}

async fn write_same(unit: &Unit, span: Span, block: &Bytes, unmap: bool, no_data: bool) -> Result<(), Done> {
    let size = unit.lun.block_size as usize;
    if !no_data && block.len() < size {
        return Err(Sense::NOT_ENOUGH_DATA.into());
    }
    let Span { offset, length } = span;
    // Zeros take no space, whether the initiator knows that or not.
    if block.iter().all(|byte| *byte == 0) {
        let operation = if unmap {
            Operation::Discard { offset, length }
        } else {
            Operation::WriteZeroes { offset, length }
        };
        return done(unit, operation).await.map(drop);
    }
    let repeated = usize::try_from(length.min(SAME_PIECE)).unwrap_or(usize::MAX) / size;
    let pattern = Bytes::from(block[..size].repeat(repeated));
    for piece in span.pieces(SAME_PIECE) {
        let kept = usize::try_from(piece.length).unwrap_or(usize::MAX);
        put(unit, piece.offset, vec![pattern.slice(..kept)]).await?;
    }
    Ok(())
}

async fn unmap(unit: &Unit, parameters: &[u8], named: usize) -> Result<(), Done> {
    if parameters.len() < named {
        return Err(Sense::PARAMETER_LENGTH.into());
    }
    for area in provisioning::unmap(parameters, unit.medium())? {
        let span = Span::of(unit, area);
        if span.length > 0 {
            let Span { offset, length } = span;
            done(unit, Operation::Discard { offset, length }).await?;
        }
    }
    Ok(())
}

async fn lba_status(unit: &Unit, block: u64, allocation: usize) -> Result<Done, Done> {
    let medium = unit.medium();
    if block >= medium.blocks {
        return Err(Sense::OUT_OF_RANGE.at(block).into());
    }
    let span = Span::of(
        unit,
        Area {
            block,
            count: medium.blocks - block,
        },
    );
    let whole = (allocation.saturating_sub(8) / 16).clamp(1, RUNS_MAX);
    let asked = Span {
        length: span.length.min(RANGE_MAX),
        ..span
    };
    let mut merged: Vec<(u64, MapKind)> = Vec::new();
    // A run is known to be whole once the next one is there.
    for piece in asked.pieces(MAP_PIECE) {
        if merged.len() > whole {
            break;
        }
        let Span { offset, length } = piece;
        let Outcome::Map(runs) = done(unit, Operation::Map { offset, length }).await? else {
            return Err(Sense::NOT_ACCESSIBLE.into());
        };
        for (length, kind) in runs {
            // Zeros that were written and what was never written are the same to an initiator.
            let kind = if kind == MapKind::Data {
                kind
            } else {
                MapKind::Hole
            };
            match merged.last_mut() {
                Some((sum, last)) if *last == kind => *sum += length,
                _ => merged.push((length, kind)),
            }
        }
    }
    merged.truncate(whole);
    Ok(Done::data(
        provisioning::status(block, &merged, medium.block_size),
        allocation,
    ))
}
