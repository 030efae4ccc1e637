//! What a read may return: the register of every block, and the laws P2 and P4 over it.
//!
//! Every block that is written holds the number of its write; the numbers of one owner grow in the order
//! in which its writes were submitted, which is the order in which it stamps them. Owners follow each
//! other, by generation. So the order of all writes of a block is known, and a read may return: the last
//! write that was acknowledged or seen when the read was submitted, or a later one whose fate was open.
//! What a newer owner has shown not to be there must never come up again.

use std::collections::BTreeMap;

use protocol::{Generation, VolumeId};

/// How many writes of a block are remembered below its floor, for reads that were under way.
const REMEMBERED: usize = 4096;

/// A write's place among all writes of a block.
type Order = (Generation, u64);

/// What is known of one write of one block.
#[derive(Clone, Debug)]
struct Candidate {
    order: Order,
    zero: bool,
    /// It turned out not to be there; it must not come up.
    dead: bool,
    acknowledged: bool,
}

/// One block's history.
#[derive(Clone, Debug, Default)]
struct Register {
    /// Reads must not return anything before this.
    floor: Order,
    candidates: Vec<Candidate>,
}

/// All blocks of a volume or a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    blocks: Vec<Register>,
    /// Grows when the whole content is replaced: reads across that are not judged.
    pub(crate) epoch: u64,
}

/// The registers of everything.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    next: u64,
    pub(crate) volumes: BTreeMap<VolumeId, Image>,
    pub(crate) snapshots: BTreeMap<(VolumeId, String), Image>,
}

/// What a read must not be below, block by block, as it was when the read was submitted.
#[derive(Clone, Debug)]
pub(crate) struct Floors {
    epoch: u64,
    floors: Vec<Order>,
}

impl Floors {
    /// The read is not to be judged.
    pub(crate) fn excuse(&mut self) {
        self.epoch = u64::MAX;
    }
}

impl Image {
    /// All blocks zero.
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Register::default(); blocks],
            epoch: 0,
        }
    }

    /// The content becomes that of another image. What the owner of this generation was asked to
    /// write before, and has held back, comes on top.
    pub(crate) fn replace(&mut self, other: &Self, generation: Generation) {
        let mut blocks = other.blocks.clone();
        for (register, old) in blocks.iter_mut().zip(&self.blocks) {
            let held = |candidate: &&Candidate| !candidate.acknowledged && candidate.order.0 == generation;
            register
                .candidates
                .extend(old.candidates.iter().filter(held).cloned());
        }
        self.blocks = blocks;
        self.epoch += 1;
    }

    /// As they are now.
    pub(crate) fn floors(&self, first: usize, count: usize) -> Floors {
        let floors = self
            .blocks
            .iter()
            .skip(first)
            .take(count)
            .map(|register| register.floor)
            .collect();
        Floors {
            epoch: self.epoch,
            floors,
        }
    }

    /// A write is submitted.
    pub(crate) fn write(
        &mut self,
        first: usize,
        count: usize,
        number: u64,
        generation: Generation,
        zero: bool,
    ) {
        for register in self.blocks.iter_mut().skip(first).take(count) {
            register.candidates.push(Candidate {
                order: (generation, number),
                zero,
                dead: false,
                acknowledged: false,
            });
        }
    }

    /// The owner of a write that is not answered goes on with a new generation, and does it again: unless it has been
    /// overwritten already, it belongs to that generation now.
    pub(crate) fn carry_over(&mut self, first: usize, count: usize, number: u64, generation: Generation) {
        for register in self.blocks.iter_mut().skip(first).take(count) {
            let floor = register.floor;
            let carried = register
                .candidates
                .iter_mut()
                .filter(|candidate| candidate.order.1 == number && candidate.order > floor);
            for candidate in carried {
                candidate.order.0 = generation;
            }
        }
    }

    /// A write is acknowledged: from now on it is there, or a later one is (P1).
    pub(crate) fn acknowledge(&mut self, first: usize, count: usize, number: u64) -> Result<(), String> {
        for (block, register) in self.blocks.iter_mut().enumerate().skip(first).take(count) {
            let candidate = register
                .candidates
                .iter_mut()
                .find(|candidate| candidate.order.1 == number);
            if let Some(candidate) = candidate {
                candidate.acknowledged = true;
                if candidate.dead {
                    return Err(format!(
                        "P1: write {number} of block {block} is acknowledged, but a newer owner does not have it"
                    ));
                }
                let order = candidate.order;
                register.raise(order);
            }
        }
        Ok(())
    }

    /// A write was refused before it was sent: it must never come up.
    pub(crate) fn refuse(&mut self, first: usize, count: usize, number: u64) {
        for register in self.blocks.iter_mut().skip(first).take(count) {
            for candidate in register
                .candidates
                .iter_mut()
                .filter(|candidate| candidate.order.1 == number)
            {
                candidate.dead = true;
            }
        }
    }

    /// A read returned these write numbers (0: zeros).
    pub(crate) fn read(
        &mut self,
        first: usize,
        values: &[u64],
        floors: &Floors,
        reader: Generation,
    ) -> Result<(), String> {
        if floors.epoch != self.epoch {
            return Ok(());
        }
        let registers = self.blocks.iter_mut().enumerate().skip(first);
        for ((block, register), (value, floor)) in registers.zip(values.iter().zip(&floors.floors)) {
            register
                .read(*value, *floor, reader)
                .map_err(|error| format!("P2: block {block}: {error}"))?;
        }
        Ok(())
    }
}

