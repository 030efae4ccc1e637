//! Figures in Prometheus' text format, gathered when they are asked for.
//!
//! Every figure is read from where it is counted; nothing is counted a second time here.

use admin_api::disks::DiskState;
use admin_api::figures::RequestFigures;
use admin_api::status::Recovery;
use protocol::DiskId;
use telemetry::prometheus::{Family, Text, counter, gauge, histogram, labels};

use crate::admin::Context;
use crate::disk::{Entries, Times};
use crate::disks::Condition;

const UPTIME: Family = gauge("uptime_seconds", "For how long this storaged runs.");
const VOLUMES: Family = gauge("volumes", "Volumes of the cluster.");
const VOLUMES_OPEN: Family = gauge("volumes_open", "Volumes that somebody has open.");
const SNAPSHOTS: Family = gauge("snapshots", "Snapshots of the cluster.");
const POOLS: Family = gauge("pools", "Pools of the cluster.");
const TASKS_RUNNING: Family = gauge("tasks_running", "Tasks that run on this node.");
const MAP_REVISION: Family = gauge(
    "map_revision",
    "The revision of the cluster map that this node has.",
);
const CERTIFICATE_END: Family = gauge(
    "certificate_end_timestamp_seconds",
    "When a certificate ends that somebody else renews.",
);
const ACCESS_TOKEN_END: Family = gauge(
    "access_token_end_timestamp_seconds",
    "When an access token ends, as every node says of all.",
);
const DISK_UP: Family = gauge("disk_up", "Whether the disk serves (1) or not (0).");
const DISK_CAPACITY_BYTES: Family = gauge("disk_capacity_bytes", "The most that the disk's chunks may take.");
const DISK_USED_BYTES: Family = gauge("disk_used_bytes", "What the disk's chunks take.");
const DISK_FREE_BYTES: Family = gauge("disk_free_bytes", "What new data may still take.");
const DISK_LOG_BYTES: Family = gauge("disk_log_bytes", "Length of the disk's log.");
const DISK_LOG_USED_BYTES: Family = gauge("disk_log_used_bytes", "What of the log waits for a checkpoint.");
const DISK_OVERLAY_BYTES: Family = gauge(
    "disk_overlay_bytes",
    "Written blocks in memory that are not in their chunks yet.",
);
const DISK_METADATA_BYTES: Family = gauge("disk_metadata_bytes", "Objects' metadata in memory.");
const DISK_CACHED_BYTES: Family = gauge("disk_cached_bytes", "Blocks in the read cache.");
const DISK_IN_FLIGHT: Family = gauge("disk_in_flight", "Requests that wait for the store's answer.");
const DISK_OBJECTS_IN_DOUBT: Family = gauge(
    "disk_objects_in_doubt",
    "Objects with a write that may not be on all copies.",
);
const DISK_CONNECTIONS: Family = gauge("disk_connections", "Connections that are open.");
const DISK_COPIED: Family = counter(
    "disk_copied_bytes_total",
    "Copied to the disk because it had come back.",
);
const DISK_REQUESTS: Family = counter("disk_requests_total", "Requests that came to the disk.");
const DISK_READS: Family = counter("disk_reads_total", "Reads answered with bytes.");
const DISK_READ_BYTES: Family = counter("disk_read_bytes_total", "Bytes of these.");
const DISK_CACHE_HITS: Family = counter("disk_cache_hits_total", "Blocks that the read cache had.");
const DISK_CACHE_MISSES: Family = counter("disk_cache_misses_total", "Blocks that it had not.");
const DISK_WRITES: Family = counter("disk_writes_total", "Writes accepted.");
const DISK_WRITE_BYTES: Family = counter("disk_write_bytes_total", "Bytes of these.");
const DISK_LOG_BATCHES: Family = counter(
    "disk_log_batches_total",
    "Batches written to the log, one flush each.",
);
const DISK_LOG_BATCH_BYTES: Family = counter("disk_log_batch_bytes_total", "Bytes of these.");
const DISK_CHECKPOINTS: Family = counter("disk_checkpoints_total", "Checkpoints completed.");
const DISK_DAMAGED_BLOCKS: Family = counter("disk_damaged_blocks_total", "Blocks found damaged by reads.");
const DISK_SCRUBBED_OBJECTS: Family = counter(
    "disk_scrubbed_objects_total",
    "Copies of objects that scrubs have compared with others'.",
);
const DISK_SCRUBBED_BLOCKS: Family = counter(
    "disk_scrubbed_blocks_total",
    "Blocks that scrubs have read from the medium.",
);
const DISK_MENDED_BLOCKS: Family = counter(
    "disk_mended_blocks_total",
    "Damaged blocks that were stored again from other disks' copies.",
);
const DISK_UNMENDED_BLOCKS: Family = counter(
    "disk_unmended_blocks_total",
    "Damaged blocks that could not be stored again, each time that this was found.",
);
const DISK_DIFFERING_OBJECTS: Family = counter(
    "disk_differing_objects_total",
    "Objects that another disk in sync has at another stamp, each time that this was found.",
);
const DISK_SLOW: Family = gauge(
    "disk_slow",
    "Whether the disk is thought to be much slower than its peers (1) or not (0).",
);
const DISK_GROUPS_LEFT: Family = gauge(
    "disk_recovery_groups_left",
    "Placement groups that the disk is on its way back to.",
);
const DISK_SECONDS_LEFT: Family = gauge(
    "disk_recovery_seconds_left",
    "How long that will take; absent while it cannot be told.",
);
const DISK_RATE: Family = gauge(
    "disk_recovery_bytes_per_second",
    "How fast the disk is copied to, over the last half minute.",
);
const DISK_REQUEST: Family = histogram(
    "disk_request_seconds",
    "From being given to the store to its answer; of a write, until it is durable.",
);
const DISK_MEDIUM: Family = histogram(
    "disk_medium_seconds",
    "What the store asked the medium for; a log write with its flush.",
);

