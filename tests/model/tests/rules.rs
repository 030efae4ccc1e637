//! Each rule is needed: with it left out, a law is broken in a small world. What would not be noticed here would not
//! be noticed in the code either. That nothing is broken with all rules kept is the program's business
//! (`cargo xtask model`), which explores the same worlds whole.

use std::fmt::Debug;

use model_tests::search::Space;
use model_tests::{Bounds, Rule, Scope, WITNESSES, explore, rows};

const BOUNDS: Bounds = Bounds {
    threads: 2,
    transitions: None,
};

/// The smallest space of rows.
const ROWS: rows::Scope = rows::SHORT[0];

/// What is to be said of a rule without which no law is broken in a space.
fn unnoticed(rule: impl Debug, without: impl Space) -> Option<String> {
    let report = explore(without, BOUNDS);
    let Some(violation) = &report.violation else {
        return Some(format!("{rule:?}: {report}"));
    };
    let steps = violation.steps.len() - 1;
    println!("{rule:?}: {}, {steps} steps; {report}", violation.law);
    None
}

#[test]
fn each_rule_that_is_left_out_breaks_a_law_in_the_world_that_is_named_for_it() {
    let missed = WITNESSES.iter().filter_map(|(rule, name)| {
        let scope = Scope::named(name).expect("a scope of this name");
        unnoticed(rule, scope.without(*rule))
    });
    let missed: Vec<String> = missed.collect();
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}

#[test]
fn every_rule_has_a_world_or_is_said_to_be_a_second_line() {
    for rule in Rule::ALL {
        let witnessed = WITNESSES.iter().any(|(other, _)| *other == rule);
        assert_ne!(witnessed, model_tests::SECOND_LINES.contains(&rule), "{rule:?}");
    }
}

#[test]
fn a_small_world_is_explored_whole_and_everything_comes_about_in_it() {
    let report = explore(Scope::named("pair").expect("the smallest scope"), BOUNDS);
    assert!(report.violation.is_none(), "{report}");
    assert!(report.whole && report.states > 100, "{report}");
    assert_eq!(report.unseen(), Vec::<&str>::new());
}

#[test]
fn each_rule_of_rows_that_is_left_out_breaks_a_law() {
    let needed = rows::Rule::ALL
        .iter()
        .filter(|rule| !rows::Rule::SECOND_LINES.contains(rule));
    let missed: Vec<String> = needed
        .filter_map(|rule| unnoticed(rule, ROWS.without(*rule)))
        .collect();
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}

#[test]
fn a_take_over_that_forgets_the_older_version_too_early_loses_the_row() {
    // What the model found in decision 0050: one disk has the newer version and has forgotten the older one, another
    // one has the older one still, and the third, which had both, leaves.
    let report = explore(ROWS.without(rows::Rule::OlderStays), BOUNDS);
    let violation = report.violation.expect("a violation");
    assert_eq!(violation.law, "no version of the row is on enough shards");
}
