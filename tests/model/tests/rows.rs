//! Each rule of rows is needed: with it left out, a law is broken. That nothing is broken with all rules kept is the
//! program's business (`cargo xtask model`).

use model_tests::Bounds;
use model_tests::rows::{Rule, Scope, explore};

const BOUNDS: Bounds = Bounds {
    threads: 2,
    transitions: None,
};

#[test]
fn each_rule_of_rows_that_is_left_out_breaks_a_law() {
    let scope = Scope::named("rows").expect("the smallest scope");
    let needed = Rule::ALL.iter().filter(|rule| !Rule::SECOND_LINES.contains(rule));
    let mut missed = Vec::new();
    for rule in needed {
        let report = explore(scope.without(*rule), BOUNDS);
        match &report.violation {
            Some(violation) => println!(
                "{rule:?}: {}, {} steps; {report}",
                violation.law,
                violation.steps.len() - 1
            ),
            None => missed.push(format!("{rule:?}: {report}")),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}

#[test]
fn a_take_over_that_forgets_the_older_version_too_early_loses_the_row() {
    // What the model found in decision 0050: one disk has the newer version and has forgotten the older one, another
    // one has the older one still, and the third, which had both, leaves.
    let scope = Scope::named("rows").expect("the smallest scope");
    let report = explore(scope.without(Rule::OlderStays), BOUNDS);
    let violation = report.violation.expect("a violation");
    assert_eq!(violation.law, "no version of the row is on enough shards");
}
