//! How long one disk takes: 4 KiB and larger writes and reads at a queue depth, on a real directory.
//!
//! `cargo run --release -p store --example latency -- DIRECTORY [SECONDS]` prints a table with tabs:
//! what, block size, depth, operations a second, mean and 99th percentile in microseconds, and
//! microseconds of CPU for each operation. For comparison with fio on the same directory.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measuring program"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::storage::{Change, ObjectWrite, StorageReply, StorageRequest, StorageView};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use store::medium::Buffer;
use store::medium::memory::Random;
use store::{Format, Options, Store};

/// Objects that are written and read: 1 GiB.
const OBJECTS: u64 = 256;

struct Bench {
    store: Store,
    random: Random,
    count: u64,
    chain: LayerChain,
    payload: Bytes,
    checksums: Arc<[u32]>,
    begun: Vec<Instant>,
}

impl Bench {
    fn object(&self, number: u64) -> ObjectId {
        let index = u32::try_from(number % OBJECTS).unwrap();
        ObjectId {
            family: FamilyId(1),
            index,
            layer: self.chain.head().unwrap(),
        }
    }

    fn write(&mut self, token: u64, object: ObjectId, start: u32, blocks: u32) {
        self.count += 1;
        let request = StorageRequest::Write(ObjectWrite {
            object,
            follows: self.store.stamp(object).unwrap(),
            stamp: Stamp {
                generation: Generation(1),
                count: self.count,
            },
            range: BlockRange::new(start, blocks).unwrap(),
            change: Change::Data {
                bytes: self.payload.slice(..blocks as usize * 4096),
                checksums: self.checksums[..blocks as usize].into(),
            },
            use_reserve: false,
            floor: Stamp::ZERO,
        });
        self.store.submit(token, request);
    }

    fn read(&mut self, token: u64, object: ObjectId, start: u32, blocks: u32) {
        let ranges = BlockRange::new(start, blocks).unwrap().into();
        let (chain, family, index) = (self.chain.clone(), object.family, object.index);
        self.store.submit(
            token,
            StorageRequest::Read {
                chain,
                family,
                index,
                ranges,
            },
        );
    }

    fn begin(&mut self, token: u64, write: bool, blocks: u32, sequential: Option<&mut u64>) {
        let per_object = 1024 / u64::from(blocks);
        let place = match sequential {
            Some(next) => {
                *next += 1;
                *next % (OBJECTS * per_object)
            }
            None => self.random.below(OBJECTS * per_object),
        };
        let object = self.object(place / per_object);
        let start = u32::try_from(place % per_object).unwrap() * blocks;
        self.begun[usize::try_from(token).unwrap()] = Instant::now();
        if write {
            self.write(token, object, start, blocks);
        } else {
            self.read(token, object, start, blocks);
        }
    }

    fn run(&mut self, what: &str, write: bool, blocks: u32, depth: u64, seconds: u64, sequential: bool) {
        let (begun, cpu) = (Instant::now(), cpu_time());
        let until = begun + Duration::from_secs(seconds);
        self.begun = vec![begun; usize::try_from(depth).unwrap()];
        let mut next = 0;
        let mut latencies: Vec<u64> = Vec::new();
        for token in 0..depth {
            self.begin(token, write, blocks, sequential.then_some(&mut next));
        }
        let mut answers = Vec::new();
        let mut under_way = depth;
        while under_way > 0 {
            self.store.kick();
            self.store.wait();
            self.store.poll(&mut answers);
            let now = Instant::now();
            for (token, answer) in answers.drain(..) {
                assert!(matches!(
                    answer.unwrap(),
                    StorageReply::Done | StorageReply::Data { .. }
                ));
                let took = now - self.begun[usize::try_from(token).unwrap()];
                latencies.push(u64::try_from(took.as_nanos()).unwrap());
                if now < until {
                    self.begin(token, write, blocks, sequential.then_some(&mut next));
                } else {
                    under_way -= 1;
                }
            }
        }
        let (took, cpu) = (
            begun.elapsed().as_secs_f64(),
            cpu_time().saturating_sub(cpu).as_secs_f64(),
        );
        latencies.sort_unstable();
        let count = latencies.len() as f64;
        let mean = latencies.iter().sum::<u64>() as f64 / count / 1e3;
        let p99 = latencies[latencies.len() * 99 / 100] as f64 / 1e3;
        let (rate, each) = (count / took, cpu * 1e6 / count);
        println!(
            "{what}\t{}k\t{depth}\t{rate:.0}\t{mean:.0}\t{p99:.0}\t{each:.1}",
            blocks * 4
        );
    }
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap());
    let seconds = arguments.next().map_or(3, |seconds| seconds.parse().unwrap());
    if !Path::new(&directory).join("superblock").exists() {
        let format = Format {
            cluster: [0; 16],
            disk: DiskId(1),
            serial: [1; 16],
            log_bytes: 128 << 20,
        };
        Store::create(&directory, &format).unwrap();
    }
    let opened = Instant::now();
    let store = Store::open(&directory, &Options::default()).unwrap();
    eprintln!("opened in {:?}", opened.elapsed());
    let mut payload = Buffer::with_capacity(4096, 4 << 20);
    payload.resize(4 << 20, 0x5a);
    let payload = Bytes::from_owner(payload);
    let checksums = payload.chunks(4096).map(crc32c::crc32c).collect();
    let chain = LayerChain::new(vec![LayerId(1)]);
    let (count, random, begun) = (0, Random::new(1), Vec::new());
    let mut bench = Bench {
        store,
        random,
        count,
        chain,
        payload,
        checksums,
        begun,
    };
    println!("what\tsize\tdepth\tiops\tmean_us\tp99_us\tcpu_us");
    bench.run("fill", true, 256, 4, seconds, true);
    for object in 0..OBJECTS {
        let object = bench.object(object);
        bench.begun = vec![Instant::now()];
        bench.write(0, object, 0, 1024);
        bench.store.drain(&mut Vec::new());
    }
    bench.run("write", true, 1, 1, seconds, false);
    bench.run("write", true, 1, 32, seconds, false);
    bench.run("read", false, 1, 1, seconds, false);
    bench.run("read", false, 1, 32, seconds, false);
    for blocks in [16, 128, 256, 1024] {
        bench.run("seq write", true, blocks, 4, seconds, true);
        bench.run("seq read", false, blocks, 4, seconds, true);
    }
    let written = bench.store.statistics();
    eprintln!("{written:?}");
    bench.store.close().unwrap();
}
