//! What a scrub found, in a sentence for people.

use admin_api::scrubs::ScrubReport;

/// What a scrub found, in a sentence.
pub(super) fn sentence(report: &ScrubReport) -> String {
    let looked = if report.deep {
        format!("{} objects, {} blocks read", report.objects, report.blocks)
    } else {
        format!("{} objects compared", report.objects)
    };
    let numbers = [
        (report.mended, "damaged blocks stored again from other copies"),
        (report.unmended, "damaged blocks stay damaged"),
        (report.differing, "objects differ from other copies"),
        (report.skipped, "objects could not be looked at"),
    ];
    let found: Vec<String> = numbers
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let found = if found.is_empty() && report.silent.is_empty() {
        "all is well".to_owned()
    } else if found.is_empty() {
        "what was looked at is well".to_owned()
    } else {
        found.join(", ")
    };
    std::iter::once(format!("{looked}: {found}"))
        .chain(report.silent.iter().cloned())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    //! What people are told.
    use super::*;

    #[test]
    fn a_sentence_tells_what_was_found_and_nothing_else() {
        let mut report = ScrubReport {
            deep: true,
            objects: 3,
            blocks: 40,
            ..ScrubReport::default()
        };
        assert_eq!(sentence(&report), "3 objects, 40 blocks read: all is well");
        report.mended = 2;
        report.differing = 1;
        assert_eq!(
            sentence(&report),
            "3 objects, 40 blocks read: 2 damaged blocks stored again from other copies, 1 objects differ from \
             other copies"
        );
        assert!(!report.is_well());
    }

    #[test]
    fn who_did_not_take_part_is_told_of_and_that_is_not_well() {
        let report = ScrubReport {
            objects: 3,
            silent: vec!["node-2 is down".to_owned()],
            ..ScrubReport::default()
        };
        assert_eq!(
            sentence(&report),
            "3 objects compared: what was looked at is well; node-2 is down"
        );
        assert!(!report.is_well());
    }
}
