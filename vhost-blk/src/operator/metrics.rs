//! The status as Prometheus text (exposition format 0.0.4). Pure: a status in, text out.
//!
//! Written by hand: the exporters that exist gather samples themselves, and cannot be given a histogram
//! that was counted elsewhere.

use std::fmt::Write as _;

use admin_api::vhost::{DeviceStatus, RequestFigures};

use super::summary::exact;

/// Microseconds in a second.
const US: f64 = 1e6;

/// A figure with its name, its type, and what it means.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

/// One of the figures of a kind of requests.
type Amount = fn(&RequestFigures) -> u64;

const UPTIME: Family = gauge("vhost_blk_uptime_seconds", "For how long this vhost-blk runs.");
const SIZE: Family = gauge("vhost_blk_size_bytes", "The volume's size.");
const GENERATION: Family = gauge(
    "vhost_blk_generation",
    "The generation that the volume is owned with.",
);
const CONNECTED: Family = gauge("vhost_blk_connected", "Whether a hypervisor is connected.");
const RINGS: Family = gauge("vhost_blk_rings", "Queues that run.");
const BROKEN: Family = gauge("vhost_blk_broken_rings", "Queues that the guest has broken.");
const IN_FLIGHT: Family = gauge("vhost_blk_in_flight", "Requests taken and not answered.");
const HOLDS: Family = gauge(
    "vhost_blk_holds",
    "Rests going on: with any, no request is taken.",
);
const WAITING: Family = gauge("vhost_blk_waiting", "Things that requests wait for.");
const DIRECT_READS: Family = counter(
    "vhost_blk_direct_reads_total",
    "Reads of disks' files done by this process itself.",
);
const SHARED_WRITES: Family = counter(
    "vhost_blk_shared_writes_total",
    "Writes to disks whose data was in shared memory.",
);
const REQUESTS: Family = counter("vhost_blk_requests_total", "Requests answered.");
const BYTES: Family = counter(
    "vhost_blk_request_bytes_total",
    "Bytes of requests that did not fail.",
);
const ERRORS: Family = counter(
    "vhost_blk_request_errors_total",
    "Requests answered with a failure.",
);
const SECONDS: Family = Family {
    name: "vhost_blk_request_seconds",
    kind: "histogram",
    help: "From being taken out of the queue to being answered.",
};

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: "gauge",
        help,
    }
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: "counter",
        help,
    }
}

/// All figures.
pub(super) fn render(status: &DeviceStatus) -> String {
    let mut text = String::new();
    let volume = format!("volume=\"{}\"", escaped(&status.volume));
    let broken = status.rings.iter().filter(|ring| ring.broken).count();
    for (family, value) in [
        (UPTIME, status.uptime_s),
        (SIZE, status.size),
        (GENERATION, status.generation),
        (CONNECTED, u64::from(status.connected)),
        (RINGS, status.rings.len() as u64),
        (BROKEN, broken as u64),
        (IN_FLIGHT, status.in_flight),
        (HOLDS, status.holds.len() as u64),
        (WAITING, status.waiting.len() as u64),
        (DIRECT_READS, status.direct_reads),
        (SHARED_WRITES, status.shared_writes),
    ] {
        begin(&mut text, &family);
        sample(&mut text, family.name, &volume, value);
    }
    let by_kind: [(Family, Amount); 3] = [
        (REQUESTS, |figures| figures.requests),
        (BYTES, |figures| figures.bytes),
        (ERRORS, |figures| figures.errors),
    ];
    for (family, value) in by_kind {
        begin(&mut text, &family);
        for figures in &status.requests {
            sample(&mut text, family.name, &labels(&volume, figures), value(figures));
        }
    }
    begin(&mut text, &SECONDS);
    for figures in &status.requests {
        histogram(&mut text, &labels(&volume, figures), figures);
    }
    text
}

fn labels(volume: &str, figures: &RequestFigures) -> String {
    format!("{volume},kind=\"{}\"", escaped(&figures.kind))
}

fn histogram(text: &mut String, labels: &str, figures: &RequestFigures) {
    let name = SECONDS.name;
    for step in &figures.latency.buckets {
        let up_to = exact(step.up_to_us) / US;
        sample(
            text,
            &format!("{name}_bucket"),
            &format!("{labels},le=\"{up_to}\""),
            step.count,
        );
    }
    let all = figures.requests;
    sample(
        text,
        &format!("{name}_bucket"),
        &format!("{labels},le=\"+Inf\""),
        all,
    );
    sample(text, &format!("{name}_sum"), labels, figures.latency.sum_us / US);
    sample(text, &format!("{name}_count"), labels, all);
}

fn begin(text: &mut String, family: &Family) {
    let Family { name, kind, help } = family;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    //! What a scraper reads: every line is a comment or a sample, histograms are cumulative to their end.
    use admin_api::vhost::{Bucket, Latency};

    use super::*;

    fn status() -> DeviceStatus {
        DeviceStatus {
            version: "0.1.0".into(),
            uptime_s: 5,
            volume: "db\"1".into(),
            size: 4096,
            block_size: 512,
            read_only: false,
            generation: 7,
            connected: true,
            queues: 4,
            rings: Vec::new(),
            in_flight: 0,
            holds: Vec::new(),
            waiting: Vec::new(),
            direct_reads: 3,
            shared_writes: 0,
            seccomp: "enforce".into(),
            requests: vec![RequestFigures {
                kind: "read".into(),
                requests: 3,
                bytes: 12288,
                errors: 0,
                latency: Latency {
                    sum_us: 1_500_000.0,
                    buckets: vec![Bucket {
                        up_to_us: 500,
                        count: 2,
                    }],
                    ..Latency::default()
                },
            }],
        }
    }

    #[test]
    fn figures_stand_under_their_names_with_escaped_labels() {
        let text = render(&status());
        let labels = r#"volume="db\"1",kind="read""#;
        for line in [
            r#"vhost_blk_generation{volume="db\"1"} 7"#.to_owned(),
            format!("vhost_blk_requests_total{{{labels}}} 3"),
            format!("vhost_blk_request_seconds_bucket{{{labels},le=\"0.0005\"}} 2"),
            format!("vhost_blk_request_seconds_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("vhost_blk_request_seconds_sum{{{labels}}} 1.5"),
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn every_sample_has_a_type_before_it() {
        let text = render(&status());
        let typed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(typed.iter().any(|name| line.starts_with(name)), "{line}");
        }
    }
}
