//! Which requests of a volume with limits may begin, and when the next ones may (`docs/decisions/0072-volume-limits.md`). Pure:
//! moments come in as numbers, and what a request is this does not know.
//!
//! Reads have one queue and writes another, in the order in which they came: overlapping writes keep their order, and a flush,
//! which costs nothing, comes after the writes before it and waits for no read. What both take from goes to whoever came
//! first, so a large request is not starved by small ones of the other kind.

pub mod bucket;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use protocol::limits::{DirectionLimits, Rate, VolumeLimits};
use replication::Moment;

use bucket::Bucket;

/// Whose queue a request waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// That of what only looks.
    Read,
    /// That of what changes something, and of flushes.
    Write,
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Whose queue it is in.
    pub(crate) direction: Direction,
    /// Operations: 1, or 0 if it never waits for tokens.
    pub(crate) operations: u64,
    /// Bytes that are read or written.
    pub(crate) bytes: u64,
}

/// How many requests waited, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Requests that did not begin in the millisecond in which they came.
    pub requests: u64,
    /// How long these waited, in milliseconds, all together.
    pub waited_ms: u64,
}

/// The buckets of one quantity.
#[derive(Debug, Default)]
struct Buckets {
    total: Option<Bucket>,
    read: Option<Bucket>,
    write: Option<Bucket>,
}

#[derive(Debug)]
struct Waiting<W> {
    /// Grows with each that comes.
    ticket: u64,
    came: Moment,
    cost: Cost,
    request: W,
}

/// See the module. How much waits is bounded by what the front end has in flight: who waits is not answered.
#[derive(Debug)]
pub(crate) struct Throttle<W> {
    limits: VolumeLimits,
    operations: Buckets,
    bytes: Buckets,
    reads: VecDeque<Waiting<W>>,
    writes: VecDeque<Waiting<W>>,
    next: u64,
    throttled: Throttled,
}

impl<W> Default for Throttle<W> {
    fn default() -> Self {
        Self {
            limits: VolumeLimits::default(),
            operations: Buckets::default(),
            bytes: Buckets::default(),
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            next: 0,
            throttled: Throttled::default(),
        }
    }
}

impl Buckets {
    fn set(&mut self, limits: &DirectionLimits, now: Moment) {
        for (bucket, rate) in [
            (&mut self.total, limits.total),
            (&mut self.read, limits.read),
            (&mut self.write, limits.write),
        ] {
            set(bucket, rate, now);
        }
    }

    /// In how many milliseconds tokens of one direction alone can be had.
    fn wait_own(&mut self, direction: Direction, tokens: u64, now: Moment) -> u64 {
        let bucket = match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        };
        wait(bucket, tokens, now)
    }

    fn wait_total(&mut self, tokens: u64, now: Moment) -> u64 {
        wait(&mut self.total, tokens, now)
    }

    fn take(&mut self, direction: Direction, tokens: u64, now: Moment) {
        let own = match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        };
        for bucket in [own, &mut self.total].into_iter().flatten() {
            bucket.take(tokens, now);
        }
    }
}

fn set(bucket: &mut Option<Bucket>, rate: Option<Rate>, now: Moment) {
    match (bucket.as_mut(), rate) {
        (Some(bucket), Some(rate)) => bucket.change(rate, now),
        (None, Some(rate)) => *bucket = Some(Bucket::new(rate, now)),
        (_, None) => *bucket = None,
    }
}

fn wait(bucket: &mut Option<Bucket>, tokens: u64, now: Moment) -> u64 {
    bucket.as_mut().map_or(0, |bucket| bucket.wait(tokens, now))
}

impl<W> Throttle<W> {
    /// From now on these limits.
    pub(crate) fn set(&mut self, limits: VolumeLimits, now: Moment) {
        if limits != self.limits {
            self.limits = limits;
            self.operations.set(&limits.operations, now);
            self.bytes.set(&limits.bytes, now);
        }
    }

    /// A request comes. True if it is the first of its queue: then [`Throttle::pause`] may be another one.
    pub(crate) fn enter(&mut self, cost: Cost, request: W, now: Moment) -> bool {
        let ticket = self.next;
        self.next += 1;
        let waiting = Waiting {
            ticket,
            came: now,
            cost,
            request,
        };
        let queue = self.queue(cost.direction);
        queue.push_back(waiting);
        queue.len() == 1
    }

