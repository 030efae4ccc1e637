//! The status as Prometheus text. Pure: a status in, text out.

use admin_api::vhost::DeviceStatus;
use telemetry::prometheus::{Family, Text, counter, gauge, labels};

const UPTIME: Family = gauge("uptime_seconds", "For how long this vhost-blk runs.");
const SIZE: Family = gauge("size_bytes", "The volume's size.");
const GENERATION: Family = gauge("generation", "The generation that the volume is owned with.");
const CONNECTED: Family = gauge("connected", "Whether a hypervisor is connected.");
const RINGS: Family = gauge("rings", "Queues that run.");
const BROKEN: Family = gauge("broken_rings", "Queues that the guest has broken.");
const IN_FLIGHT: Family = gauge("in_flight", "Requests taken and not answered.");
const HOLDS: Family = gauge("holds", "Rests going on: with any, no request is taken.");
const WAITING: Family = gauge("waiting", "Things that requests wait for.");
const DIRECT_READS: Family = counter(
    "direct_reads_total",
    "Reads of disks' files done by this process itself.",
);
const SHARED_WRITES: Family = counter(
    "shared_writes_total",
    "Writes to disks whose data was in shared memory.",
);
const THROTTLED: Family = counter(
    "throttled_requests_total",
    "Requests that waited for their turn by the volume's limits.",
);
const THROTTLED_MS: Family = counter(
    "throttled_milliseconds_total",
    "How long these waited, all together.",
);

/// All figures.
pub(super) fn render(status: &DeviceStatus) -> String {
    let mut text = Text::new("vhost_blk");
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
        (THROTTLED, status.throttled_requests),
        (THROTTLED_MS, status.throttled_ms),
    ] {
        text.family(&family, [(labels(&[("volume", &status.volume)]), value)]);
    }
    text.requests(&[(&status.volume, &status.requests)]);
    text.finish()
}

#[cfg(test)]
mod tests {
    //! What a scraper reads of one volume.
    use admin_api::figures::{Latency, RequestFigures};

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
            throttled_requests: 2,
            throttled_ms: 30,
            seccomp: "enforce".into(),
            requests: vec![RequestFigures {
                kind: "read".into(),
                requests: 3,
                bytes: 12288,
                errors: 0,
                latency: Latency::default(),
            }],
        }
    }

    #[test]
    fn figures_stand_under_their_names_with_the_volume() {
        let text = render(&status());
        for line in [
            r#"vhost_blk_generation{volume="db\"1"} 7"#,
            r#"vhost_blk_throttled_milliseconds_total{volume="db\"1"} 30"#,
            r#"vhost_blk_requests_total{volume="db\"1",kind="read"} 3"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
