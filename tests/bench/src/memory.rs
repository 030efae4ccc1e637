//! Whether a disk keeps to its memory however much is stored on it, and how long it takes to start
//! after a crash with a full log.
//!
//! A terabyte is written through the store, all of its metadata is real, and the bytes go nowhere:
//! see [`hollow`]. The process that writes ends itself without a warning while its log is full; a
//! second one opens what it left. Both tell the kernel's figures of their own memory.

mod hollow;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use protocol::geometry::{BLOCK_SIZE, BLOCKS_PER_OBJECT, OBJECT_SIZE};
use protocol::storage::{Change, ObjectWrite, StorageReply, StorageRequest};
use protocol::{BlockRange, DiskId, FamilyId, Generation, LayerChain, LayerId, ObjectId, Stamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store::medium::Buffer;
use store::medium::directory::Directory;
use store::options::LOG_BYTES_DEFAULT;
use store::{Engine, Format, MemoryBudget, Options as StoreOptions, Store};

use self::hollow::{Hollow, pattern};
use crate::{machine, process};

/// Requests in flight while objects are written, and while blocks are.
const FILL_DEPTH: usize = 12;
const RANDOM_DEPTH: usize = 32;
/// How long blocks are read and written at random.
const RANDOM_TIME: Duration = Duration::from_secs(10);
/// How long is waited for a full log.
const FULL_LOG_LIMIT: Duration = Duration::from_secs(30);
/// What counts as a full log, in per cent of its length: a quarter of it is kept for one batch.
const FULL_LOG_PER_CENT: u64 = 70;
const FULL_LOG_OBJECTS: u32 = 256;
const FAMILY: FamilyId = FamilyId(1);
const LAYER: LayerId = LayerId(1);

/// How `memory` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the disk keeps its files. Emptied by the end.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// How much is written, in GiB.
    #[arg(long, default_value_t = 1024)]
    gib: u32,
    /// The disk's memory budget, in MiB.
    #[arg(long, default_value_t = 320)]
    budget_mib: u64,
    /// Which part of the benchmark this process is.
    #[arg(long, value_enum, hide = true)]
    phase: Option<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Phase {
    /// Writes, and dies with a full log.
    Write,
    /// Opens what was left.
    Open,
}

/// Runs the benchmark and prints its figures.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.phase {
        Some(Phase::Write) => return write(options),
        Some(Phase::Open) => return open(options),
        None => {}
    }
    let directory = machine::stage(&options.directory)?;
    // Killed, as it should be: that is no failure.
    let _ = phase(options, "write", directory.path())?;
    ensure!(
        phase(options, "open", directory.path())?,
        "the disk could not be opened after the crash"
    );
    println!("load at the end: {}", machine::load());
    println!(
        "{} GiB written, {} MiB of memory given to the disk",
        options.gib, options.budget_mib
    );
    Ok(())
}

fn phase(options: &Options, name: &str, directory: &Path) -> Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["memory", "--phase", name, "--directory"])
        .arg(directory)
        .arg(format!("--gib={}", options.gib))
        .arg(format!("--budget-mib={}", options.budget_mib))
        .stdin(Stdio::null());
    Ok(command
        .status()
        .context("start the benchmark's second process")?
        .success())
}

/// A store under load: keeps `depth` requests in flight and counts answers.
struct Load {
    store: Store,
    /// The count of each object's newest write.
    stamps: Vec<u64>,
    count: u64,
    token: u64,
    in_flight: usize,
    answers: Vec<store::Answer>,
}

impl Load {
    fn write(&mut self, index: u32, range: BlockRange, bytes: &Bytes, checksums: &Arc<[u32]>) {
        let stamp = |count| Stamp {
            generation: Generation(u64::from(count > 0)),
            count,
        };
        self.count += 1;
        let follows = std::mem::replace(&mut self.stamps[index as usize], self.count);
        let change = Change::Data {
            bytes: bytes.clone(),
            checksums: Arc::clone(checksums),
        };
        let object = ObjectId {
            family: FAMILY,
            index,
            layer: LAYER,
        };
        let (follows, stamp) = (stamp(follows), stamp(self.count));
        let write = ObjectWrite {
            object,
            follows,
            stamp,
            range,
            change,
            use_reserve: false,
            floor: Stamp::ZERO,
        };
        self.submit(StorageRequest::Write(write));
    }

    fn submit(&mut self, request: StorageRequest) {
        self.token += 1;
        self.in_flight += 1;
        self.store.submit(self.token, request);
    }

    /// Goes on until at most `left` requests are in flight.
    fn wait(&mut self, left: usize) -> Result<()> {
        while self.in_flight > left {
            self.store.kick();
            self.store.poll(&mut self.answers);
            for (_, answer) in self.answers.drain(..) {
                self.in_flight -= 1;
                if let StorageReply::Data { bytes, .. } = answer.context("the disk refused a request")? {
                    ensure!(
                        bytes == pattern(),
                        "the disk gave back other bytes than were written"
                    );
                }
            }
            if self.in_flight > left {
                self.store.wait();
            }
        }
        Ok(())
    }
}

