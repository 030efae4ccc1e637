//! What the users of front ends do: reads, writes, zeros, flushes and maps, many at once, on few
//! blocks, so that they meet.

use std::fmt::from_fn;

use bytes::{Bytes, BytesMut};
use protocol::profile::Profile;
use protocol::rows::{Row, Rows};
use protocol::{BLOCK_SIZE, Generation, OBJECT_SIZE, VolumeId, checksum};
use replication::owner::{Event, Failure, IoId, Operation, Outcome};

use crate::oracle::{Floors, Image};
use crate::world::{Happening, Life, World};

/// Objects in a volume.
const OBJECTS: u64 = 4;
/// A volume's size in bytes.
pub(crate) const VOLUME_SIZE: u64 = OBJECTS * OBJECT_SIZE as u64;
/// Blocks in each run that is used: it lies across the border of two objects.
const RUN: u64 = 8;
/// Blocks of a volume that are used: the runs one after the other.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(crate) const ACTIVE_BLOCKS: usize = ((OBJECTS - 1) * RUN) as usize;
/// Operations of one front end that are unanswered at once.
const DEPTH: usize = 8;

/// An operation that is not answered.
#[derive(Debug)]
pub(crate) struct Submitted {
    first: usize,
    count: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    Read {
        floors: Floors,
        /// How many disks had been put out by then, if none of them was out.
        whole: Option<u64>,
    },
    Write {
        order: u64,
        /// Whether it lies in one object, so that a refusal means that nothing was written.
        whole: bool,
    },
    /// A flush: these writes were acknowledged or not when it was submitted.
    Flush(Vec<IoId>),
    Map,
}

/// Where an active block lies in the volume, in bytes.
fn offset(active: usize) -> u64 {
    let active = active as u64;
    let border = (active / RUN + 1) * u64::from(OBJECT_SIZE);
    border + (active % RUN) * u64::from(BLOCK_SIZE) - RUN / 2 * u64::from(BLOCK_SIZE)
}

/// The bytes of blocks: in each, which write it was, and where it belongs.
fn content(order: u64, first: usize, count: usize) -> Bytes {
    let mut bytes = BytesMut::zeroed(count * BLOCK_SIZE as usize);
    for (active, block) in (first..).zip(bytes.chunks_mut(BLOCK_SIZE as usize)) {
        block[..8].copy_from_slice(&order.to_le_bytes());
        block[8..16].copy_from_slice(&offset(active).to_le_bytes());
    }
    bytes.freeze()
}

/// Compared as a whole: worlds read tens of thousands of blocks.
const ZEROS: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];

/// Which write a block holds; an error if it belongs elsewhere.
fn order_of(bytes: &[u8], active: usize) -> Result<u64, String> {
    let number = |range: std::ops::Range<usize>| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[range]);
        u64::from_le_bytes(number)
    };
    let (order, at) = (number(0..8), number(8..16));
    let zero = order == 0 && at == 0;
    let rest_is_zero = bytes[16..] == ZEROS[16..];
    if rest_is_zero && (zero || at == offset(active)) {
        Ok(order)
    } else {
        Err(format!(
            "P5: block {active} holds bytes of offset {at}, write {order}"
        ))
    }
}

impl World {
    fn image(&self, volume: VolumeId, snapshot: Option<&String>) -> Option<&Image> {
        match snapshot {
            Some(name) => self.oracle.snapshots.get(&(volume, name.clone())),
            None => self.oracle.volumes.get(&volume),
        }
    }

    fn image_mut(&mut self, volume: VolumeId, snapshot: Option<String>) -> Option<&mut Image> {
        match snapshot {
            Some(name) => self.oracle.snapshots.get_mut(&(volume, name)),
            None => self.oracle.volumes.get_mut(&volume),
        }
    }

