//! Each rule is needed: with it left out, a law is broken in a small world. What would not be noticed here would not
//! be noticed in the code either. That nothing is broken with all rules kept is the program's business
//! (`cargo xtask model`), which explores the same worlds whole.

use model_tests::{Bounds, Rule, Scope, WITNESSES, explore};

const BOUNDS: Bounds = Bounds {
    threads: 2,
    transitions: None,
};

#[test]
fn each_rule_that_is_left_out_breaks_a_law_in_the_world_that_is_named_for_it() {
    let mut missed = Vec::new();
    for (rule, name) in WITNESSES {
        let scope = Scope::named(name).expect("a scope of this name");
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
    assert!(report.figures.whole && report.figures.states > 100, "{report}");
    assert_eq!(report.unseen(), Vec::<&str>::new());
}