/// One of a disk's figures.
type Amount = fn(&Condition) -> u64;

/// What is told of a disk that is up.
const OF_A_DISK: &[(Family, Amount)] = &[
    (DISK_CAPACITY_BYTES, |condition| {
        condition.figures.store.capacity_bytes
    }),
    (DISK_USED_BYTES, |condition| condition.figures.store.used_bytes),
    (DISK_FREE_BYTES, |condition| condition.figures.store.free_bytes),
    (DISK_LOG_BYTES, |condition| condition.figures.store.log_bytes),
    (DISK_LOG_USED_BYTES, |condition| {
        condition.figures.store.log_used_bytes
    }),
    (DISK_OVERLAY_BYTES, |condition| {
        condition.figures.store.overlay_bytes
    }),
    (DISK_METADATA_BYTES, |condition| {
        condition.figures.store.metadata_bytes
    }),
    (DISK_CACHED_BYTES, |condition| {
        condition.figures.store.cached_bytes
    }),
    (DISK_IN_FLIGHT, |condition| condition.figures.store.in_flight),
    (DISK_OBJECTS_IN_DOUBT, |condition| {
        condition.figures.store.objects_in_doubt
    }),
    (DISK_CONNECTIONS, |condition| condition.figures.connections),
    (DISK_COPIED, |condition| condition.figures.copied),
    (DISK_REQUESTS, |condition| condition.figures.requests),
    (DISK_READS, |condition| condition.figures.store.reads),
    (DISK_READ_BYTES, |condition| condition.figures.store.read_bytes),
    (DISK_CACHE_HITS, |condition| condition.figures.store.cache_hits),
    (DISK_CACHE_MISSES, |condition| {
        condition.figures.store.cache_misses
    }),
    (DISK_WRITES, |condition| condition.figures.store.writes),
    (DISK_WRITE_BYTES, |condition| condition.figures.store.write_bytes),
    (DISK_LOG_BATCHES, |condition| condition.figures.store.log_batches),
    (DISK_LOG_BATCH_BYTES, |condition| {
        condition.figures.store.log_batch_bytes
    }),
    (DISK_CHECKPOINTS, |condition| condition.figures.store.checkpoints),
    (DISK_DAMAGED_BLOCKS, |condition| {
        condition.figures.store.damaged_blocks
    }),
    (DISK_SCRUBBED_OBJECTS, |condition| {
        condition.figures.scrubbed.objects
    }),
    (DISK_SCRUBBED_BLOCKS, |condition| {
        condition.figures.scrubbed.blocks
    }),
    (DISK_MENDED_BLOCKS, |condition| condition.figures.scrubbed.mended),
    (DISK_UNMENDED_BLOCKS, |condition| {
        condition.figures.scrubbed.unmended
    }),
    (DISK_DIFFERING_OBJECTS, |condition| {
        condition.figures.scrubbed.differing
    }),
];

