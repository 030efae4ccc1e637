//! What happened between two samples, as rates and times. Pure.

use std::time::Duration;

use admin_api::disks::DiskState;
use admin_api::figures::{Bucket, DiskFigures, Latency, RequestFigures, VolumeFigures};
use serde::Serialize;

use super::sources::Sample;

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    /// Between the two samples, in seconds.
    pub(super) interval_s: f64,
    /// The node whose disks these are.
    pub(super) node: u32,
    /// The busiest first.
    pub(super) volumes: Vec<VolumeLine>,
    /// By number.
    pub(super) disks: Vec<DiskLine>,
    /// What must be known besides, in sentences.
    pub(super) notes: Vec<String>,
}

/// A volume in a front end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct VolumeLine {
    pub(super) volume: String,
    pub(super) program: String,
    pub(super) pid: u32,
    pub(super) clients: u64,
    pub(super) in_flight: u64,
    pub(super) read: Rate,
    pub(super) write: Rate,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct DiskLine {
    pub(super) disk: u32,
    pub(super) state: DiskState,
    pub(super) slow: Option<String>,
    pub(super) used: u64,
    pub(super) free: u64,
    pub(super) in_flight: u64,
    pub(super) read: Rate,
    pub(super) write: Rate,
    /// Log writes with their flush, of the medium.
    pub(super) log: Rate,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What happened from one sample to the next. Whoever is only in the second began in between: of him nothing is
/// known yet.
pub(super) fn between(before: &Sample, now: &Sample, time: Duration) -> View {
    let mut volumes = Vec::new();
    for front_end in &now.front_ends {
        let former = before
            .front_ends
            .iter()
            .find(|former| (&former.program, former.pid) == (&front_end.program, front_end.pid));
        for volume in &front_end.volumes {
            let mut earlier = former.into_iter().flat_map(|former| &former.volumes);
            let earlier = earlier.find(|earlier| earlier.volume == volume.volume);
            let earlier = earlier.unwrap_or(volume);
            let rate = |kind| rate(&earlier.requests, &volume.requests, kind, time);
            volumes.push(VolumeLine {
                volume: volume.volume.clone(),
                program: front_end.program.clone(),
                pid: front_end.pid,
                clients: volume.clients,
                in_flight: volume.in_flight,
                read: rate("read"),
                write: rate("write"),
            });
        }
    }
    let busy = |line: &VolumeLine| line.read.per_s + line.write.per_s;
    volumes.sort_by(|a, b| busy(b).total_cmp(&busy(a)).then_with(|| a.volume.cmp(&b.volume)));
    let disk = |disk: &DiskFigures| {
        let former = before.node.disks.iter().find(|former| former.disk == disk.disk);
        disk_line(former.unwrap_or(disk), disk, time)
    };
    View {
        interval_s: time.as_secs_f64(),
        node: now.node.node,
        volumes,
        disks: now.node.disks.iter().map(disk).collect(),
        notes: notes(now),
    }
}

fn disk_line(before: &DiskFigures, now: &DiskFigures, time: Duration) -> DiskLine {
    DiskLine {
        disk: now.disk,
        state: now.state,
        slow: now.slow.clone(),
        used: now.used,
        free: now.free,
        in_flight: now.in_flight,
        read: rate(&before.requests, &now.requests, "read", time),
        write: rate(&before.requests, &now.requests, "write", time),
        log: rate(&before.medium, &now.medium, "log", time),
    }
}

fn notes(now: &Sample) -> Vec<String> {
    let open = || now.front_ends.iter().flat_map(|front_end| &front_end.volumes);
    let waiting = |volume: &VolumeFigures| {
        let name = volume.volume.clone();
        let sentences = volume.waiting.clone().into_iter();
        sentences.map(move |sentence| format!("{name}: {sentence}"))
    };
    let slow = now.node.disks.iter().filter_map(|disk| {
        let why = disk.slow.as_ref()?;
        Some(format!("disk-{} is slow: {why}", disk.disk))
    });
    let mut notes: Vec<String> = open().flat_map(waiting).chain(slow).collect();
    notes.extend(now.silent.iter().cloned());
    // Snapshots have no owner.
    let owned = open().filter(|volume| volume.generation > 0).count() as u64;
    let unseen = now.volumes_open.saturating_sub(owned);
    if unseen > 0 {
        notes.push(format!(
            "{unseen} of {} open volumes are not shown: their front ends run on another node, or have no control \
             socket where --controls says",
            now.volumes_open
        ));
    }
    notes
}

fn rate(before: &[RequestFigures], now: &[RequestFigures], kind: &str, time: Duration) -> Rate {
    let of = |figures: &'_ [RequestFigures]| figures.iter().find(|figures| figures.kind == kind).cloned();
    let (Some(now), Some(before)) = (of(now), of(before)) else {
        return Rate::default();
    };
    // A process or a volume that began anew counts from zero.
    let Some(requests) = now
        .requests
        .checked_sub(before.requests)
        .filter(|count| *count > 0)
    else {
        return Rate::default();
    };
    let seconds = time.as_secs_f64();
    Rate {
        per_s: exact(requests) / seconds,
        bytes_per_s: exact(now.bytes.saturating_sub(before.bytes)) / seconds,
        mean_us: (now.latency.sum_us - before.latency.sum_us).max(0.0) / exact(requests),
        p50_us: quantile(&before.latency, &now.latency, requests, 0.5),
        p99_us: quantile(&before.latency, &now.latency, requests, 0.99),
    }
}

/// Among so many requests between two states of a histogram, in microseconds: evenly spread within a step. What
/// lies beyond the last step counts as its end.
fn quantile(before: &Latency, now: &Latency, requests: u64, quantile: f64) -> f64 {
    let wanted = exact(requests) * quantile;
    let (mut from_us, mut below) = (0.0, 0.0);
    for step in &now.buckets {
        let count = exact(step.count.saturating_sub(at(&before.buckets, step.up_to_us)));
        let up_to_us = exact(step.up_to_us);
        if count >= wanted && count > below {
            return from_us + (up_to_us - from_us) * (wanted - below) / (count - below);
        }
        (from_us, below) = (up_to_us, count);
    }
    from_us
}

fn at(buckets: &[Bucket], up_to_us: u64) -> u64 {
    let step = buckets.iter().find(|step| step.up_to_us == up_to_us);
    step.map_or(0, |step| step.count)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people: 52 bits are plenty"
)]
fn exact(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    //! Rates are of what came in between, and nothing else.
    use admin_api::figures::{FrontEndFigures, NodeFigures};

    use super::*;

    fn reads(requests: u64, sum_us: f64, counts: [u64; 2]) -> RequestFigures {
        let buckets = [100, 200].into_iter().zip(counts);
        RequestFigures {
            kind: "read".into(),
            requests,
            bytes: requests * 4096,
            errors: 0,
            latency: Latency {
                sum_us,
                buckets: buckets
                    .map(|(up_to_us, count)| Bucket { up_to_us, count })
                    .collect(),
                ..Latency::default()
            },
        }
    }

    fn sample(figures: RequestFigures) -> Sample {
        let volume = VolumeFigures {
            volume: "db".into(),
            size: 1,
            generation: 4,
            clients: 1,
            in_flight: 2,
            waiting: vec!["writes wait for disk-3".into()],
            direct_reads: 0,
            throttled_requests: 0,
            throttled_ms: 0,
            shared_writes: 0,
            requests: vec![figures],
        };
        Sample {
            node: NodeFigures {
                node: 1,
                disks: Vec::new(),
            },
            front_ends: vec![FrontEndFigures {
                program: "nbd".into(),
                version: String::new(),
                pid: 7,
                uptime_s: 0,
                volumes: vec![volume],
            }],
            volumes_open: 3,
            silent: vec!["nobody".into()],
        }
    }

    #[test]
    fn a_rate_is_of_what_came_in_between() {
        let before = sample(reads(1_000, 1e9, [0, 1_000]));
        let now = sample(reads(1_200, 1e9 + 30_000.0, [100, 1_200]));
        let view = between(&before, &now, Duration::from_secs(2));
        let read = view.volumes[0].read;
        assert_eq!((read.per_s, read.bytes_per_s), (100.0, 409_600.0));
        assert!((149.9..150.1).contains(&read.mean_us), "{read:?}");
        // 100 were below 100 us and 100 more below 200: the 100th is at 100, the 198th at 198.
        assert!((99.9..100.1).contains(&read.p50_us), "{read:?}");
        assert!((197.9..198.1).contains(&read.p99_us), "{read:?}");
        assert_eq!(view.volumes[0].write, Rate::default());
    }

    #[test]
    fn who_began_in_between_or_anew_has_no_rates_yet() {
        let mut before = sample(reads(1_000, 1e9, [0, 1_000]));
        let now = sample(reads(5, 500.0, [5, 5]));
        let rate = |before: &Sample| between(before, &now, Duration::from_secs(1)).volumes[0].read;
        assert_eq!(rate(&before), Rate::default());
        before.front_ends.clear();
        assert_eq!(rate(&before), Rate::default());
    }

    #[test]
    fn what_waits_who_is_silent_and_what_is_not_seen_is_said() {
        let sample = sample(reads(0, 0.0, [0, 0]));
        let notes = between(&sample, &sample, Duration::from_secs(1)).notes;
        assert_eq!(notes[..2], ["db: writes wait for disk-3", "nobody"]);
        assert!(
            notes[2].starts_with("2 of 3 open volumes are not shown"),
            "{notes:?}"
        );
    }
}
