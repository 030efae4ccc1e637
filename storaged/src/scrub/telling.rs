//! Tells what scrubs found: in their reports, and in the event log. What is looked at is not known here.

use std::collections::BTreeSet;

use admin_api::scrubs::{FINDINGS_MAX, ScrubReport};
use coordination::records::Severity;
use protocol::DiskId;
use replication::scrub::Finding;
use tracing::warn;

use super::sentence::sentence;
use super::{Scrubs, place, schedule};
use crate::disk::Totals;

/// What was told of what disks met by themselves, so that it is not told again and again.
const TOLD_MAX: usize = 10_000;

impl Scrubs {
    /// What a disk has done between two looks goes into a report.
    pub(super) async fn add(
        &self,
        task: u64,
        disk: DiskId,
        (from, to): (Totals, Totals),
        findings: &[Finding],
    ) {
        let map = self.0.volumes.map();
        let found: Vec<_> = findings
            .iter()
            .map(|finding| place::describe(&map, disk, finding))
            .collect();
        if let Some(report) = self.reports().get_mut(&task) {
            count(report, (from, to));
            let room = FINDINGS_MAX.saturating_sub(report.findings.len());
            report.findings.extend(found.iter().take(room).cloned());
        }
        for finding in found {
            self.write(
                place::severity(finding.kind),
                place::event_kind(finding.kind),
                disk,
                finding.message,
            )
            .await;
        }
    }

    /// A scrub of a whole disk is over.
    pub(super) async fn tell_of_end(&self, disk: DiskId, deep: bool, totals: Totals) {
        self.schedule().ended(disk, deep, crate::moment::wall_clock_ms());
        let mut report = ScrubReport {
            deep,
            ..ScrubReport::default()
        };
        count(&mut report, (Totals::default(), totals));
        let severity = if report.is_well() {
            Severity::Info
        } else {
            Severity::Warning
        };
        let kind = if deep { schedule::DEEP } else { schedule::LIGHT };
        self.write(
            severity,
            kind,
            disk,
            format!("{disk} was scrubbed: {}", sentence(&report)),
        )
        .await;
    }

    /// What guests, merges and other disks met as damaged was looked at by the disks themselves.
    pub(super) async fn tell_of_met(&self, told: &mut BTreeSet<String>) {
        for id in self.0.disks.ids().await {
            let Some(remote) = self.0.disks.remote(id).await else {
                continue;
            };
            let Ok(Some(report)) = remote.scrubbed(0).await else {
                continue;
            };
            let map = self.0.volumes.map();
            for finding in &report.findings {
                let described = place::describe(&map, id, finding);
                if told.len() < TOLD_MAX && told.insert(described.message.clone()) {
                    let (severity, kind) =
                        (place::severity(described.kind), place::event_kind(described.kind));
                    self.write(severity, kind, id, described.message).await;
                }
            }
        }
    }

    async fn write(&self, severity: Severity, kind: &str, disk: DiskId, message: String) {
        if let Err(error) = self
            .0
            .events
            .write(severity, kind, disk.to_string(), message)
            .await
        {
            warn!(%error, "an event could not be written");
        }
    }
}

/// Adds what a disk has done between two looks.
fn count(report: &mut ScrubReport, (from, to): (Totals, Totals)) {
    report.objects += to.objects - from.objects;
    report.blocks += to.blocks - from.blocks;
    report.mended += to.mended - from.mended;
    report.unmended += to.unmended - from.unmended;
    report.differing += to.differing - from.differing;
    report.skipped += to.skipped - from.skipped;
}
