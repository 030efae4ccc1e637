//! The engine against a naive model, and the laws of leases and of the remembered past.

use proptest::prelude::*;

use super::*;

fn put(key: &str, value: &str) -> Transaction {
    Transaction::new().put(key, value.as_bytes())
}

fn committed(outcome: Result<(Outcome, Option<Effect>), CoordinationError>) -> Revision {
    match outcome {
        Ok((Outcome::Committed(revision), Some(_))) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

#[test]
fn a_key_keeps_its_birth_until_it_is_deleted() {
    // The generation of a volume is the birth of its owner key: keeping the key must not change it.
    let mut engine = Engine::default();
    let born = committed(engine.commit(&put("a", "1")));
    let changed = committed(engine.commit(&put("a", "2")));
    let entry = engine.get("a").unwrap();
    assert_eq!((entry.created, entry.modified), (born, changed));
    committed(engine.commit(&Transaction::new().delete("a")));
    let born_again = committed(engine.commit(&put("a", "3")));
    assert_eq!(engine.get("a").unwrap().created, born_again);
    assert!(born_again > changed);
}

#[test]
fn a_conflict_changes_nothing_at_all() {
    let mut engine = Engine::default();
    committed(engine.commit(&put("a", "1")));
    let before = engine.range("");
    let transaction = put("b", "2").when(Compare::Absent("a".to_owned()));
    let (outcome, effect) = engine.commit(&transaction).unwrap();
    assert_eq!(outcome, Outcome::Conflict(Revision(1)));
    assert!(effect.is_none());
    assert_eq!(engine.range(""), before);
}

#[test]
fn a_lease_that_nobody_keeps_takes_its_keys_along_in_one_step() {
    let mut engine = Engine::default();
    let lease = engine.grant_lease(0, 5000);
    let transaction = Transaction::new()
        .put_leased("a", *b"1", lease)
        .put_leased("b", *b"2", lease)
        .put("c", *b"3");
    committed(engine.commit(&transaction));
    engine.keep_lease(3000, lease).unwrap();
    assert!(engine.expire(7999).is_empty());
    let effects = engine.expire(8000);
    assert_eq!(effects.len(), 1);
    assert_eq!(effects[0].batch.events.len(), 2);
    assert_eq!(engine.range("").entries.len(), 1);
    assert_eq!(engine.keep_lease(8001, lease), Err(CoordinationError::NoLease));
}

#[test]
fn a_key_that_was_put_again_without_the_lease_outlives_it() {
    let mut engine = Engine::default();
    let lease = engine.grant_lease(0, 5000);
    committed(engine.commit(&Transaction::new().put_leased("a", *b"1", lease)));
    committed(engine.commit(&put("a", "2")));
    engine.expire(5000);
    assert!(engine.get("a").is_some());
}

#[test]
fn a_transaction_with_a_lapsed_lease_changes_nothing() {
    let mut engine = Engine::default();
    let lease = engine.grant_lease(0, 10);
    engine.expire(10);
    let outcome = engine.commit(&put("a", "1").put_leased("b", *b"2", lease));
    assert_eq!(outcome, Err(CoordinationError::NoLease));
    assert!(engine.range("").entries.is_empty());
}

#[test]
fn a_lease_starts_its_time_anew_when_the_store_comes_back() {
    // Else a restart of storaged would throw out every front end that is merely waiting for it.
    let entry = Entry {
        key: "owner".to_owned(),
        value: Arc::from(*b"x"),
        created: Revision(3),
        modified: Revision(3),
        lease: Some(LeaseId(1)),
    };
    let mut engine = Engine::restore(Revision(9), [entry], [(LeaseId(1), 5000)], 2);
    assert_eq!(engine.next_expiry_ms(), Some(0));
    assert!(engine.expire(100_000).is_empty());
    assert_eq!(engine.next_expiry_ms(), Some(105_000));
    assert_eq!(engine.expire(105_000).len(), 1);
    assert!(engine.get("owner").is_none());
}

#[test]
fn the_past_is_told_in_order_or_refused_when_forgotten() {
    let mut engine = Engine::default();
    for number in 0..HISTORY_MAX + 10 {
        committed(engine.commit(&put("a", &number.to_string())));
    }
    assert_eq!(
        engine.since(Revision(9)),
        Err(CoordinationError::Compacted(Revision(9)))
    );
    let batches = engine.since(Revision(10)).unwrap();
    assert_eq!(batches.len(), HISTORY_MAX);
    assert!(
        batches
            .iter()
            .zip(11..)
            .all(|(batch, revision)| batch.revision.0 == revision)
    );
}

#[test]
fn limits_are_refused_in_words() {
    let mut engine = Engine::default();
    for bad in [
        put("", "x"),
        put(&"k".repeat(KEY_LENGTH_MAX + 1), "x"),
        put("k", &"v".repeat(VALUE_LENGTH_MAX + 1)),
        put("k", "1").delete("k"),
    ] {
        assert!(matches!(engine.commit(&bad), Err(CoordinationError::Invalid(_))));
    }
    assert_eq!(engine.revision(), Revision(0));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    PutIfAbsent(u8, u8),
    PutIfUnchanged(u8, u8, u64),
    DeleteIfPresent(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = 0u8..5;
    prop_oneof![
        (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::PutIfAbsent(k, v)),
        (key.clone(), any::<u8>(), 0u64..20).prop_map(|(k, v, r)| Step::PutIfUnchanged(k, v, r)),
        key.prop_map(Step::DeleteIfPresent),
    ]
}

proptest! {
    #[test]
    fn transactions_do_what_a_plain_map_would(steps in proptest::collection::vec(any_step(), 1..40)) {
        let mut engine = Engine::default();
        let mut model: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
        let mut revision = 0;
        for step in steps {
            let (key, transaction, holds) = match step {
                Step::Put(k, v) => (k, Transaction::new().put(k.to_string(), [v]), true),
                Step::PutIfAbsent(k, v) => {
                    let compare = Compare::Absent(k.to_string());
                    let holds = !model.contains_key(&k.to_string());
                    (k, Transaction::new().when(compare).put(k.to_string(), [v]), holds)
                }
                Step::PutIfUnchanged(k, v, r) => {
                    let compare = Compare::Modified(k.to_string(), Revision(r));
                    let holds = model.get(&k.to_string()).is_some_and(|(_, at)| *at == r);
                    (k, Transaction::new().when(compare).put(k.to_string(), [v]), holds)
                }
                Step::DeleteIfPresent(k) => {
                    let compare = Compare::Present(k.to_string());
                    let holds = model.contains_key(&k.to_string());
                    (k, Transaction::new().when(compare).delete(k.to_string()), holds)
                }
            };
            let (outcome, _) = engine.commit(&transaction).unwrap();
            prop_assert_eq!(matches!(outcome, Outcome::Committed(_)), holds);
            if holds {
                revision += 1;
                match &transaction.changes[0] {
                    Change::Put { value, .. } => {
                        model.insert(key.to_string(), (value.to_vec(), revision));
                    }
                    Change::Delete(_) => {
                        model.remove(&key.to_string());
                    }
                }
            }
            let found: BTreeMap<_, _> = engine
                .range("")
                .entries
                .into_iter()
                .map(|entry| (entry.key, (entry.value.to_vec(), entry.modified.0)))
                .collect();
            prop_assert_eq!(&found, &model);
            prop_assert_eq!(engine.revision(), Revision(revision));
        }
    }
}