/// A disk, as it is now.
struct Seen {
    label: String,
    condition: Condition,
    times: Option<Times>,
    /// How far it is on its way back, if it is.
    recovery: Option<Recovery>,
}

impl Seen {
    fn labels(&self) -> String {
        labels(&[("disk", &self.label)])
    }

    fn is_up(&self) -> bool {
        self.condition.state == DiskState::Up
    }
}

/// All figures as text.
pub async fn render(context: &Context) -> String {
    let map = context.volumes.map();
    let recoveries = context.progress.all();
    let mut disks = Vec::new();
    for DiskId(id) in map.disks().keys() {
        disks.push(Seen {
            label: id.to_string(),
            condition: context.disks.condition(DiskId(*id)).await,
            times: context.disks.times(DiskId(*id)).await,
            recovery: recoveries.iter().find(|recovery| recovery.disk == *id).copied(),
        });
    }
    let mut text = Text::new("storaged");
    text.figure(&UPTIME, context.started.elapsed().as_secs_f64());
    text.figure(&VOLUMES, map.volume_names().count());
    text.figure(&VOLUMES_OPEN, map.owners().len());
    let snapshots = map.families().map(|(_, family)| family.snapshots().len());
    text.figure(&SNAPSHOTS, snapshots.sum::<usize>());
    text.figure(&POOLS, map.pools().count());
    text.figure(&TASKS_RUNNING, context.tasks.running());
    text.figure(&MAP_REVISION, map.revision().0);
    let ends = context.certificates.ends().await;
    text.family(
        &CERTIFICATE_END,
        ends.iter()
            .map(|(certificate, end)| (labels(&[("certificate", certificate.name)]), *end)),
    );
    let tokens = context.access.told().await;
    text.family(
        &ACCESS_TOKEN_END,
        tokens.iter().map(|(id, token)| {
            let labels = labels(&[("token", &id.to_string()), ("name", &token.name)]);
            (labels, token.expires_ms / 1000)
        }),
    );
    of_disks(&mut text, &disks);
    text.finish()
}

fn of_disks(text: &mut Text, disks: &[Seen]) {
    let all = disks.iter();
    text.family(&DISK_UP, all.map(|disk| (disk.labels(), u8::from(disk.is_up()))));
    let up = || disks.iter().filter(|disk| disk.is_up());
    text.family(
        &DISK_SLOW,
        up().map(|disk| (disk.labels(), u8::from(disk.condition.slow.is_some()))),
    );
    let left = up().map(|disk| {
        (
            disk.labels(),
            disk.recovery.map_or(0, |recovery| recovery.groups_left),
        )
    });
    text.family(&DISK_GROUPS_LEFT, left);
    let seconds = up().filter_map(|disk| {
        let left = disk.recovery.map_or(Some(0), |recovery| recovery.seconds_left)?;
        Some((disk.labels(), left))
    });
    text.family(&DISK_SECONDS_LEFT, seconds);
    let rate = |recovery: Recovery| recovery.bytes_per_s.unwrap_or(0);
    let rates = up().map(|disk| (disk.labels(), disk.recovery.map_or(0, rate)));
    text.family(&DISK_RATE, rates);
    // Of other nodes' disks nothing is known here: they are scraped there.
    let here = || up().filter(|disk| disk.condition.here);
    for (family, amount) in OF_A_DISK {
        text.family(
            family,
            here().map(|disk| (disk.labels(), amount(&disk.condition))),
        );
    }
    let requests = summaries(up(), "kind", |times| &times.requests);
    text.histogram(
        &DISK_REQUEST,
        requests.iter().map(|(labels, figures)| (labels.clone(), figures)),
    );
    let medium = summaries(up(), "operation", |times| &times.medium);
    text.histogram(
        &DISK_MEDIUM,
        medium.iter().map(|(labels, figures)| (labels.clone(), figures)),
    );
}

/// The times of all disks, with their labels.
fn summaries<'a>(
    disks: impl Iterator<Item = &'a Seen>,
    name: &str,
    part: fn(&Times) -> &Entries,
) -> Vec<(String, RequestFigures)> {
    let mut all = Vec::new();
    for disk in disks {
        for (kind, figures) in disk.times.iter().flat_map(part) {
            let labels = labels(&[("disk", &disk.label), (name, kind)]);
            all.push((labels, figures.summary(kind)));
        }
    }
    all
}