    /// A front end's user does a few things, and will do more.
    pub(crate) fn work(&mut self, life: Life) {
        if self.front(life).is_none_or(|front| front.owner.is_none()) || self.ending.quiet {
            return;
        }
        let busy = self.front(life).map_or(0, |front| front.submitted.len());
        if busy < DEPTH {
            for _ in 0..self.chance.between(1, 3) {
                self.submit_one(life);
            }
        }
        let pause = if self.chance.percent(90) {
            self.chance.between(200, 8_000)
        } else {
            self.chance.between(8_000, 200_000)
        };
        self.schedule.after(pause, Happening::Work { life });
    }

    fn submit_one(&mut self, life: Life) {
        let reader = self.front(life).is_some_and(|front| front.snapshot.is_some());
        let profile = self.shape.redundancy.profile();
        let run = self.chance.between(0, OBJECTS - 2) * RUN;
        let start = self.chance.between(0, RUN - 1);
        let count = self.chance.between(1, RUN - start);
        let (first, count) = (
            usize::try_from(run + start).unwrap_or(0),
            usize::try_from(count).unwrap_or(1),
        );
        match self.chance.between(1, 100) {
            1..=45 => self.submit_read(life, first, count),
            46..=60 if !reader && profile.is_some() => {
                if let Some(profile) = profile {
                    self.submit_row(life, usize::try_from(run).unwrap_or(0), profile);
                }
            }
            46..=85 if !reader => self.submit_write(life, first, count),
            86..=91 if !reader => self.submit_zero(life, first, count),
            92 if !reader => self.submit_zero(life, 0, ACTIVE_BLOCKS),
            93..=96 => self.submit_flush(life),
            _ => {
                let operation = Operation::Map {
                    offset: 0,
                    length: VOLUME_SIZE,
                };
                self.hand_in(
                    life,
                    Submitted {
                        first: 0,
                        count: 0,
                        what: What::Map,
                    },
                    operation,
                );
            }
        }
    }

    pub(crate) fn submit_read(&mut self, life: Life, first: usize, count: usize) {
        let Some(front) = self.front(life) else { return };
        let Some(image) = self.image(front.volume, front.snapshot.as_ref()) else {
            return;
        };
        let mut floors = image.floors(first, count);
        let head = front.owner.as_ref().map(|owner| owner.view().head);
        if front.snapshot.is_none()
            && head != self.cluster.map.volume(front.volume).map(|(_, v)| v.record.head)
        {
            // A rollback is made and its owner does not know yet: what it reads until then is the past.
            floors.excuse();
        }
        let whole = self.evicted.is_empty().then_some(self.evictions);
        let length = count as u64 * u64::from(BLOCK_SIZE);
        let operation = Operation::Read {
            offset: offset(first),
            length,
        };
        self.hand_in(
            life,
            Submitted {
                first,
                count,
                what: What::Read { floors, whole },
            },
            operation,
        );
    }

    fn submit_write(&mut self, life: Life, first: usize, count: usize) {
        let order = self.oracle.number();
        let bytes = content(order, first, count);
        self.note_write(life, first, count, order, false);
        let whole =
            offset(first) / u64::from(OBJECT_SIZE) == offset(first + count - 1) / u64::from(OBJECT_SIZE);
        let what = What::Write { order, whole };
        let operation = Operation::Write {
            offset: offset(first),
            checksums: checksum::of_blocks(&bytes),
            bytes,
        };
        self.hand_in(life, Submitted { first, count, what }, operation);
    }

