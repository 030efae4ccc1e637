//! Scrubs that `disk`, `pool` and `volume` begin: waiting for them, and what they found.

use admin_api::routes::{self, fill};
use admin_api::scrubs::{ScrubReport, ScrubStarted};
use anyhow::Result;

use super::task;
use crate::api::Api;
use crate::exit::Stop;
use crate::output::{Form, properties};

/// Says that a scrub has begun, or waits for its end and shows what it found.
pub(super) async fn started(api: &Api, form: Form, started: ScrubStarted, wait: bool) -> Result<()> {
    if wait {
        return report(api, form, started.task).await;
    }
    form.show(&started, |started| {
        format!(
            "scrubs in the background (task {}): storagectl events tells what it finds",
            started.task
        )
    })
}

/// Waits for a scrub's end and shows what it found; an error if something is not well.
pub(super) async fn report(api: &Api, form: Form, task: u64) -> Result<()> {
    task::wait(api, task).await?;
    let report: ScrubReport = api.get(&fill(routes::SCRUB, &[&task.to_string()])).await?;
    form.show(&report, describe)?;
    if report.is_well() {
        return Ok(());
    }
    Err(Stop::Unwell(format!("{} is not well: see above", report.subject)).into())
}

fn describe(report: &ScrubReport) -> String {
    let count = |number: u64| number.to_string();
    let elsewhere = if report.elsewhere.is_empty() {
        String::new()
    } else {
        format!("{}: compared with, and not read", numbers(&report.elsewhere))
    };
    let read = if report.deep {
        count(report.blocks)
    } else {
        "none; --deep reads them".to_owned()
    };
    let table = properties(&[
        ("checked", report.subject.clone()),
        ("disks", numbers(&report.disks)),
        ("disks of other nodes", elsewhere),
        ("objects compared", count(report.objects)),
        ("blocks read", read),
        ("damaged blocks stored again", count(report.mended)),
        ("damaged blocks left", count(report.unmended)),
        ("objects that differ", count(report.differing)),
        ("objects not looked at", count(report.skipped)),
    ]);
    let findings = report.findings.iter().map(|finding| finding.message.clone());
    std::iter::once(table)
        .chain(report.silent.iter().cloned())
        .chain(findings)
        .collect::<Vec<_>>()
        .join("\n")
}

fn numbers(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    //! What a person sees of a scrub.
    use super::*;

    #[test]
    fn a_report_tells_what_was_looked_at_and_where_that_was_not_all() {
        let report = ScrubReport {
            subject: "db".into(),
            deep: true,
            disks: vec![1, 2],
            elsewhere: vec![3],
            silent: vec!["node-3 (c) did not look after all of its copies, on disk-3: it is down".into()],
            objects: 4,
            blocks: 77,
            mended: 1,
            ..ScrubReport::default()
        };
        let text = describe(&report);
        assert!(
            text.contains("77") && text.contains("3: compared with, and not read"),
            "{text}"
        );
        assert!(text.ends_with("on disk-3: it is down"), "{text}");
        assert!(!report.is_well());
        let all = ScrubReport {
            silent: Vec::new(),
            ..report
        };
        assert!(all.is_well());
    }
}
