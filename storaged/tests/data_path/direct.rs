//! Reads that the front end does itself give what reads through the disk give, and writes through shared
//! memory are writes.

use std::collections::HashMap;

use client::device::{BlockDevice, Operation};
use client::request;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::node::Node;
use crate::{BLOCK, filled, on_one_thread};

const SIZE: u64 = 16 << 20;
const BLOCKS: u64 = SIZE / BLOCK;

/// What every block of the volume must hold.
fn expected(blocks: &HashMap<u64, u8>, block: u64) -> u8 {
    blocks.get(&block).copied().unwrap_or(0)
}

/// Law: with writes, discards, checkpoints and snapshots under way, every read sees every write that
/// was answered before it began, whichever way it goes; and many do not go through the disk.
#[test]
fn direct_reads_see_all_that_was_written_before() {
    on_one_thread(async {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", SIZE).await;
        let volume = node.open("alpha").await.unwrap();
        volume.opened().await;
        let mut random = SmallRng::seed_from_u64(7);
        let mut blocks = HashMap::new();
        // Filled by large writes, which go straight to the file.
        for start in (0..BLOCKS).step_by(256) {
            let byte = random.random();
            let mut buffer = volume.buffer(256 * 4096);
            buffer.bytes_mut().fill(byte);
            request::write(&volume, start * BLOCK, buffer.freeze())
                .await
                .unwrap();
            blocks.extend((start..start + 256).map(|block| (block, byte)));
        }
        for step in 0..4000 {
            let block = random.random_range(0..BLOCKS - 40);
            match random.random_range(0..20) {
                0..2 => {
                    let (count, byte) = (random.random_range(1..4), random.random());
                    request::write(&volume, block * BLOCK, filled(byte, count * BLOCK))
                        .await
                        .unwrap();
                    blocks.extend((block..block + count).map(|block| (block, byte)));
                }
                2 => {
                    let byte = random.random();
                    request::write(&volume, block * BLOCK, filled(byte, 32 * BLOCK))
                        .await
                        .unwrap();
                    blocks.extend((block..block + 32).map(|block| (block, byte)));
                }
                3 => {
                    request::discard(&volume, block * BLOCK, 8 * BLOCK).await.unwrap();
                    blocks.extend((block..block + 8).map(|block| (block, 0)));
                }
                4 if step % 50 == 0 => {
                    let name = format!("s{step}");
                    node.volumes.snapshot("alpha", &name).await.unwrap();
                }
                _ => {
                    let count = random.random_range(1..40);
                    let read = request::read(&volume, block * BLOCK, count * BLOCK)
                        .await
                        .unwrap();
                    for (bytes, block) in read.chunks(4096).zip(block..) {
                        let byte = expected(&blocks, block);
                        assert!(
                            bytes.iter().all(|found| *found == byte),
                            "step {step} block {block}"
                        );
                    }
                }
            }
        }
        // Three copies of each.
        assert_eq!(volume.shared_writes(), 3 * BLOCKS / 256);
        let direct = volume.direct_reads();
        assert!(direct > 500, "only {direct} reads were direct");
        volume.close().await;
        node.stop().await;
    });
}

/// Law: a disk that goes away and comes back is read again, directly too, and nothing is lost.
#[test]
fn a_disk_that_was_opened_anew_is_read_by_what_it_says_then() {
    on_one_thread(async {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", SIZE).await;
        let volume = node.open("alpha").await.unwrap();
        request::write(&volume, 0, filled(5, 64 * BLOCK)).await.unwrap();
        let read_all = async |volume: &client::volume::Volume| {
            for block in 0..64 {
                let read = request::read(volume, block * BLOCK, BLOCK).await.unwrap();
                assert_eq!(read, filled(5, BLOCK));
            }
        };
        read_all(&volume).await;
        assert!(volume.direct_reads() > 0);
        volume.close().await;
        node.stop().await;
        let node = Node::start(directory.path()).await;
        let volume = node.open("alpha").await.unwrap();
        read_all(&volume).await;
        assert!(volume.direct_reads() > 0);
        volume.close().await;
        node.stop().await;
    });
}

/// Law: what was put into shared memory is the write, however many are under way, whether there is room
/// for all of them, and though they are not made of whole chunks.
#[test]
fn writes_through_shared_memory_are_what_was_put_there() {
    on_one_thread(async {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let node = Node::create(directory.path()).await;
        node.create_volume("alpha", 64 << 20).await;
        let volume = node.open("alpha").await.unwrap();
        volume.opened().await;
        // 1 MiB and a bit each, over the borders of objects and chunks; more than the memory holds.
        let (length, count) = (273 * BLOCK, 40);
        let (done, mut answers) = tokio::sync::mpsc::channel(usize::try_from(count).unwrap());
        for number in 0..count {
            let mut buffer = volume.buffer(usize::try_from(length).unwrap());
            buffer.bytes_mut().fill(u8::try_from(number).unwrap() + 1);
            let write = Operation::Write {
                offset: number * length,
                data: vec![buffer.freeze()],
            };
            let done = done.clone();
            volume.submit(write, Box::new(move |answer| done.try_send(answer).unwrap()));
        }
        for _ in 0..count {
            answers.recv().await.unwrap().unwrap();
        }
        let shared = volume.shared_writes();
        assert!(shared >= 3 * 10, "only {shared} writes were shared");
        for number in 0..count {
            let read = request::read(&volume, number * length, length).await.unwrap();
            let byte = u8::try_from(number).unwrap() + 1;
            assert!(read.iter().all(|found| *found == byte), "write {number}");
        }
        volume.close().await;
        node.stop().await;
    });
}