    /// A row is written whole, in which the blocks on one side of the border lie that a run crosses.
    fn submit_row(&mut self, life: Life, run: usize, profile: Profile) {
        let rows = Rows::new(profile);
        let before = self.chance.percent(50);
        let row = if before { Row(rows.count() - 1) } else { Row(0) };
        let Some(blocks) = rows.blocks(row) else { return };
        let half = usize::try_from(RUN / 2).unwrap_or(0);
        let first = if before { run } else { run + half };
        let order = self.oracle.number();
        let used = content(order, first, half);
        let mut bytes = vec![0; blocks.byte_len()];
        let (at, start) = if before {
            let start = offset(first) + used.len() as u64 - bytes.len() as u64;
            (bytes.len() - used.len(), start)
        } else {
            (0, offset(first))
        };
        bytes[at..at + used.len()].copy_from_slice(&used);
        let bytes = Bytes::from(bytes);
        self.note_write(life, first, half, order, false);
        self.meet("row written");
        let operation = Operation::Write {
            offset: start,
            checksums: checksum::of_blocks(&bytes),
            bytes,
        };
        let submitted = Submitted {
            first,
            count: half,
            what: What::Write { order, whole: true },
        };
        self.hand_in(life, submitted, operation);
    }

    fn submit_zero(&mut self, life: Life, first: usize, count: usize) {
        let order = self.oracle.number();
        self.note_write(life, first, count, order, true);
        let length = offset(first + count - 1) + u64::from(BLOCK_SIZE) - offset(first);
        let operation = Operation::Zero {
            offset: offset(first),
            length,
        };
        self.hand_in(
            life,
            Submitted {
                first,
                count,
                what: What::Write { order, whole: false },
            },
            operation,
        );
    }

    fn note_write(&mut self, life: Life, first: usize, count: usize, order: u64, zero: bool) {
        let Some(front) = self.front(life) else { return };
        let (volume, generation) = (front.volume, front.generation());
        if let Some(image) = self.oracle.volumes.get_mut(&volume) {
            image.write(first, count, order, generation, zero);
        }
    }

    /// The writes of a front end that lie in one object and are not answered: where, and which.
    pub(crate) fn unanswered_writes(&self, life: Life) -> Vec<(usize, usize, u64)> {
        let submitted = self
            .front(life)
            .into_iter()
            .flat_map(|front| front.submitted.values());
        let write = |submitted: &Submitted| match submitted.what {
            What::Write { order, whole: true } => Some((submitted.first, submitted.count, order)),
            _ => None,
        };
        submitted.filter_map(write).collect()
    }

    /// A front end goes on with a new generation: what it has not had answered is done again.
    pub(crate) fn carry_over(&mut self, life: Life, generation: Generation) {
        let Some(front) = self.fronts.get(life.front) else {
            return;
        };
        let Some(image) = self.oracle.volumes.get_mut(&front.volume) else {
            return;
        };
        for submitted in front.submitted.values() {
            if let What::Write { order, .. } = submitted.what {
                image.carry_over(submitted.first, submitted.count, order, generation);
            }
        }
    }

    fn submit_flush(&mut self, life: Life) {
        let Some(front) = self.front(life) else { return };
        let is_write = |submitted: &Submitted| matches!(submitted.what, What::Write { .. });
        let open = front
            .submitted
            .iter()
            .filter(|(_, submitted)| is_write(submitted))
            .map(|(id, _)| *id)
            .collect();
        self.hand_in(
            life,
            Submitted {
                first: 0,
                count: 0,
                what: What::Flush(open),
            },
            Operation::Flush,
        );
    }

    fn hand_in(&mut self, life: Life, submitted: Submitted, operation: Operation) {
        self.operations += 1;
        let id = IoId(self.operations);
        self.note(format_args!(
            "front {} submits {}: {} at {} for {}",
            life.front,
            id.0,
            submitted.what.name(),
            submitted.first,
            submitted.count
        ));
        if let Some(front) = self.front_mut(life) {
            front.submitted.insert(id, submitted);
        }
        self.feed(life, Event::Submit { id, operation });
    }