impl Register {
    fn raise(&mut self, order: Order) {
        self.floor = self.floor.max(order);
        let surplus = self.candidates.len().saturating_sub(REMEMBERED);
        let floor = self.floor;
        let mut left = surplus;
        self.candidates.retain(|candidate| {
            let goes = left > 0 && candidate.order < floor;
            left -= usize::from(goes);
            !goes
        });
    }

    fn read(&mut self, value: u64, floor: Order, reader: Generation) -> Result<(), String> {
        let fits = |candidate: &&Candidate| {
            let shows = if value == 0 {
                candidate.zero
            } else {
                candidate.order.1 == value
            };
            shows && !candidate.dead && candidate.order >= floor
        };
        // Zeros do not tell who wrote them: anything from the first to the last that fits.
        let fitting = self
            .candidates
            .iter()
            .filter(fits)
            .map(|candidate| candidate.order);
        let last = fitting.clone().max();
        let never = (value == 0 && floor == Order::default()).then(Order::default);
        let Some(first) = never.or_else(|| fitting.min()) else {
            return Err(self.explain(value, floor));
        };
        let last = last.unwrap_or(first);
        for candidate in &mut self.candidates {
            // An owner of a newer generation has decided what of the old ones is there. But what was acknowledged
            // is: a read that began before may show what was there before, also if its owner got a newer one since.
            candidate.dead |= candidate.order > last
                && candidate.order.0 < reader
                && reader.0 > 0
                && !candidate.acknowledged;
        }
        self.raise(first);
        Ok(())
    }

    fn explain(&self, value: u64, floor: Order) -> String {
        let known = self
            .candidates
            .iter()
            .find(|candidate| candidate.order.1 == value && value > 0);
        let what = match known {
            Some(candidate) if candidate.dead => "was shown not to be there before, or was refused",
            Some(_) => "is older than what was acknowledged or read before",
            None if value == 0 => "is older than what was acknowledged or read before",
            None => "was never written here",
        };
        format!(
            "the read returned write {value}, which {what} (at least {} of {} was due)",
            floor.1, floor.0
        )
    }
}

impl Oracle {
    /// The number of a write that is about to be submitted.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    //! The oracle must say no to exactly what the laws forbid.
    use super::*;

    const OLD: Generation = Generation(1);
    const NEW: Generation = Generation(2);

    fn image() -> Image {
        Image::new(1)
    }

    /// A read began between two writes, of which both are acknowledged: with what it must not be below.
    fn overtaken() -> (Image, Floors) {
        let mut image = image();
        image.write(0, 1, 1, OLD, false);
        image.acknowledge(0, 1, 1).unwrap();
        let floors = image.floors(0, 1);
        image.write(0, 1, 2, OLD, false);
        image.acknowledge(0, 1, 2).unwrap();
        (image, floors)
    }

    #[test]
    fn an_acknowledged_write_must_be_read() {
        let mut image = image();
        image.write(0, 1, 1, OLD, false);
        image.acknowledge(0, 1, 1).unwrap();
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[0], &floors, OLD).is_err());
        assert!(image.read(0, &[1], &floors, OLD).is_ok());
    }

    #[test]
    fn an_open_write_may_be_read_or_not_but_not_first_read_and_then_not() {
        let mut image = image();
        image.write(0, 1, 1, OLD, false);
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[0], &floors, OLD).is_ok());
        assert!(image.read(0, &[1], &floors, OLD).is_ok());
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[0], &floors, OLD).is_err());
    }

    #[test]
    fn what_a_new_owner_showed_not_to_be_there_must_not_come_up() {
        let mut image = image();
        image.write(0, 1, 1, OLD, false);
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[0], &floors, NEW).is_ok());
        assert!(image.read(0, &[1], &floors, NEW).is_err());
        assert!(image.acknowledge(0, 1, 1).is_err());
    }

    #[test]
    fn a_write_that_is_done_again_may_come_up_later_unless_it_was_overwritten() {
        let mut image = image();
        image.write(0, 1, 1, OLD, false);
        image.carry_over(0, 1, 1, NEW);
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[0], &floors, NEW).is_ok());
        assert!(image.read(0, &[1], &floors, NEW).is_ok());

        let mut image = Image::new(1);
        image.write(0, 1, 1, OLD, false);
        image.write(0, 1, 2, OLD, false);
        image.acknowledge(0, 1, 2).unwrap();
        image.carry_over(0, 1, 1, NEW);
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[1], &floors, NEW).is_err());
        assert!(image.read(0, &[2], &floors, NEW).is_ok());
    }

    #[test]
    fn a_read_from_before_a_write_says_nothing_against_it_though_its_owner_has_a_newer_generation() {
        // Seed 4321 of its time.
        let (mut image, floors) = overtaken();
        assert!(image.read(0, &[1], &floors, NEW).is_ok());
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[2], &floors, NEW).is_ok());
        assert!(image.read(0, &[1], &floors, NEW).is_err());
    }

    #[test]
    fn a_read_that_was_under_way_may_return_what_was_last_when_it_began() {
        let (mut image, floors) = overtaken();
        assert!(image.read(0, &[1], &floors, OLD).is_ok());
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[1], &floors, OLD).is_err());
    }

    #[test]
    fn a_refused_write_must_not_come_up() {
        let mut image = image();
        image.write(0, 1, 1, OLD, false);
        image.refuse(0, 1, 1);
        let floors = image.floors(0, 1);
        assert!(image.read(0, &[1], &floors, OLD).is_err());
    }
}
