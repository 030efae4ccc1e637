//! The access patterns, the same for every system.

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// One read.
    Read,
    /// One write.
    Write,
    /// One write, then a flush: the operation ends with the flush.
    WriteFlush,
}

/// Where the next operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Anywhere, aligned to the operation's size.
    Random,
    /// After the last one, from the start again at the end.
    Sequential,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    /// Its name in the results.
    pub(crate) name: &'static str,
    /// What an operation does.
    pub(crate) direction: Direction,
    /// Where it goes.
    pub(crate) order: Order,
    /// Its size in bytes.
    pub(crate) block: usize,
    /// How many are in flight.
    pub(crate) depth: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Every pattern, in the order in which they run: reads before the writes that would warm caches.
pub(crate) const PATTERNS: &[Pattern] = &[
    line("randread-4K", Direction::Read, Order::Random, 4 * KIB, 1),
    line("randread-4K-qd32", Direction::Read, Order::Random, 4 * KIB, 32),
    line("randread-64K", Direction::Read, Order::Random, 64 * KIB, 1),
    line("seqread-512K", Direction::Read, Order::Sequential, 512 * KIB, 1),
    line("seqread-1M", Direction::Read, Order::Sequential, MIB, 1),
    line("seqread-4M", Direction::Read, Order::Sequential, 4 * MIB, 1),
    line(
        "randwrite-4K-flush",
        Direction::WriteFlush,
        Order::Random,
        4 * KIB,
        1,
    ),
    line("randwrite-4K", Direction::Write, Order::Random, 4 * KIB, 1),
    line(
        "randwrite-4K-qd32-flush",
        Direction::WriteFlush,
        Order::Random,
        4 * KIB,
        32,
    ),
    line("randwrite-4K-qd32", Direction::Write, Order::Random, 4 * KIB, 32),
    line(
        "randwrite-64K-flush",
        Direction::WriteFlush,
        Order::Random,
        64 * KIB,
        1,
    ),
    line("randwrite-64K", Direction::Write, Order::Random, 64 * KIB, 1),
    line(
        "seqwrite-512K-flush",
        Direction::WriteFlush,
        Order::Sequential,
        512 * KIB,
        1,
    ),
    line("seqwrite-512K", Direction::Write, Order::Sequential, 512 * KIB, 1),
    line(
        "seqwrite-1M-flush",
        Direction::WriteFlush,
        Order::Sequential,
        MIB,
        1,
    ),
    line("seqwrite-1M", Direction::Write, Order::Sequential, MIB, 1),
    line(
        "seqwrite-4M-flush",
        Direction::WriteFlush,
        Order::Sequential,
        4 * MIB,
        1,
    ),
    line("seqwrite-4M", Direction::Write, Order::Sequential, 4 * MIB, 1),
];

/// What clusters are compared by: sixteen patterns at depth 1, writes with a flush each, and two at depth 32. The
/// names are those of the peers' scripts.
pub(crate) const CLUSTER: &[Pattern] = &[
    line("seqread-4M", Direction::Read, Order::Sequential, 4 * MIB, 1),
    line("seqread-1M", Direction::Read, Order::Sequential, MIB, 1),
    line("seqread-512K", Direction::Read, Order::Sequential, 512 * KIB, 1),
    line("seqread-4K", Direction::Read, Order::Sequential, 4 * KIB, 1),
    line(
        "seqwrite-4M",
        Direction::WriteFlush,
        Order::Sequential,
        4 * MIB,
        1,
    ),
    line("seqwrite-1M", Direction::WriteFlush, Order::Sequential, MIB, 1),
    line(
        "seqwrite-512K",
        Direction::WriteFlush,
        Order::Sequential,
        512 * KIB,
        1,
    ),
    line(
        "seqwrite-4K",
        Direction::WriteFlush,
        Order::Sequential,
        4 * KIB,
        1,
    ),
    line("randread-4M", Direction::Read, Order::Random, 4 * MIB, 1),
    line("randread-1M", Direction::Read, Order::Random, MIB, 1),
    line("randread-512K", Direction::Read, Order::Random, 512 * KIB, 1),
    line("randread-4K", Direction::Read, Order::Random, 4 * KIB, 1),
    line("randwrite-4M", Direction::WriteFlush, Order::Random, 4 * MIB, 1),
    line("randwrite-1M", Direction::WriteFlush, Order::Random, MIB, 1),
    line(
        "randwrite-512K",
        Direction::WriteFlush,
        Order::Random,
        512 * KIB,
        1,
    ),
    line("randwrite-4K", Direction::WriteFlush, Order::Random, 4 * KIB, 1),
    line("randread-4K-qd32", Direction::Read, Order::Random, 4 * KIB, 32),
    line("randwrite-4K-qd32", Direction::Write, Order::Random, 4 * KIB, 32),
];

/// How a volume is filled before anything is measured: reads of holes would be no reads.
pub(crate) const FILL: Pattern = line("fill", Direction::Write, Order::Sequential, MIB, 4);

/// The most memory that a pattern has in flight, in bytes.
pub(crate) const IN_FLIGHT_MAX: usize = 4 * MIB;

/// One that fits into the guest's memory.
pub(crate) const fn line(
    name: &'static str,
    direction: Direction,
    order: Order,
    block: usize,
    depth: usize,
) -> Pattern {
    assert!(
        block * depth <= IN_FLIGHT_MAX,
        "the guest's memory holds what is in flight"
    );
    Pattern {
        name,
        direction,
        order,
        block,
        depth,
    }
}
