//! Whoever may remember more is waited for, and a store that was used is left alone.
use super::*;

const COLD: RecallRecord = RecallRecord {
    revision: 100,
    cold: true,
    unused: false,
    raised: false,
};
const RUNS: RecallRecord = RecallRecord {
    revision: 50,
    cold: false,
    unused: true,
    raised: false,
};
const MORE: RecallRecord = RecallRecord {
    revision: 101,
    ..COLD
};
const NOTHING: RecallRecord = RecallRecord { revision: 0, ..COLD };
/// Of the store, as it is after its numbers were raised.
const RAISED: u64 = 1_000_100;

fn set(nodes: &[u32]) -> BTreeSet<NodeId> {
    nodes.iter().map(|node| NodeId(*node)).collect()
}

fn notes(all: &[(u32, RecallRecord)]) -> Notes {
    all.iter().map(|(node, note)| (NodeId(*node), *note)).collect()
}

/// What a node is told.
struct Told<'a> {
    own: RecallRecord,
    others: &'a [(u32, RecallRecord)],
    heard: &'a [(u32, RecallRecord)],
    store: u64,
    remembered: &'a [u32],
    up: &'a [u32],
    joins: bool,
}

/// A node that is alone, and was alone when it stopped.
const ALONE: Told<'_> = Told {
    own: COLD,
    others: &[],
    heard: &[],
    store: 60,
    remembered: &[1],
    up: &[],
    joins: false,
};

/// What node 1 is to do; node 9 is lost for good.
fn of(told: &Told<'_>) -> Verdict {
    let mut said = notes(told.others);
    let mut heard = notes(told.heard);
    heard.extend(said.clone());
    said.insert(NodeId(1), told.own);
    verdict(&Scene {
        node: NodeId(1),
        own: told.own,
        notes: &said,
        heard: &heard,
        store: Revision(told.store),
        remembered_up: &set(told.remembered),
        up: &set(told.up),
        without: &set(&[9]),
        joins: told.joins,
    })
}

fn waits(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Waits(sentence) | Verdict::Others(sentence) => sentence,
        other => panic!("it does not wait: {other:?}"),
    }
}

#[test]
fn who_remembers_most_puts_back_and_of_equals_one() {
    let among = |note| {
        of(&Told {
            others: &[(2, note)],
            remembered: &[1, 2],
            ..ALONE
        })
    };
    assert!(waits(&among(MORE)).contains("waits for node-2"));
    assert!(matches!(among(COLD), Verdict::Others(_)));
    assert_eq!(among(RecallRecord { revision: 99, ..COLD }), Verdict::Mine);
    assert_eq!(among(NOTHING), Verdict::Mine);
}

#[test]
fn a_node_that_ran_until_the_end_is_waited_for_and_one_that_was_down_before_is_not() {
    let remembered = |nodes| {
        of(&Told {
            remembered: nodes,
            ..ALONE
        })
    };
    let verdict = remembered(&[1, 2, 3]);
    let says = waits(&verdict);
    assert!(says.contains("waits for node-2, node-3"), "{says}");
    assert!(says.contains("recall_without = [2, 3]"), "{says}");
    assert_eq!(remembered(&[1]), Verdict::Mine);
    // It is lost, and somebody has said so.
    assert_eq!(remembered(&[1, 9]), Verdict::Mine);
}

#[test]
fn a_store_that_was_used_since_it_was_restored_is_left_alone() {
    let with = |note| {
        of(&Told {
            others: &[(2, note)],
            up: &[2],
            store: RAISED,
            ..ALONE
        })
    };
    let used = RecallRecord {
        unused: false,
        ..RUNS
    };
    assert!(matches!(with(used), Verdict::Late(_)));
    assert_eq!(with(RUNS), Verdict::Mine);
}

#[test]
fn a_node_that_counts_as_up_is_heard_before_anything_is_put_back() {
    let at = |store| {
        of(&Told {
            up: &[2],
            store,
            ..ALONE
        })
    };
    // It sees nothing before the numbers are raised.
    assert_eq!(at(60), Verdict::Mine);
    assert!(waits(&at(RAISED)).contains("node-2"));
}

#[test]
fn a_node_that_runs_waits_for_nobody_who_knows_less() {
    let runs = RecallRecord {
        revision: 200,
        unused: false,
        ..RUNS
    };
    assert_eq!(
        of(&Told {
            own: runs,
            others: &[(2, COLD)],
            remembered: &[1, 2, 3],
            up: &[2, 3],
            store: RAISED,
            ..ALONE
        }),
        Verdict::Mine
    );
}

#[test]
fn who_remembered_more_and_went_away_is_done_only_if_the_numbers_were_raised() {
    for own in [COLD, NOTHING] {
        let gone = |store| {
            of(&Told {
                own,
                heard: &[(2, MORE)],
                store,
                joins: own == NOTHING,
                ..ALONE
            })
        };
        let verdict = gone(60);
        let says = waits(&verdict);
        assert!(
            says.contains("was stopped") && says.contains("recall_without = [2]"),
            "{says}"
        );
        assert_eq!(gone(RAISED), Verdict::Done);
    }
    let lost = of(&Told {
        heard: &[(9, MORE)],
        ..ALONE
    });
    assert_eq!(lost, Verdict::Mine);
}

#[test]
fn who_joins_and_finds_nobody_any_more_or_remembers_nothing_puts_nothing_back() {
    let joined = Told {
        joins: true,
        store: RAISED,
        ..ALONE
    };
    assert_eq!(of(&joined), Verdict::Done);
    assert_eq!(
        of(&Told {
            own: NOTHING,
            ..joined
        }),
        Verdict::Done
    );
    // Whoever is at it remembers less, or is lost in the middle of it.
    for other in [(2, RecallRecord { revision: 99, ..COLD }), (9, MORE)] {
        assert_eq!(
            of(&Told {
                others: &[other],
                ..joined
            }),
            Verdict::Mine
        );
    }
}
