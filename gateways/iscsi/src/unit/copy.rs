//! EXTENDED COPY, carried out: blocks are read from one unit of the target and written to one (SPC-4 clauses 5.17.7 and
//! 6.5).
//!
//! What the source holds no data for takes no space at the destination. A segment whose blocks overlap those that it is
//! copied to is copied from its other end, so that each block is read before it is written over. Refuses to know how the
//! list is laid out, and sessions.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use client::device::{Operation, Outcome};
use protocol::storage::MapKind;
use tokio::time::Instant;

use crate::reservation::Nexus;
use crate::scsi::command::{Area, Command};
use crate::scsi::extended_copy::{Place, SEGMENT_BYTES_MAX, Segment, parse};
use crate::scsi::sense::Sense;
use crate::unit::blocks::{MAP_PIECE, Span, check, done, put, read_span};
use crate::unit::copies::CopyPlace;
use crate::unit::tasks::{Task, TaskPlace};
use crate::unit::{Done, Unit};

/// Bytes that are read and written at once.
const PIECE: u64 = 1 << 20;
/// Bytes that a copy holds in memory: one piece is read while the one before it is written.
pub const MEMORY: u64 = 2 * PIECE;
/// How long a copy may take. An initiator that hears nothing for so long may give its path up, go on by another one, and
/// write where this would still be copying to.
pub const COPY_TIME_MAX: Duration = Duration::from_secs(5);

/// A copy as it was asked for.
pub struct Commission<'a> {
    /// The unit that the command came to.
    pub receiver: &'a Rc<Unit>,
    /// All units of the target.
    pub units: &'a [Rc<Unit>],
    /// The command's task.
    pub task: &'a Task,
    /// Whether there is still somebody who wants it done.
    pub wanted: &'a dyn Fn() -> bool,
    /// How long it may take.
    pub limit: Duration,
}

/// A segment whose units are found, and whose blocks there are.
struct Leg {
    number: u16,
    source: End,
    destination: End,
}

/// One side of a segment.
struct End {
    unit: Rc<Unit>,
    area: Area,
    /// Where the list describes the unit.
    described: u16,
}

/// A part of a segment that is copied at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Its first byte, counted from the segment's.
    from: u64,
    length: u64,
    /// Whether there is anything to read.
    holds_data: bool,
}

/// Carries out an EXTENDED COPY whose list has `named` bytes by its CDB.
pub async fn perform(commission: &Commission<'_>, parameters: &[u8], named: usize) -> Result<Done, Done> {
    let request = parse(parameters, named)?;
    let legs: Result<Vec<Leg>, Done> = request
        .segments
        .iter()
        .map(|segment| commission.plan(segment))
        .collect();
    let legs = legs?;
    let mut copying = Copying {
        commission,
        // Whoever aborts all that is under way at a destination waits for this, too.
        tasks: legs.iter().filter_map(|leg| commission.begin_at(leg)).collect(),
        until: Instant::now() + commission.limit,
        place: commission
            .receiver
            .copies
            .begin(&commission.task.nexus, request.list),
    };
    let copied = copying.copy(&legs).await;
    if !commission.task.is_aborted() {
        copying.place.end(copied.is_ok());
    }
    copied.map(|()| Done::good())
}

