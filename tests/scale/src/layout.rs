//! Where groups lie: how evenly, how much moves when disks come and go, and how long a dead disk takes to be replaced.

use std::collections::BTreeMap;
use std::time::Instant;

use coordination::placement::{Candidate, choose};
use coordination::records::FailureDomain;
use protocol::{DiskId, PgId};

use crate::cluster::{COPIES, Plan};

/// What a disk holds when it dies, in bytes.
const DISK: f64 = 4e12;
/// What is copied to one disk, in bytes a second, unless told otherwise (`recovery_rate`).
const RATE: f64 = 200e6;

type Layout = Vec<Vec<DiskId>>;

fn lay_out(plan: &Plan, pool: u32, candidates: &[Candidate]) -> Layout {
    (0..plan.groups)
        .map(|number| {
            let pg = PgId {
                pool: Plan::pool(pool),
                number,
            };
            choose(pg, COPIES, FailureDomain::Node, candidates)
        })
        .collect()
}

/// Measures the first pool, and prints.
pub(crate) fn measure(plan: &Plan) {
    let candidates = plan.candidates(0);
    let begun = Instant::now();
    let layout = lay_out(plan, 0, &candidates);
    let took = begun.elapsed();
    println!(
        "layout\tof a pool of {} disks\t{:.0} ms\t{:.1} us for a group",
        candidates.len(),
        took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e6 / f64::from(plan.groups)
    );
    spread(&candidates, &layout);
    let newcomer = plan.nodes + 1;
    let node: Vec<Candidate> = candidates
        .iter()
        .cloned()
        .chain(plan.disks_of(newcomer))
        .collect();
    let disk: Vec<Candidate> = candidates
        .iter()
        .cloned()
        .chain(plan.disks_of(newcomer).take(1))
        .collect();
    moved(plan, "a disk of a new node is added", &layout, &candidates, &disk);
    moved(plan, "a node is added", &layout, &candidates, &node);
    let gone = candidates[0].node;
    let without_node: Vec<Candidate> = candidates
        .iter()
        .filter(|disk| disk.node != gone)
        .cloned()
        .collect();
    let without_disk = &candidates[1..];
    moved(plan, "a node is removed", &layout, &candidates, &without_node);
    moved(plan, "a disk is removed", &layout, &candidates, without_disk);
    recovery(plan, &layout, candidates[0].disk, without_disk);
}

fn spread(candidates: &[Candidate], layout: &Layout) {
    let mut slots: BTreeMap<DiskId, u32> = candidates.iter().map(|disk| (disk.disk, 0)).collect();
    for disk in layout.iter().flatten() {
        *slots.entry(*disk).or_default() += 1;
    }
    let counts: Vec<f64> = slots.values().map(|count| f64::from(*count)).collect();
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let square = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    let most = counts.iter().copied().fold(0.0, f64::max);
    let least = counts.iter().copied().fold(f64::MAX, f64::min);
    let empty = counts.iter().filter(|count| **count == 0.0).count();
    println!(
        "spread\tgroups of a disk\tmean {mean:.1}, least {least}, most {most} ({:.0} % above), deviation {:.1} %, {empty} disks without any",
        100.0 * (most / mean - 1.0),
        100.0 * square.sqrt() / mean
    );
}

/// How many places change hands, beside how many would have to.
fn moved(plan: &Plan, what: &str, before: &Layout, old: &[Candidate], new: &[Candidate]) {
    let after = lay_out(plan, 0, new);
    let came =
        |(old, new): (&Vec<DiskId>, &Vec<DiskId>)| new.iter().filter(|disk| !old.contains(disk)).count();
    let moved: usize = before.iter().zip(&after).map(came).sum();
    let places = before.len() * COPIES;
    let ideal = if new.len() > old.len() {
        places as f64 * (new.len() - old.len()) as f64 / new.len() as f64
    } else {
        let gone = |disk: &&DiskId| new.iter().all(|other| other.disk != **disk);
        before.iter().flatten().filter(gone).count() as f64
    };
    println!(
        "moved\t{what}\t{moved} of {places} places ({:.4} %), ideal {ideal:.0}, {:.2} times",
        100.0 * moved as f64 / places as f64,
        moved as f64 / ideal.max(1.0)
    );
}

/// A full disk dies for good: each of its groups gets another disk.
fn recovery(plan: &Plan, layout: &Layout, dead: DiskId, others: &[Candidate]) {
    let lost: Vec<usize> = (0..layout.len())
        .filter(|number| layout[*number].contains(&dead))
        .collect();
    let after = lay_out(plan, 0, others);
    let mut targets = BTreeMap::<DiskId, u32>::new();
    let mut sources = BTreeMap::<DiskId, u32>::new();
    for number in &lost {
        for disk in after[*number]
            .iter()
            .filter(|disk| !layout[*number].contains(disk))
        {
            *targets.entry(*disk).or_default() += 1;
        }
        for disk in layout[*number].iter().filter(|disk| **disk != dead) {
            *sources.entry(*disk).or_default() += 1;
        }
    }
    let group = DISK / lost.len().max(1) as f64;
    let most = f64::from(targets.values().copied().max().unwrap_or(0));
    let hours = |bytes: f64| bytes / RATE / 3600.0;
    println!(
        "recovery\tof a disk with 4 TB in {} groups ({:.1} GB each)\tto {} disks from {}, the longest gets {most} groups: {:.2} h; to one new disk: {:.1} h",
        lost.len(),
        group / 1e9,
        targets.len(),
        sources.len(),
        hours(most * group),
        hours(DISK)
    );
}
