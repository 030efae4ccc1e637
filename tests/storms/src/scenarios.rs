//! What may happen to a cluster, one thing at a time. Each scenario strikes, sees to it that writes go on when they
//! must, and heals what it broke; what must hold then is the same for all of them, and is looked at by whoever runs them.

mod disks;
mod links;
mod nodes;
mod store;

use anyhow::Result;
use rand::rngs::SmallRng;

use crate::stage::{Kind, Stage};

/// One thing that happens.
pub(crate) struct Scenario {
    /// By which it is asked for.
    pub(crate) name: &'static str,
    /// In words.
    pub(crate) what: &'static str,
    /// Where it can happen.
    pub(crate) kind: Kind,
    /// Whether it belongs to the short set, which every change must pass.
    pub(crate) short: bool,
    /// Whether writes may be refused for want of room meanwhile.
    pub(crate) fills: bool,
    /// Lets it happen, and heals it.
    pub(crate) strike: fn(&mut Stage, &mut SmallRng) -> Result<()>,
}

const fn plain(
    name: &'static str,
    what: &'static str,
    strike: fn(&mut Stage, &mut SmallRng) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        what,
        kind: Kind::Plain,
        short: false,
        fills: false,
        strike,
    }
}

const fn relayed(
    name: &'static str,
    what: &'static str,
    strike: fn(&mut Stage, &mut SmallRng) -> Result<()>,
) -> Scenario {
    Scenario {
        kind: Kind::Relayed,
        ..plain(name, what, strike)
    }
}

const fn frail(
    name: &'static str,
    what: &'static str,
    fills: bool,
    strike: fn(&mut Stage, &mut SmallRng) -> Result<()>,
) -> Scenario {
    Scenario {
        kind: Kind::Frail,
        fills,
        ..plain(name, what, strike)
    }
}

const fn short(scenario: Scenario) -> Scenario {
    Scenario {
        short: true,
        ..scenario
    }
}

/// All of them, in an order in which few stages are set.
pub(crate) const ALL: &[Scenario] = &[
    short(plain("calm", "nothing", nodes::nothing)),
    short(plain(
        "node-killed",
        "another node's storaged is killed, and started later",
        nodes::killed,
    )),
    plain(
        "own-killed",
        "the writer's own storaged is killed, and started at once",
        nodes::own_killed,
    ),
    short(plain(
        "node-stopped",
        "another node stands still for longer than its lease, and goes on",
        nodes::stopped,
    )),
    plain(
        "node-wiped",
        "another node is killed and its disk emptied; an empty one is put in its place",
        nodes::wiped,
    ),
    short(plain(
        "cable",
        "another node's cable is pulled for longer than its lease",
        links::cable,
    )),
    plain(
        "own-cable",
        "the cable of the writer's node is pulled for longer than its lease",
        links::own_cable,
    ),
    plain(
        "one-way-to-writer",
        "what another node sends to the writer's is lost",
        links::one_way_to_writer,
    ),
    plain(
        "one-way-from-writer",
        "what the writer's node sends to another is lost",
        links::one_way_from_writer,
    ),
    plain("flapping", "another node's cable is loose", links::flapping),
    short(plain(
        "etcd-leader",
        "the etcd member that leads is killed, and started later",
        store::leader,
    )),
    plain(
        "etcd-follower",
        "an etcd member that follows is killed, and started later",
        store::follower,
    ),
    short(plain(
        "etcd-away",
        "all of etcd is down for many leases: writes must go on",
        store::away,
    )),
    plain(
        "etcd-away-long",
        "all of etcd is down for a minute and a half: writes must go on",
        store::away_long,
    ),
    plain(
        "etcd-restored",
        "etcd is restored from an older backup under running nodes",
        store::restored,
    ),
    short(relayed("slow-link", "another node is 100 ms away", links::slow)),
    relayed(
        "narrow-link",
        "another node's link takes 256 KiB a second",
        links::narrow,
    ),
    short(relayed(
        "deaf",
        "half-open: what is said to another node's disk is swallowed",
        links::deaf,
    )),
    relayed(
        "mute",
        "half-open: what another node's disk says is swallowed",
        links::mute,
    ),
    relayed(
        "resets",
        "all connections are reset again and again",
        links::resets,
    ),
    short(relayed(
        "corrupt",
        "bits are turned over on the way to and from all disks",
        links::corrupt,
    )),
    frail(
        "disk-full",
        "another node's disk is full; room is made later",
        true,
        disks::full,
    ),
    frail(
        "disk-errors",
        "another node's disk answers writes with I/O errors",
        false,
        disks::errors,
    ),
];
