//! `storagectl status`.

use std::fmt::Write;

use admin_api::routes;
use admin_api::sizes::format_size;
use admin_api::status::{Health, Status};
use anyhow::Result;

use crate::api::Api;
use crate::clock::format_span;
use crate::exit::Stop;
use crate::output::{Form, known, properties, share};

/// Shows the state of the whole. With `check`, anything but good health is an error.
pub(super) async fn status(api: &Api, form: Form, check: bool) -> Result<()> {
    let status: Status = api.get(routes::STATUS).await?;
    form.show(&status, describe)?;
    if check && status.health != Health::Ok {
        return Err(Stop::Unwell(status.summary).into());
    }
    Ok(())
}

fn describe(status: &Status) -> String {
    let health = match status.health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Waiting => "waiting",
    };
    let mut used = format!(
        "{} of {}, {}",
        known(status.used, format_size),
        known(status.capacity, format_size),
        share(status.used, status.capacity)
    );
    if status.disks_unknown > 0 {
        let _ = write!(used, "; {} disks do not tell", status.disks_unknown);
    }
    let mut text = properties(&[
        ("health", format!("{health}: {}", status.summary)),
        ("disks", format!("{} of {} up", status.disks_up, status.disks)),
        ("used", used),
        ("pools", status.pools.to_string()),
        (
            "volumes",
            format!("{}, {} open", status.volumes, status.volumes_open),
        ),
        ("snapshots", status.snapshots.to_string()),
        ("tasks", format!("{} running", status.tasks_running)),
        (
            "storaged",
            format!(
                "{}, node {}, up for {}",
                status.version,
                status.node,
                format_span(status.uptime_s)
            ),
        ),
        ("cluster", status.cluster.clone()),
    ]);
    for reason in &status.reasons {
        text.push_str("\n- ");
        text.push_str(reason);
    }
    text
}

#[cfg(test)]
mod tests {
    //! What waits is said.
    use super::*;

    #[test]
    fn every_reason_is_a_line() {
        let status = Status {
            health: Health::Waiting,
            summary: "writes wait".into(),
            reasons: vec!["pool main waits for disk-2".into()],
            recovery: Vec::new(),
            version: "0.1.0".into(),
            cluster: "00".into(),
            node: 1,
            uptime_s: 61,
            disks_up: 2,
            disks: 3,
            pools: 1,
            volumes: 1,
            volumes_open: 1,
            snapshots: 0,
            tasks_running: 0,
            capacity: Some(100),
            used: Some(50),
            disks_unknown: 1,
        };
        let text = describe(&status);
        assert!(text.starts_with("health     waiting: writes wait"), "{text}");
        assert!(text.ends_with("\n- pool main waits for disk-2"), "{text}");
    }
}