    /// An operation is answered: is the answer right?
    pub(crate) fn completed(&mut self, life: Life, id: IoId, result: Result<Outcome, Failure>) {
        let Some(front) = self.front_mut(life) else { return };
        let Some(submitted) = front.submitted.remove(&id) else {
            self.violate(format!(
                "operation {} is answered twice, or was never submitted",
                id.0
            ));
            return;
        };
        let (volume, snapshot, generation, robbed) = (
            front.volume,
            front.snapshot.clone(),
            front.generation(),
            front.robbed,
        );
        self.note(format_args!(
            "front {} completes {}: {}",
            life.front,
            id.0,
            from_fn(|f| f.write_str(&told(&result)))
        ));
        let Submitted { first, count, what } = submitted;
        let judged = match (what, result) {
            (What::Write { order, .. }, Ok(Outcome::Done)) => match self.oracle.volumes.get_mut(&volume) {
                Some(image) => image.acknowledge(first, count, order),
                None => Ok(()),
            },
            (What::Write { order, whole: true }, Err(Failure::Full)) => {
                self.meet("write refused for want of room");
                if let Some(image) = self.oracle.volumes.get_mut(&volume) {
                    image.refuse(first, count, order);
                }
                Ok(())
            }
            (What::Read { floors, .. }, Ok(Outcome::Data(pieces))) => {
                let blocks = pieces.iter().flat_map(|piece| piece.chunks(BLOCK_SIZE as usize));
                let values: Result<Vec<u64>, String> = blocks
                    .enumerate()
                    .map(|(position, block)| order_of(block, first + position))
                    .collect();
                match (values, self.image_mut(volume, snapshot)) {
                    // A robbed owner's lease has not run out by its own clock: P2 excuses its reads.
                    (Ok(_), _) if robbed => Ok(()),
                    (Ok(values), _) if values.len() != count => Err("a read is too short".to_owned()),
                    (Ok(values), Some(image)) => image.read(first, &values, &floors, generation),
                    (Ok(_), None) => Ok(()),
                    (Err(error), _) => Err(error),
                }
            }
            (What::Flush(open), Ok(Outcome::Done)) => {
                let missing = self
                    .front(life)
                    .and_then(|front| open.into_iter().find(|id| front.submitted.contains_key(id)));
                match missing {
                    Some(id) => Err(format!("a flush is answered before write {}", id.0)),
                    None => Ok(()),
                }
            }
            (What::Map, Ok(Outcome::Map(runs))) => {
                let length: u64 = runs.iter().map(|(length, _)| length).sum();
                if length == VOLUME_SIZE {
                    Ok(())
                } else {
                    Err(format!("a map covers {length} bytes"))
                }
            }
            (_, Err(Failure::Lost))
                if snapshot.is_none() && self.cluster.map.generation(volume) == Some(generation) =>
            {
                Err("the volume is given up, but its owner still has it".to_owned())
            }
            (_, Err(Failure::Lost | Failure::Closed | Failure::Full)) => Ok(()),
            // One part of a read is given up when no disk in sync has it; the others may take until a disk is back.
            (What::Read { whole, .. }, Err(Failure::Damaged { .. }))
                if self.shape.width() == 1 || whole != Some(self.evictions) =>
            {
                self.meet("block lost with its only copy");
                Ok(())
            }
            (what, result) => Err(format!("{} is answered with {}", what.name(), told(&result))),
        };
        if let Err(error) = judged {
            self.violate(format!(
                "{volume}, front {}, operation {}: {error}",
                life.front, id.0
            ));
        }
    }
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush(_) => "flush",
            Self::Map => "map",
        }
    }
}

fn told(result: &Result<Outcome, Failure>) -> String {
    match result {
        Ok(Outcome::Done) => "done".to_owned(),
        Ok(Outcome::Data(pieces)) => {
            let orders = pieces
                .iter()
                .flat_map(|piece| piece.chunks(BLOCK_SIZE as usize))
                .map(|block| {
                    let mut number = [0; 8];
                    number.copy_from_slice(&block[..8]);
                    u64::from_le_bytes(number)
                });
            format!("{:?}", orders.collect::<Vec<u64>>())
        }
        Ok(Outcome::Map(runs)) => format!("{} runs", runs.len()),
        Err(failure) => failure.to_string(),
    }
}
