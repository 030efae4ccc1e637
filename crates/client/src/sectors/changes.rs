//! The order of changes that touch the same blocks.
//!
//! A change that must read before it writes, or compares, is alone on its blocks; changes of whole blocks may
//! overlap one another, as they may on any disk. A change waits behind an earlier one that it must
//! not overtake, so none waits for ever.

use std::collections::VecDeque;
use std::ops::Range;

use super::{cover, is_whole};
use crate::device::{Continuation, Operation};

/// A change, or a flush, that has not started.
pub(super) struct Held {
    pub(super) ticket: u64,
    pub(super) operation: Operation,
    pub(super) done: Continuation,
}

/// What a change must not run beside.
#[derive(Clone)]
struct Claim {
    ticket: u64,
    /// Bytes, whole blocks; empty for a flush.
    bytes: Range<u64>,
    /// Whether it reads before it writes, or compares.
    alone: bool,
}

impl Claim {
    fn of(ticket: u64, operation: &Operation) -> Self {
        let Some((offset, length)) = operation.area() else {
            return Self {
                ticket,
                bytes: 0..0,
                alone: false,
            };
        };
        let (from, until) = cover(offset, length);
        Self {
            ticket,
            bytes: from..until,
            alone: !is_whole(offset, length) || matches!(operation, Operation::CompareAndWrite { .. }),
        }
    }

    fn excludes(&self, other: &Self) -> bool {
        let overlap = self.bytes.start < other.bytes.end && other.bytes.start < self.bytes.end;
        overlap && (self.alone || other.alone)
    }
}

/// Changes that run and changes that wait. Its length is bounded by what the front end has in
/// flight: each ring and each gateway has its own limit.
#[derive(Default)]
pub(super) struct Changes {
    tickets: u64,
    running: Vec<Claim>,
    waiting: VecDeque<(Claim, Held)>,
    /// Whether anything that waits might start now.
    look: bool,
}

impl Changes {
    pub(super) fn hold(&mut self, operation: Operation, done: Continuation) {
        self.tickets += 1;
        let ticket = self.tickets;
        let claim = Claim::of(ticket, &operation);
        self.waiting.push_back((
            claim,
            Held {
                ticket,
                operation,
                done,
            },
        ));
        self.look = true;
    }

    /// Takes out the first change that may start, and counts it as running.
    pub(super) fn next_to_start(&mut self) -> Option<Held> {
        if !self.look {
            return None;
        }
        let position = (0..self.waiting.len()).find(|position| self.may_start(*position));
        let Some((claim, held)) = position.and_then(|position| self.waiting.remove(position)) else {
            self.look = false;
            return None;
        };
        self.running.push(claim);
        Some(held)
    }

    fn may_start(&self, position: usize) -> bool {
        let (claim, held) = &self.waiting[position];
        if held.operation == Operation::Flush {
            let earlier = |other: &Claim| other.ticket < claim.ticket;
            return position == 0 && !self.running.iter().any(earlier);
        }
        let earlier = self.waiting.range(..position).map(|(claim, _)| claim);
        !self
            .running
            .iter()
            .chain(earlier)
            .any(|other| other.excludes(claim))
    }

    pub(super) fn finished(&mut self, ticket: u64) {
        if let Some(position) = self.running.iter().position(|claim| claim.ticket == ticket) {
            self.running.swap_remove(position);
        }
        self.look = true;
    }
}