    /// The next request that may begin now.
    pub(crate) fn next(&mut self, now: Moment) -> Option<W> {
        let (first, second) = self.order();
        let begins = match self.outlook(first, now) {
            Outlook::Ready => first,
            outlook => match self.outlook(second, now) {
                Outlook::Ready if !self.is_held_back(outlook, second) => second,
                _ => return None,
            },
        };
        let waiting = self.queue(begins).pop_front()?;
        Some(self.begin(waiting, now))
    }

    /// For how many milliseconds there is nothing to do: then some request may begin, or it is known better when. None if
    /// nothing waits.
    pub(crate) fn pause(&mut self, now: Moment) -> Option<u64> {
        let (first, second) = self.order();
        let outlook = self.outlook(first, now);
        let later = match self.outlook(second, now) {
            _ if self.is_held_back(outlook, second) => None,
            other => other.wait(),
        };
        outlook.wait().into_iter().chain(later).min()
    }

    /// Takes out whatever waits, in its order, as if the tokens were there: they are owed.
    pub(crate) fn let_through(&mut self, now: Moment) -> Option<W> {
        let (first, _) = self.order();
        let waiting = self.queue(first).pop_front()?;
        Some(self.begin(waiting, now))
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.reads.len() + self.writes.len()
    }

    /// What waited so far, without what waits now.
    pub(crate) fn throttled(&self) -> Throttled {
        self.throttled
    }

    fn begin(&mut self, waiting: Waiting<W>, now: Moment) -> W {
        let Cost { direction, bytes, .. } = waiting.cost;
        let operations = self.operations_of(waiting.cost);
        self.operations.take(direction, operations, now);
        self.bytes.take(direction, bytes, now);
        let waited = now.since(waiting.came);
        if waited > 0 {
            self.throttled.requests += 1;
            self.throttled.waited_ms += waited;
        }
        waiting.request
    }

    /// As how many operations one counts.
    fn operations_of(&self, cost: Cost) -> u64 {
        let size = self.limits.operation_bytes;
        let parts = size.map_or(1, |size| cost.bytes.div_ceil(size.get()).max(1));
        cost.operations.saturating_mul(parts)
    }

    fn queue(&mut self, direction: Direction) -> &mut VecDeque<Waiting<W>> {
        match direction {
            Direction::Read => &mut self.reads,
            Direction::Write => &mut self.writes,
        }
    }

    /// The directions, the one first whose first request came earlier. One with nothing comes last.
    fn order(&self) -> (Direction, Direction) {
        let ticket = |queue: &VecDeque<Waiting<W>>| queue.front().map_or(u64::MAX, |first| first.ticket);
        if ticket(&self.reads) <= ticket(&self.writes) {
            (Direction::Read, Direction::Write)
        } else {
            (Direction::Write, Direction::Read)
        }
    }

    /// How it stands with the first request of a queue.
    fn outlook(&mut self, direction: Direction, now: Moment) -> Outlook {
        let Some(cost) = self.queue(direction).front().map(|first| first.cost) else {
            return Outlook::Nothing;
        };
        let operations = self.operations_of(cost);
        let own = self.operations.wait_own(direction, operations, now);
        let own = own.max(self.bytes.wait_own(direction, cost.bytes, now));
        let total = self.operations.wait_total(operations, now);
        let total = total.max(self.bytes.wait_total(cost.bytes, now));
        match (own, total) {
            (0, 0) => Outlook::Ready,
            (0, total) => Outlook::ForBoth(total),
            (own, total) => Outlook::ForOwn(own.max(total)),
        }
    }

    /// Whether the first of one queue must leave the tokens of both to an earlier one of the other, which has its own already.
    fn is_held_back(&mut self, earlier: Outlook, later: Direction) -> bool {
        let costs = |waiting: &Waiting<W>| waiting.cost.operations > 0 || waiting.cost.bytes > 0;
        matches!(earlier, Outlook::ForBoth(_)) && self.queue(later).front().is_some_and(costs)
    }
}

/// How it stands with the first request of a queue; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// There is none.
    Nothing,
    /// It may begin.
    Ready,
    /// It waits for tokens of its own direction, at least.
    ForOwn(u64),
    /// It waits for nothing but tokens that the other direction takes too.
    ForBoth(u64),
}

impl Outlook {
    fn wait(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Ready => Some(0),
            Self::ForOwn(wait) | Self::ForBoth(wait) => Some(wait),
        }
    }
}
