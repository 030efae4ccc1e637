//! The map: its records' bytes, its memory, the time to build it, to follow a change and to make a front end's view;
//! and what the death of a node makes everybody read.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use coordination::keys::Key;
use coordination::records::{GroupRecord, encode};
use coordination::store::{Batch, Event};
use coordination::{ClusterMap, Entry, Revision};
use protocol::session::{SessionPush, Slot, SlotState};
use protocol::{DiskId, Generation, Interval, NodeId, PgId, PoolId, VolumeId};

use crate::cluster::{Plan, Records, owner};

/// Groups that storaged changes in one transaction.
const GROUPS_PER_TRANSACTION: usize = 100;
/// Each time is the median of so many.
const SAMPLES: usize = 15;

/// Measures and prints.
pub(crate) fn measure(plan: &Plan) -> Result<()> {
    let records = Records::make(plan)?;
    let (mut all_records, mut all_bytes) = (0, 0);
    for (kind, weight) in records.weights() {
        println!("records\t{kind}\t{}\t{} bytes", weight.records, weight.bytes);
        all_records += weight.records;
        all_bytes += weight.bytes;
    }
    println!("records\tall\t{all_records}\t{all_bytes} bytes");
    let range = records.into_range();
    let before = resident()?;
    let begun = Instant::now();
    let map = ClusterMap::build(&range)?;
    let took = begun.elapsed();
    println!("map\tbuild\t{:.0} ms", took.as_secs_f64() * 1e3);
    println!("map\tmemory\t{} MiB", resident()?.saturating_sub(before) >> 20);
    drop(range);
    follow(plan, &map)?;
    view(&map)?;
    node_dies(plan, &map)
}

/// What a process has in memory, in bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[SAMPLES / 2]
}

fn put(map: &ClusterMap, key: &Key, value: std::sync::Arc<[u8]>) -> Event {
    let revision = Revision(map.revision().0 + 1);
    Event::Put(Entry {
        key: key.to_text(),
        value,
        created: revision,
        modified: revision,
        lease: None,
    })
}

fn batch(map: &ClusterMap, events: Vec<Event>) -> Batch {
    Batch {
        revision: Revision(map.revision().0 + 1),
        events,
    }
}

/// What one transaction costs everybody who keeps a map.
fn follow(plan: &Plan, map: &ClusterMap) -> Result<()> {
    let group = |number| -> Result<Event> {
        let pg = PgId {
            pool: PoolId(1),
            number,
        };
        let slots = map.group(pg).context("no group")?.slots.clone();
        Ok(put(map, &Key::Group(pg), encode(&GroupRecord { slots })?))
    };
    let one = batch(map, vec![group(0)?]);
    let hundred = (0..100.min(plan.groups)).map(group).collect::<Result<_>>()?;
    let hundred = batch(map, hundred);
    let opened = batch(
        map,
        vec![put(map, &Key::Owner(VolumeId(3)), encode(&owner(plan, 1))?)],
    );
    let closed = batch(map, vec![Event::Deleted(Key::Owner(VolumeId(3)).to_text())]);
    let (_, volume) = map.volume(VolumeId(3)).context("no volume")?;
    let changed = batch(
        map,
        vec![put(map, &Key::Volume(VolumeId(3)), encode(&volume.record)?)],
    );
    let batches = [
        ("one group", one),
        ("100 groups", hundred),
        ("a volume is opened", opened),
        ("a volume is closed", closed),
        ("a volume is changed", changed),
    ];
    for (name, batch) in batches {
        // The map of before lives on beside it, as it does in storaged while anybody looks at it.
        let took = median(|| drop(black_box(map.apply(&batch))));
        println!("follow\t{name}\t{:.2} ms", took.as_secs_f64() * 1e3);
    }
    let disk = DiskId(1);
    let took = median(|| {
        black_box(map.groups_on(disk).count());
    });
    println!("look\tgroups of a disk\t{:.2} ms", took.as_secs_f64() * 1e3);
    let of_node = || {
        map.owners()
            .values()
            .filter(|owner| owner.record.node == NodeId(1))
    };
    let took = median(|| {
        black_box(of_node().count());
    });
    println!("look\towners of a node\t{:.2} ms", took.as_secs_f64() * 1e3);
    Ok(())
}

/// What a front end is told.
fn view(map: &ClusterMap) -> Result<()> {
    let make = || map.volume_view(VolumeId(3), NodeId(1), Generation(9), 5000);
    let view = make().context("no view")?;
    let took = median(|| drop(black_box(make())));
    println!(
        "view\tto make\t{:.3} ms\t{} groups, {} disks",
        took.as_secs_f64() * 1e3,
        view.groups.len(),
        view.disks.len()
    );
    let push = SessionPush::View(Box::new(view));
    println!("view\tits bytes\t{} bytes", serde_json::to_vec(&push)?.len());
    Ok(())
}

/// A node dies: its disks leave their groups.
fn node_dies(plan: &Plan, map: &ClusterMap) -> Result<()> {
    let (mut groups, mut transactions, mut bytes) = (0, 0, 0);
    for disk in plan.disks_of(1) {
        let mut of_pool = std::collections::BTreeMap::<PoolId, Vec<PgId>>::new();
        for (pg, _) in map.groups_on(disk.disk) {
            of_pool.entry(pg.pool).or_default().push(pg);
        }
        for pgs in of_pool.values() {
            groups += pgs.len();
            transactions += pgs.len().div_ceil(GROUPS_PER_TRANSACTION);
            for pg in pgs {
                let slots = map.group(*pg).context("no group")?.slots.iter().map(|slot| Slot {
                    disk: slot.disk,
                    state: if slot.disk == disk.disk {
                        SlotState::Down
                    } else {
                        slot.state
                    },
                    shard: slot.shard,
                    arrived: Interval::default(),
                });
                let record = GroupRecord {
                    slots: slots.collect(),
                };
                bytes += Key::Group(*pg).to_text().len() + encode(&record)?.len();
            }
        }
    }
    let owners = map
        .owners()
        .values()
        .filter(|owner| owner.record.node == NodeId(1))
        .count();
    println!("node dies\tgroups changed\t{groups}\tin {transactions} transactions, {bytes} bytes of records");
    println!(
        "node dies\ttold to all nodes\t{:.1} MB",
        (bytes as f64) * f64::from(plan.nodes) / 1e6
    );
    println!("node dies\towners that are gone\t{owners}");
    Ok(())
}
