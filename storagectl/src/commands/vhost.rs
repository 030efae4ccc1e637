//! `storagectl vhost`: one attached volume.

use admin_api::figures::RequestFigures;
use admin_api::sizes::format_size;
use admin_api::vhost::{self, Announced, DeviceStatus, Drain, Hold, Resume, Resumed};
use anyhow::Result;

use crate::api::Api;
use crate::arguments::VhostCommand;
use crate::clock::{format_microseconds, format_span};
use crate::output::{Form, exact_size, properties, table};

/// Does what the command says.
pub(super) async fn perform(form: Form, command: VhostCommand) -> Result<()> {
    match command {
        VhostCommand::Stats { control } => {
            let status: DeviceStatus = Api::of_vhost_blk(control)?.get(vhost::STATS).await?;
            form.show(&status, describe)
        }
        VhostCommand::Drain { control, limit } => {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let hold: Hold = Api::of_vhost_blk(control)?
                .post(vhost::DRAIN, &Drain { limit_ms })
                .await?;
            form.show(&hold, |hold| {
                format!(
                    "rest {}: nothing is under way, after {} ms; ends by itself in {} ms",
                    hold.hold, hold.drained_ms, hold.left_ms
                )
            })
        }
        VhostCommand::Resume { control, hold } => {
            let resumed: Resumed = Api::of_vhost_blk(control)?
                .post(vhost::RESUME, &Resume { hold })
                .await?;
            form.show(&resumed, describe_resumed)
        }
        VhostCommand::Resize { control } => {
            let announced: Announced = Api::of_vhost_blk(control)?.post(vhost::RESIZE, &()).await?;
            form.show(&announced, |announced| {
                let size = exact_size(announced.size);
                if announced.told {
                    format!("the guest was told that the volume has {size}")
                } else {
                    format!("the volume has {size}; no hypervisor is connected that could tell a guest")
                }
            })
        }
    }
}

fn describe_resumed(resumed: &Resumed) -> String {
    let list = |holds: &[u64]| holds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    match (resumed.ended.is_empty(), resumed.left.is_empty()) {
        (true, true) => "there was no rest".into(),
        (_, true) => format!("ended: {}; requests are taken again", list(&resumed.ended)),
        (_, false) => format!(
            "ended: {}; no requests are taken until others end too: {}",
            list(&resumed.ended),
            list(&resumed.left)
        ),
    }
}

fn describe(status: &DeviceStatus) -> String {
    let head = properties(&[
        ("volume", status.volume.clone()),
        ("size", exact_size(status.size)),
        ("access", if status.read_only { "read only" } else { "" }.into()),
        ("generation", status.generation.to_string()),
        ("guest", guest(status)),
        ("under way", status.in_flight.to_string()),
        ("direct reads", status.direct_reads.to_string()),
        ("shared writes", status.shared_writes.to_string()),
        ("throttled", throttled(status)),
        ("seccomp", status.seccomp.clone()),
        (
            "vhost-blk",
            format!("{}, up for {}", status.version, format_span(status.uptime_s)),
        ),
    ]);
    let holds = status.holds.iter().map(|hold| {
        let (hold, left_ms) = (hold.hold, hold.left_ms);
        format!("rest {hold} goes on for at most {left_ms} ms: no request is taken")
    });
    let broken = status.rings.iter().filter(|ring| ring.broken).map(|ring| {
        let index = ring.index;
        format!("queue {index} was broken by the guest, and is left alone until the guest sets it up anew")
    });
    let remarks = holds.chain(broken).chain(status.waiting.iter().cloned());
    let lines = remarks.map(|remark| format!("\n- {remark}"));
    let remarks: String = lines.collect();
    format!("{head}{remarks}\n\n{}", requests(&status.requests))
}

/// What waited for its turn by the volume's limits, if anything did.
fn throttled(status: &DeviceStatus) -> String {
    match status.throttled_requests {
        0 => String::new(),
        requests => format!(
            "{requests} requests waited for the volume's limits, {} ms each",
            status.throttled_ms / requests
        ),
    }
}

fn guest(status: &DeviceStatus) -> String {
    match (status.connected, status.rings.len()) {
        (false, _) => "no hypervisor is connected".into(),
        (true, running) => format!("connected, {running} of {} queues run", status.queues),
    }
}

fn requests(figures: &[RequestFigures]) -> String {
    let asked = figures.iter().filter(|figures| figures.requests > 0);
    let rows = asked.map(|figures| {
        let latency = &figures.latency;
        [
            figures.kind.clone(),
            figures.requests.to_string(),
            format_size(figures.bytes),
            figures.errors.to_string(),
            format_microseconds(latency.p50_us),
            format_microseconds(latency.p99_us),
            format_microseconds(latency.p999_us),
            format_microseconds(latency.max_us),
        ]
    });
    table(
        [
            "kind", "requests", "bytes", "errors", "p50", "p99", "p99.9", "max",
        ],
        &["requests", "bytes", "errors", "p50", "p99", "p99.9", "max"],
        rows,
    )
}

#[cfg(test)]
mod tests {
    //! What is wrong is said, and what never happened is left out.
    use admin_api::figures::Latency;
    use admin_api::vhost::{HoldStatus, RingStatus};

    use super::*;

    fn figures(kind: &str, requests: u64) -> RequestFigures {
        RequestFigures {
            kind: kind.into(),
            requests,
            bytes: requests * 4096,
            errors: 0,
            latency: Latency {
                p50_us: 95.4,
                p99_us: 1_540.0,
                p999_us: 2_500_000.0,
                ..Latency::default()
            },
        }
    }

    #[test]
    fn rests_broken_queues_and_reasons_are_lines_and_unused_kinds_are_not() {
        let status = DeviceStatus {
            version: "0.1.0".into(),
            uptime_s: 61,
            volume: "db".into(),
            size: 4096,
            block_size: 512,
            read_only: false,
            generation: 3,
            connected: true,
            queues: 2,
            rings: vec![RingStatus {
                index: 1,
                in_flight: 0,
                broken: true,
            }],
            in_flight: 0,
            holds: vec![HoldStatus {
                hold: 4,
                left_ms: 900,
            }],
            waiting: vec!["writes wait for disk 2".into()],
            direct_reads: 0,
            throttled_requests: 0,
            throttled_ms: 0,
            shared_writes: 0,
            seccomp: "enforce".into(),
            requests: vec![figures("read", 2), figures("discard", 0)],
        };
        let text = describe(&status);
        for words in [
            "connected, 1 of 2 queues run",
            "\n- rest 4 goes on for at most 900 ms",
            "\n- queue 1 was broken",
            "\n- writes wait for disk 2",
            "95 us",
            "1.5 ms",
            "2.5 s",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
        assert!(!text.contains("discard"), "{text}");
    }

    #[test]
    fn a_rest_of_others_that_goes_on_is_told() {
        let resumed = Resumed {
            ended: vec![1],
            left: vec![2, 3],
        };
        assert!(describe_resumed(&resumed).contains("until others end too: 2, 3"));
    }
}