impl Commission<'_> {
    /// Finds a segment's units, and judges whether its blocks may be copied. Nothing is copied if any segment is wrong.
    fn plan(&self, segment: &Segment) -> Result<Leg, Done> {
        let source = self.find(segment, &segment.source)?;
        let destination = self.find(segment, &segment.destination)?;
        let size = |unit: &Unit| u64::from(unit.lun.block_size);
        let counted = if segment.by_destination {
            &destination
        } else {
            &source
        };
        let length = u64::from(segment.count) * size(counted);
        if length > SEGMENT_BYTES_MAX.into() {
            return Err(Sense::parameter(segment.at + 10).into());
        }
        // Blocks that are there in part only would have to be filled up, or kept for the next segment.
        if !length.is_multiple_of(size(&source)) || !length.is_multiple_of(size(&destination)) {
            let inexact = Sense::INEXACT_SEGMENT.about(segment.at + 10);
            return Err(inexact.of_segment(segment.number).into());
        }
        let end = |unit: Rc<Unit>, place: &Place| End {
            area: Area {
                block: place.block,
                count: length / size(&unit),
            },
            unit,
            described: place.target.map_or(segment.at, |target| target.at),
        };
        let leg = Leg {
            number: segment.number,
            source: end(source, &segment.source),
            destination: end(destination, &segment.destination),
        };
        leg.check(&self.task.nexus)?;
        let (from, to) = (leg.source.area, leg.destination.area);
        inside(&leg.source.unit, &Command::Read(from), segment, &segment.source)?;
        inside(
            &leg.destination.unit,
            &Command::Write(to),
            segment,
            &segment.destination,
        )?;
        Ok(leg)
    }

    fn find(&self, segment: &Segment, place: &Place) -> Result<Rc<Unit>, Done> {
        let Some(target) = place.target else {
            return Ok(Rc::clone(self.receiver));
        };
        let named = |unit: &&Rc<Unit>| target.naa == Some(unit.identity.naa);
        let unit = self.units.iter().find(named).ok_or_else(|| {
            let unreachable = Sense::COPY_TARGET_NOT_REACHABLE.about(target.at);
            unreachable.of_segment(segment.number)
        })?;
        if target.block_size != 0 && target.block_size != unit.lun.block_size {
            return Err(Sense::parameter(target.at + 29).into());
        }
        Ok(Rc::clone(unit))
    }

    /// A task at a segment's destination, if it is another unit than the one that the command came to.
    fn begin_at(&self, leg: &Leg) -> Option<TaskPlace> {
        let unit = &leg.destination.unit;
        (!Rc::ptr_eq(unit, self.receiver)).then(|| {
            let place = unit.tasks.begin(&self.task.nexus, self.task.tag);
            place.task.start();
            place
        })
    }
}

/// Refuses blocks that there are not, and changes of what is protected.
fn inside(unit: &Unit, command: &Command, segment: &Segment, place: &Place) -> Result<(), Done> {
    check(unit, command).map_err(|done| match done.sense {
        Some(sense) if sense.code == Sense::OUT_OF_RANGE.code => {
            let aborted = Sense::COPY_ABORTED.about(place.at);
            aborted.of_segment(segment.number).into()
        }
        _ => done,
    })
}

impl Leg {
    /// Refuses what a reservation of one of the units keeps this path from.
    fn check(&self, nexus: &Nexus) -> Result<(), Done> {
        let (source, destination) = (&self.source, &self.destination);
        if source.unit.keeps_out(nexus, &Command::Read(source.area)) {
            return Err(self.failed(source).into());
        }
        if destination
            .unit
            .keeps_out(nexus, &Command::Write(destination.area))
        {
            return Err(self.failed(destination).into());
        }
        Ok(())
    }

    /// One side could not do its part.
    fn failed(&self, end: &End) -> Sense {
        Sense::COPY_TARGET_FAILED
            .about(end.described)
            .of_segment(self.number)
    }

    /// What an initiator is told that a destination said. That there is no room is told as to a write: whoever waits for
    /// more of it waits for these words.
    fn refused(&self, done: Done) -> Done {
        match done.sense {
            Some(sense) if sense.code.0 == Sense::NO_SPACE.code.0 => done,
            _ => self.failed(&self.destination).into(),
        }
    }

    /// Whether its end is copied first: it would be written over before it is read otherwise.
    fn is_backward(&self) -> bool {
        let (source, destination) = (&self.source, &self.destination);
        Rc::ptr_eq(&source.unit, &destination.unit) && destination.area.block > source.area.block
    }

    /// What the source holds, in the order in which it is copied.
    async fn parts(&self) -> Result<Vec<Part>, Done> {
        let unit = &self.source.unit;
        let span = Span::of(unit, self.source.area);
        let mut runs = Vec::new();
        for piece in span.pieces(MAP_PIECE) {
            let Span { offset, length } = piece;
            match done(unit, Operation::Map { offset, length }).await {
                Ok(Outcome::Map(found)) => runs.extend(found),
                _ => return Err(self.failed(&self.source).into()),
            }
        }
        let mut parts = parts_of(&runs);
        if self.is_backward() {
            parts.reverse();
        }
        Ok(parts)
    }
}

/// Cuts runs into parts: data into pieces, what is none only where it ends.
fn parts_of(runs: &[(u64, MapKind)]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut from = 0;
    for (length, kind) in runs {
        let end = from + length;
        let holds_data = *kind == MapKind::Data;
        while from < end {
            let length = if holds_data {
                PIECE.min(end - from)
            } else {
                end - from
            };
            match parts.last_mut() {
                Some(last) if !holds_data && !last.holds_data => last.length += length,
                _ => parts.push(Part {
                    from,
                    length,
                    holds_data,
                }),
            }
            from += length;
        }
    }
    parts
}

