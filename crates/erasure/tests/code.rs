//! Any k shards give back the row; what is on disks does not change its meaning; bad input is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use erasure::{Code, CodeError, Profile};
use proptest::prelude::*;

fn code(text: &str) -> Code {
    Code::new(text.parse().unwrap()).unwrap()
}

/// Shards whose bytes all differ.
fn data(count: u8, length: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..count)
        .map(|_| (0..length).map(|_| next()).collect())
        .collect()
}

fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

/// A row, data and then parity.
fn row(code: &Code, length: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut shards = data(code.profile().data(), length, seed);
    let parity = code.encode(&slices(&shards)).unwrap();
    shards.extend(parity);
    shards
}

#[test]
fn the_parity_of_four_and_two_is_what_it_always_was() {
    // Golden: shards that are on disks were made with it.
    let data = [
        [1u8, 0, 0, 0, 1],
        [0, 1, 0, 0, 2],
        [0, 0, 1, 0, 4],
        [0, 0, 0, 1, 8],
    ];
    let data: Vec<&[u8]> = data.iter().map(<[u8; 5]>::as_slice).collect();
    let parity = code("4+2").encode(&data).unwrap();
    assert_eq!(parity, [[27, 28, 18, 20, 203], [28, 27, 20, 18, 234]]);
}

#[test]
fn bad_input_is_refused_in_words() {
    let code = code("4+2");
    let three = data(3, 64, 1);
    assert_eq!(
        code.encode(&slices(&three)).unwrap_err(),
        CodeError::Shards {
            expected: 4,
            given: 3
        }
    );
    let mut uneven = data(4, 64, 1);
    uneven[2].pop();
    assert_eq!(code.encode(&slices(&uneven)).unwrap_err(), CodeError::Lengths);
    let empty = vec![Vec::new(); 4];
    assert_eq!(code.encode(&slices(&empty)).unwrap_err(), CodeError::Lengths);
    let mut left: Vec<Option<Vec<u8>>> = row(&code, 64, 7).into_iter().map(Some).collect();
    for lost in [0, 2, 5] {
        left[lost] = None;
    }
    let refused = code.rebuild(&mut left).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("3 shards are left, and 4 are needed"),
        "{refused}"
    );
    assert!(left[0].is_none(), "nothing is half done");
}

#[test]
fn parity_that_is_not_the_data_s_is_noticed() {
    let code = code("8+3");
    let mut shards = row(&code, 512, 3);
    assert!(code.agrees(&slices(&shards)).unwrap());
    for shard in 0..shards.len() {
        shards[shard][100] ^= 4;
        assert!(!code.agrees(&slices(&shards)).unwrap(), "{shard}");
        shards[shard][100] ^= 4;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_k_shards_give_the_row_back(
        k in 2u8..=16, m in 1u8..=4, length in 1usize..600, seed: u64, order: prop::sample::Index,
    ) {
        let code = Code::new(Profile::new(k, m).unwrap()).unwrap();
        let whole = row(&code, length, seed);
        // As many as may be are lost, anywhere.
        let mut lost = Vec::new();
        let mut at = order.index(whole.len());
        while lost.len() < usize::from(m) {
            lost.push(at);
            at = (at + 1 + order.index(3)) % whole.len();
            while lost.contains(&at) {
                at = (at + 1) % whole.len();
            }
        }
        let left: Vec<Option<Vec<u8>>> = whole
            .iter()
            .enumerate()
            .map(|(number, shard)| (!lost.contains(&number)).then(|| shard.clone()))
            .collect();
        let mut rebuilt = left.clone();
        code.rebuild(&mut rebuilt).unwrap();
        prop_assert_eq!(&rebuilt.into_iter().map(Option::unwrap).collect::<Vec<_>>(), &whole);
        let mut read = left;
        code.rebuild_data(&mut read).unwrap();
        for (number, shard) in whole.iter().take(usize::from(k)).enumerate() {
            prop_assert_eq!(read[number].as_ref().unwrap(), shard);
        }
    }
}
