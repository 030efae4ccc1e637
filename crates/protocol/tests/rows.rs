//! Every block is in one row, and what is not a whole row is what is left over.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::prelude::*;
use protocol::BlockRange;
use protocol::geometry::{BLOCKS_PER_CHUNK, BLOCKS_PER_OBJECT};
use protocol::profile::Profile;
use protocol::rows::{Row, Rows};

fn rows(k: u8) -> Rows {
    Rows::new(Profile::new(k, 2).unwrap())
}

#[test]
fn the_rows_of_an_object_are_all_its_blocks_once() {
    for k in 2..=16 {
        let rows = rows(k);
        let mut next = 0;
        for row in 0..rows.count() {
            let blocks = rows.blocks(Row(row)).unwrap();
            assert_eq!(blocks.start(), next, "k {k}");
            for block in blocks.blocks() {
                let (found, shard, inside) = rows.place(block);
                assert_eq!(found, Row(row));
                assert!(shard < rows.chunks(found) && shard < u32::from(k));
                let first = row * u32::from(k) + shard;
                assert_eq!(first * BLOCKS_PER_CHUNK + inside, block);
            }
            next = blocks.end();
        }
        assert_eq!(next, BLOCKS_PER_OBJECT, "k {k}");
        assert_eq!(rows.blocks(Row(rows.count())), None);
        assert_eq!(rows.blocks(Row(u32::MAX)), None);
    }
}

#[test]
fn the_last_row_is_shorter_where_k_does_not_divide_an_object() {
    let rows = rows(6);
    assert_eq!(
        (rows.count(), rows.chunks(Row(9)), rows.chunks(Row(10))),
        (11, 6, 4)
    );
    // Written to the object's end, it is whole all the same.
    let split = rows.split(rows.blocks(Row(10)).unwrap());
    assert_eq!((split.before, split.rows, split.after), (None, 10..11, None));
}

proptest! {
    #[test]
    fn a_range_is_its_whole_rows_and_what_is_left(k in 2u8..=16, start in 0u32..1024, count in 1u32..=1024) {
        let count = count.min(BLOCKS_PER_OBJECT - start);
        let range = BlockRange::new(start, count).unwrap();
        let rows = rows(k);
        let split = rows.split(range);
        let mut parts = Vec::new();
        parts.extend(split.before);
        parts.extend(split.rows.clone().map(|row| rows.blocks(Row(row)).unwrap()));
        parts.extend(split.after);
        // One after the other, and nothing else.
        let mut next = range.start();
        for part in &parts {
            prop_assert_eq!(part.start(), next);
            next = part.end();
        }
        prop_assert_eq!(next, range.end());
        // No whole row is left over.
        let covered = |row: u32| {
            let blocks = rows.blocks(Row(row)).unwrap();
            blocks.start() >= range.start() && blocks.end() <= range.end()
        };
        for row in 0..rows.count() {
            prop_assert_eq!(covered(row), split.rows.contains(&row), "row {}", row);
        }
    }
}
