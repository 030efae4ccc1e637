//! Figures in Prometheus' text format, gathered when they are asked for.
//!
//! Every figure is read from where it is counted; nothing is counted a second time here.

use admin_api::disks::DiskState;
use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::DiskId;

use crate::admin::Context;
use crate::disks::Condition;

/// All figures as text.
pub async fn render(context: &Context) -> String {
    let map = context.volumes.map();
    let mut conditions = Vec::new();
    for id in map.disks().keys() {
        conditions.push((*id, context.disks.condition(*id).await));
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe();
        gauge!("storaged_uptime_seconds").set(context.started.elapsed().as_secs_f64());
        gauge!("storaged_volumes").set(exact(map.volume_names().count() as u64));
        gauge!("storaged_volumes_open").set(exact(map.owners().len() as u64));
        gauge!("storaged_snapshots").set(exact(
            map.families()
                .map(|(_, family)| family.snapshots().len() as u64)
                .sum(),
        ));
        gauge!("storaged_pools").set(exact(map.pools().count() as u64));
        gauge!("storaged_tasks_running").set(exact(context.tasks.running() as u64));
        gauge!("storaged_map_revision").set(exact(map.revision().0));
        for (id, condition) in &conditions {
            disk(*id, condition);
        }
    });
    recorder.handle().render()
}

fn describe() {
    describe_gauge!("storaged_uptime_seconds", "For how long this storaged runs.");
    describe_gauge!("storaged_volumes", "Volumes of the cluster.");
    describe_gauge!("storaged_volumes_open", "Volumes that somebody has open.");
    describe_gauge!("storaged_snapshots", "Snapshots of the cluster.");
    describe_gauge!("storaged_pools", "Pools of the cluster.");
    describe_gauge!("storaged_tasks_running", "Tasks that run on this node.");
    describe_gauge!(
        "storaged_map_revision",
        "The revision of the cluster map that this node has."
    );
    describe_gauge!("storaged_disk_up", "Whether the disk serves (1) or not (0).");
    describe_gauge!(
        "storaged_disk_capacity_bytes",
        "The most that the disk's chunks may take."
    );
    describe_gauge!("storaged_disk_used_bytes", "What the disk's chunks take.");
    describe_gauge!("storaged_disk_free_bytes", "What new data may still take.");
    describe_gauge!("storaged_disk_log_bytes", "Length of the disk's log.");
    describe_gauge!(
        "storaged_disk_log_used_bytes",
        "What of the log waits for a checkpoint."
    );
    describe_gauge!(
        "storaged_disk_overlay_bytes",
        "Written blocks in memory that are not in their chunks yet."
    );
    describe_gauge!("storaged_disk_metadata_bytes", "Objects' metadata in memory.");
    describe_gauge!("storaged_disk_cached_bytes", "Blocks in the read cache.");
    describe_gauge!(
        "storaged_disk_in_flight",
        "Requests that wait for the store's answer."
    );
    describe_gauge!(
        "storaged_disk_objects_in_doubt",
        "Objects with a write that may not be on all copies."
    );
    describe_gauge!("storaged_disk_connections", "Connections that are open.");
    describe_counter!("storaged_disk_requests_total", "Requests that came to the disk.");
    describe_counter!("storaged_disk_reads_total", "Reads answered with bytes.");
    describe_counter!("storaged_disk_read_bytes_total", "Bytes of these.");
    describe_counter!(
        "storaged_disk_cache_hits_total",
        "Blocks that the read cache had."
    );
    describe_counter!("storaged_disk_cache_misses_total", "Blocks that it had not.");
    describe_counter!("storaged_disk_writes_total", "Writes accepted.");
    describe_counter!("storaged_disk_write_bytes_total", "Bytes of these.");
    describe_counter!(
        "storaged_disk_log_batches_total",
        "Batches written to the log, one flush each."
    );
    describe_counter!("storaged_disk_log_batch_bytes_total", "Bytes of these.");
    describe_counter!("storaged_disk_checkpoints_total", "Checkpoints completed.");
    describe_counter!(
        "storaged_disk_damaged_blocks_total",
        "Blocks found damaged by reads."
    );
}

fn disk(id: DiskId, condition: &Condition) {
    let label = id.0.to_string();
    let up = condition.state == DiskState::Up;
    gauge!("storaged_disk_up", "disk" => label.clone()).set(if up { 1.0 } else { 0.0 });
    if !up {
        return;
    }
    let store = &condition.figures.store;
    for (name, value) in [
        ("storaged_disk_capacity_bytes", store.capacity_bytes),
        ("storaged_disk_used_bytes", store.used_bytes),
        ("storaged_disk_free_bytes", store.free_bytes),
        ("storaged_disk_log_bytes", store.log_bytes),
        ("storaged_disk_log_used_bytes", store.log_used_bytes),
        ("storaged_disk_overlay_bytes", store.overlay_bytes),
        ("storaged_disk_metadata_bytes", store.metadata_bytes),
        ("storaged_disk_cached_bytes", store.cached_bytes),
        ("storaged_disk_in_flight", store.in_flight),
        ("storaged_disk_objects_in_doubt", store.objects_in_doubt),
        ("storaged_disk_connections", condition.figures.connections),
    ] {
        gauge!(name, "disk" => label.clone()).set(exact(value));
    }
    for (name, value) in [
        ("storaged_disk_requests_total", condition.figures.requests),
        ("storaged_disk_reads_total", store.reads),
        ("storaged_disk_read_bytes_total", store.read_bytes),
        ("storaged_disk_cache_hits_total", store.cache_hits),
        ("storaged_disk_cache_misses_total", store.cache_misses),
        ("storaged_disk_writes_total", store.writes),
        ("storaged_disk_write_bytes_total", store.write_bytes),
        ("storaged_disk_log_batches_total", store.log_batches),
        ("storaged_disk_log_batch_bytes_total", store.log_batch_bytes),
        ("storaged_disk_checkpoints_total", store.checkpoints),
        ("storaged_disk_damaged_blocks_total", store.damaged_blocks),
    ] {
        counter!(name, "disk" => label.clone()).absolute(value);
    }
}

/// A figure as Prometheus keeps it: exact up to 2^53, and good to 16 digits beyond.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn exact(value: u64) -> f64 {
    value as f64
}