/// A copy that is under way.
struct Copying<'a> {
    commission: &'a Commission<'a>,
    /// Its tasks at the destinations.
    tasks: Vec<TaskPlace>,
    until: Instant,
    place: CopyPlace<'a>,
}

impl Copying<'_> {
    async fn copy(&mut self, legs: &[Leg]) -> Result<(), Done> {
        for leg in legs {
            self.place.begin_segment();
            let mut written = 0;
            if let Err(done) = self.copy_leg(leg, &mut written).await {
                return Err(with_residual(done, leg, written));
            }
        }
        Ok(())
    }

    /// Copies a segment: each part is read while the one before it is written.
    async fn copy_leg(&mut self, leg: &Leg, written: &mut u64) -> Result<(), Done> {
        let mut held: Option<(Part, Bytes)> = None;
        for part in leg.parts().await? {
            self.may_go_on(leg)?;
            let (put, read) = tokio::join!(put_held(leg, held.take()), read_part(leg, part));
            self.wrote(put?, written);
            if let Some(data) = read? {
                held = Some((part, data));
            } else {
                self.may_go_on(leg)?;
                self.wrote(zero(leg, part).await?, written);
            }
            // A device in memory answers at once, and others on this thread want to go on, too.
            tokio::task::yield_now().await;
        }
        self.may_go_on(leg)?;
        self.wrote(put_held(leg, held).await?, written);
        Ok(())
    }

    fn wrote(&mut self, bytes: u64, written: &mut u64) {
        *written += bytes;
        self.place.wrote(bytes);
    }

    /// Looks, before each change, whether it is still to be made.
    fn may_go_on(&self, leg: &Leg) -> Result<(), Done> {
        let aborted =
            self.commission.task.is_aborted() || self.tasks.iter().any(|place| place.task.is_aborted());
        if aborted || !(self.commission.wanted)() || Instant::now() >= self.until {
            return Err(Sense::COPY_ABORTED.of_segment(leg.number).into());
        }
        leg.check(&self.commission.task.nexus)
    }
}

/// Reads a part; nothing if there is nothing to read.
async fn read_part(leg: &Leg, part: Part) -> Result<Option<Bytes>, Done> {
    if !part.holds_data {
        return Ok(None);
    }
    let Span { offset, .. } = Span::of(&leg.source.unit, leg.source.area);
    let span = Span {
        offset: offset + part.from,
        length: part.length,
    };
    let data = read_span(&leg.source.unit, span).await;
    data.map(Some).map_err(|_| leg.failed(&leg.source).into())
}

/// Writes what was read. Gives the bytes that were written.
async fn put_held(leg: &Leg, held: Option<(Part, Bytes)>) -> Result<u64, Done> {
    let Some((part, data)) = held else { return Ok(0) };
    let Span { offset, .. } = Span::of(&leg.destination.unit, leg.destination.area);
    let put = put(&leg.destination.unit, offset + part.from, vec![data]).await;
    put.map(|()| part.length).map_err(|done| leg.refused(done))
}

/// Makes a part read as zeros, which takes no space. Gives the bytes that were written.
async fn zero(leg: &Leg, part: Part) -> Result<u64, Done> {
    let Span { offset, .. } = Span::of(&leg.destination.unit, leg.destination.area);
    let operation = Operation::WriteZeroes {
        offset: offset + part.from,
        length: part.length,
    };
    let zeroed = done(&leg.destination.unit, operation).await;
    zeroed.map(|_| part.length).map_err(|done| leg.refused(done))
}

/// Adds how much of a segment was not copied, in blocks of the destination, if a part of it was. Only what is whole from
/// the segment's first block on counts.
fn with_residual(mut done: Done, leg: &Leg, written: u64) -> Done {
    let Area { count, .. } = leg.destination.area;
    let whole = if leg.is_backward() {
        0
    } else {
        written / u64::from(leg.destination.unit.lun.block_size)
    };
    if written > 0 {
        done.sense = done.sense.map(|sense| sense.at(count.saturating_sub(whole)));
    }
    done
}

#[cfg(test)]
pub(super) mod tests;