fn store_options(options: &Options) -> StoreOptions {
    let memory = MemoryBudget::of(options.budget_mib << 20);
    StoreOptions {
        memory,
        engine: Engine::Automatic,
        ..StoreOptions::default()
    }
}

fn open_hollow(options: &Options) -> Result<Store> {
    let medium = Directory::open(&options.directory)?.medium(Engine::Automatic)?;
    Ok(Store::open_on(
        Box::new(Hollow::over(medium)),
        &store_options(options),
    )?)
}

/// Makes a disk, writes to all of it, and dies.
fn write(options: &Options) -> Result<()> {
    let format = Format {
        cluster: [1; 16],
        disk: DiskId(1),
        serial: [2; 16],
        log_bytes: LOG_BYTES_DEFAULT,
    };
    Store::create(&options.directory, &format)?;
    report("an empty disk", None);
    let objects = options.gib * (1 << 30 >> 20) / (OBJECT_SIZE >> 20);
    let store = open_hollow(options)?;
    let stamps = vec![0; objects as usize];
    let mut load = Load {
        store,
        stamps,
        count: 0,
        token: 0,
        in_flight: 0,
        answers: Vec::new(),
    };

    // Aligned, as what comes from a socket is: or the store would copy it.
    let bytes = Bytes::from_owner(Buffer::from_slice(
        BLOCK_SIZE as usize,
        &pattern().repeat(BLOCKS_PER_OBJECT as usize),
    ));
    let checksums = protocol::checksum::of_blocks(&bytes);
    let begin = Instant::now();
    for index in 0..objects {
        load.write(index, BlockRange::OBJECT, &bytes, &checksums);
        load.wait(FILL_DEPTH - 1)?;
    }
    load.wait(0)?;
    report(
        &format!(
            "{} GiB written in {:.0} s",
            options.gib,
            begin.elapsed().as_secs_f64()
        ),
        Some(&load.store),
    );

    let block = bytes.slice(..BLOCK_SIZE as usize);
    let checksum: Arc<[u32]> = checksums[..1].into();
    let mut random = SmallRng::seed_from_u64(3);
    let place = |random: &mut SmallRng| {
        let block =
            BlockRange::new(random.random_range(0..BLOCKS_PER_OBJECT), 1).context("a block of an object")?;
        Ok::<_, anyhow::Error>((random.random_range(0..objects), block))
    };
    let (begin, mut reads) = (Instant::now(), 0u64);
    let chain = LayerChain::new(vec![LAYER]);
    while begin.elapsed() < RANDOM_TIME {
        let (index, range) = place(&mut random)?;
        load.submit(StorageRequest::Read {
            chain: chain.clone(),
            family: FAMILY,
            index,
            ranges: range.into(),
        });
        load.wait(RANDOM_DEPTH - 1)?;
        reads += 1;
    }
    load.wait(0)?;
    report(
        &format!("{:.0} random 4 KiB reads a second", rate(reads, begin)),
        Some(&load.store),
    );

    let (begin, mut writes) = (Instant::now(), 0u64);
    while begin.elapsed() < RANDOM_TIME {
        let (index, range) = place(&mut random)?;
        load.write(index, range, &block, &checksum);
        load.wait(RANDOM_DEPTH - 1)?;
        writes += 1;
    }
    report(
        &format!("{:.0} random 4 KiB writes a second", rate(writes, begin)),
        Some(&load.store),
    );

    // To few objects, so that the log's length is what brings a checkpoint about, and nothing else.
    let begin = Instant::now();
    loop {
        let (index, range) = place(&mut random)?;
        load.write(index % FULL_LOG_OBJECTS, range, &block, &checksum);
        load.wait(RANDOM_DEPTH - 1)?;
        let statistics = load.store.statistics();
        let full = statistics.log_used_bytes * 100 >= statistics.log_bytes * FULL_LOG_PER_CENT;
        if full || begin.elapsed() > FULL_LOG_LIMIT {
            report("killed here", Some(&load.store));
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            bail!("this process outlived its end");
        }
    }
}

/// Opens what the first process left.
fn open(options: &Options) -> Result<()> {
    let begin = Instant::now();
    let store = open_hollow(options)?;
    report(
        &format!("opened after the crash in {:.2} s", begin.elapsed().as_secs_f64()),
        Some(&store),
    );
    Ok(())
}

fn rate(count: u64, begin: Instant) -> f64 {
    count as f64 / begin.elapsed().as_secs_f64()
}

/// One line: what happened, and where memory stands.
fn report(what: &str, store: Option<&Store>) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (now, most) = process::memory();
    print!(
        "{what}: resident {:.0} MiB, at most {:.0} MiB",
        mib(now),
        mib(most)
    );
    if let Some(store) = store {
        let all = store.statistics();
        print!(
            "; metadata {:.0}, overlay {:.0}, cache {:.0}, log {:.0} of {:.0} MiB, {} checkpoints",
            mib(all.metadata_bytes),
            mib(all.overlay_bytes),
            mib(all.cached_bytes),
            mib(all.log_used_bytes),
            mib(all.log_bytes),
            all.checkpoints,
        );
    }
    println!();
}
