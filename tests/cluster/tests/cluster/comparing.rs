//! Compare-and-writes and parts of blocks through several front ends at once: no increment is lost or done twice while
//! owners die, and sectors of one block that different front ends write are all kept.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use admin_api::volumes::Volume as Told;
use bytes::Bytes;
use client::request;
use client::sectors::Sectors;
use client::volume::Volume;
use serde_json::Value;
use test_node::{Cluster, Node, Process};

use crate::gateway::{Client, Gateway};
use crate::guest::{ask, open, run, run_for, until};

const SECTOR: u64 = 512;
/// A take-over takes a few seconds at the most here; owners are killed several times.
const LIMIT: Duration = Duration::from_mins(4);
/// How many owners are killed.
const KILLS: u32 = 5;

async fn prepare(cluster: &Cluster) {
    let _: Value = ask(&cluster.nodes[0], "pool create main --copies 3 --groups 8").await;
    let _: Value = ask(&cluster.nodes[1], "volume create a 16M").await;
}

/// A front end as a process that counts a sector up (`src/counting.rs`).
struct Counter {
    process: Process,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Counter {
    fn start(node: &Node, who: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let socket = node.session_socket().display().to_string();
        let words = [socket, "a".to_owned(), who.to_string(), "count".to_owned()];
        let path = Path::new(env!("CARGO_BIN_EXE_front-end"));
        Self {
            process: Process::start_at(path, words, &log).unwrap(),
            log,
            _folder: folder,
        }
    }

    /// How often it has counted, as far as it has said so, and whether it owned the volume then.
    fn counted(&self) -> (u32, bool) {
        counted(&self.log)
    }

    fn until_it_counted(&mut self, more: u32) {
        let goal = self.counted().0 + more;
        let log = self.log.clone();
        let look = || (counted(&log).0 >= goal).then_some(());
        self.process.wait_for("the client to count", look).unwrap();
    }
}

/// The lines that it has said whole.
fn said(log: &Path) -> Vec<String> {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn counted(log: &Path) -> (u32, bool) {
    let count = |line: &String| {
        let (count, role) = line.split_once(' ')?;
        Some((count.parse().ok()?, role == "owner"))
    };
    said(log).iter().rev().find_map(count).unwrap_or((0, false))
}

#[test]
fn no_increment_by_compare_and_write_is_lost_or_done_twice_while_owners_die() {
    run_for(LIMIT, async {
        let cluster = Cluster::secured(3, 1).unwrap();
        prepare(&cluster).await;
        let mut all: Vec<Counter> = Vec::new();
        let mut alive: Vec<usize> = Vec::new();
        for round in 0..=KILLS {
            while alive.len() < 3 {
                let who = all.len();
                all.push(Counter::start(&cluster.nodes[who % 3], who));
                alive.push(who);
            }
            for who in &alive {
                all[*who].until_it_counted(5 + round);
            }
            let owner = alive.iter().position(|who| all[*who].counted().1).unwrap();
            let owner = alive.remove(owner);
            all[owner].process.kill().unwrap();
        }
        for who in alive {
            all[who].until_it_counted(5);
            all[who].process.kill().unwrap();
        }
        let alone = open(&cluster.nodes[0], "a").await;
        let bytes = request::read(&Sectors::new(Rc::new(alone)), 0, SECTOR)
            .await
            .unwrap();
        let words = bytes.as_chunks::<4>().0.iter();
        let words: Vec<u32> = words.map(|word| u32::from_le_bytes(*word)).collect();
        for (counter, told) in all.iter().zip(&words[1..]) {
            let (counted, _) = counter.counted();
            // The last one may have come through unheard.
            assert!((counted..=counted + 1).contains(told), "{told} of {counted}");
        }
        let doubts = |counter: &Counter| {
            said(&counter.log)
                .iter()
                .filter(|line| *line == "not known")
                .count()
        };
        let doubts: usize = all.iter().map(doubts).sum();
        println!(
            "{} increments by {} clients, {doubts} of them in doubt",
            words[0],
            all.len()
        );
        assert_eq!(words[0], words[1..].iter().sum::<u32>());
    });
}

/// How many objects the volume has. In the first block of each something goes on.
const OBJECTS: u64 = 4;
const OBJECT: u64 = 4 << 20;
/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Room for what two writers of sectors tell: all of their writes.
const SECTOR_WRITES_TOLD: usize = 400;
/// How often each block is written at least.
const WRITES: u64 = 100;

fn block(number: u64) -> Bytes {
    number.to_le_bytes().repeat(512).into()
}

async fn number_at(device: &Volume, at: u64) -> u64 {
    let found = request::read(device, at, BLOCK).await.unwrap();
    let number = u64::from_le_bytes(found[..8].try_into().unwrap());
    assert_eq!(found, block(number), "a block is mixed");
    number
}

/// Writes a block again and again, whatever is there; the lowest byte of the number is others' to change.
async fn overwrite(device: &Volume, at: u64, over: &Cell<bool>) {
    let mut number = 0;
    while !over.get() || number < WRITES {
        number += 1;
        request::write(device, at, block(number << 8)).await.unwrap();
        let found = number_at(device, at).await;
        assert_eq!(found >> 8, number, "a write is lost under a comparison");
    }
}

/// Changes the lowest byte of a block by compare-and-writes; gives how often that went well.
async fn mark(device: &Volume, at: u64, over: &Cell<bool>) -> u64 {
    let mut marked = 0;
    while !over.get() || marked == 0 {
        let found = number_at(device, at).await;
        let next = found & !0xff | (found + 1) & 0xff;
        let differs = request::compare_and_write(device, at, block(found), block(next)).await;
        marked += u64::from(differs.unwrap().is_none());
    }
    marked
}

/// Defect guarded: what is written between the read and the write of a compare-and-write, by the volume's only front end,
/// must not be overwritten by it; not while the volume moves to another pool either, when two owners have it.
#[test]
fn a_write_is_never_lost_under_a_comparison_while_the_volume_moves_to_another_pool() {
    run_for(LIMIT, async {
        let cluster = Cluster::start(1, 1).unwrap();
        let node = &cluster.nodes[0];
        let _: Value = ask(node, "pool create first --copies 1 --groups 4").await;
        let _: Value = ask(node, "pool create second --copies 1 --groups 4").await;
        let _: Value = ask(node, "volume create a 16M --pool first").await;
        let device = open(node, "a").await;
        for object in 0..OBJECTS {
            request::write(&device, object * OBJECT, vec![0; 1 << 20].into())
                .await
                .unwrap();
        }
        let over = Cell::new(false);
        let moves = async {
            let _: Value = ask(node, "volume retype a --pool second --rate 2M --detach").await;
            until(async || {
                let told: Told = ask(node, "volume info a").await;
                told.moving.is_none()
            })
            .await;
            over.set(true);
        };
        let at = async |object| {
            let place = object * OBJECT;
            let ((), one, other) = tokio::join!(
                overwrite(&device, place, &over),
                mark(&device, place, &over),
                mark(&device, place, &over)
            );
            one + other
        };
        let ((), first, second, third, fourth) = tokio::join!(moves, at(0), at(1), at(2), at(3));
        println!("marked {first}, {second}, {third}, {fourth} times");
        device.close().await;
    });
}

#[test]
fn sectors_of_one_block_that_gateways_write_at_once_are_all_kept_when_the_owner_is_killed() {
    run(async {
        let cluster = Cluster::start(3, 1).unwrap();
        prepare(&cluster).await;
        let mut gateways: Vec<Gateway> = cluster.nodes.iter().map(Gateway::start).collect();
        // The first that is used owns the volume.
        let mut owner = Client::connect(&gateways[0].socket(), "a");
        owner.write(100, &[9; 3]).unwrap();
        assert!(gateways[0].said().contains("owns the shared volume"));
        let (tell, mut told) = tokio::sync::mpsc::channel(SECTOR_WRITES_TOLD);
        let writers: Vec<_> = (1..3_u8)
            .map(|who| {
                let mut client = Client::connect(&gateways[usize::from(who)].socket(), "a");
                let tell = tell.clone();
                std::thread::spawn(move || {
                    let at = u64::from(who) * SECTOR;
                    for count in 0..200_u8 {
                        let data = [who, count].repeat(256);
                        client.write(at, &data).unwrap();
                        assert_eq!(client.read(at, 512).unwrap(), data, "a sector is lost");
                        // Nobody listens any more when the owner is dead.
                        let _ = tell.try_send(());
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            told.recv().await.unwrap();
        }
        gateways[0].process.kill().unwrap();
        let joined =
            tokio::task::spawn_blocking(|| writers.into_iter().map(std::thread::JoinHandle::join).collect());
        let joined: Vec<_> = joined.await.unwrap();
        assert!(joined.iter().all(Result::is_ok));
        let mut reader = Client::connect(&gateways[2].socket(), "a");
        assert_eq!(reader.read(99, 5).unwrap(), [0, 9, 9, 9, 0]);
        assert_eq!(reader.read(SECTOR, 512).unwrap(), [1, 199].repeat(256));
        assert_eq!(reader.read(2 * SECTOR, 512).unwrap(), [2, 199].repeat(256));
    });
}
