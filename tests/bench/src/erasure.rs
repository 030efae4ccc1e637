//! What the arithmetic of erasure coding costs: parity from data, and lost chunks from what is left, on one core,
//! beside a copy and a checksum of the same data.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use erasure::{Code, Profile};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::machine;

/// A shard's part of a row.
const CHUNK: usize = 64 << 10;
/// What is read or written at once: more than a core's own caches hold.
const DATA: usize = 16 << 20;

/// How `erasure` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Shards of data and of parity, as in 4+2.
    #[arg(long, value_delimiter = ',', default_value = "2+1,2+2,4+2,8+3,16+4")]
    profiles: Vec<Profile>,
    /// How often each is measured, in turns with the others; medians are shown.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// Times of one profile, in the order of [`Measured::NAMES`].
struct Measured {
    code: Code,
    rows: Vec<Row>,
    times: [Vec<Duration>; Self::NAMES.len()],
}

/// One row: shards of data, then of parity.
struct Row(Vec<Vec<u8>>);

impl Measured {
    const NAMES: [&'static str; 6] = [
        "copy",
        "checksum",
        "encode",
        "1 lost chunk",
        "m lost chunks",
        "compare parity",
    ];

    fn new(profile: Profile, seed: u64) -> Result<Self> {
        let code = Code::new(profile)?;
        let mut random = SmallRng::seed_from_u64(seed);
        let count = DATA / (usize::from(profile.data()) * CHUNK);
        let rows: Result<Vec<Row>> = (0..count).map(|_| Row::random(&code, &mut random)).collect();
        Ok(Self {
            code,
            rows: rows?,
            times: Default::default(),
        })
    }

    /// Bytes of data in all rows.
    fn bytes(&self) -> usize {
        self.rows.len() * usize::from(self.code.profile().data()) * CHUNK
    }

    fn round(&mut self) -> Result<()> {
        let data = usize::from(self.code.profile().data());
        let parity = usize::from(self.code.profile().parity());
        let code = &self.code;
        let mut place = vec![0; CHUNK];
        let copy = timed(&self.rows, |row| {
            for shard in &row.0[..data] {
                place.copy_from_slice(black_box(shard));
                black_box(&mut place);
            }
            Ok(())
        })?;
        let checksum = timed(&self.rows, |row| {
            for block in row.0[..data].iter().flat_map(|shard| shard.chunks(4096)) {
                black_box(crc32c::crc32c(block));
            }
            Ok(())
        })?;
        let encode = timed(&self.rows, |row| {
            black_box(code.encode(&row.slices(data))?);
            Ok(())
        })?;
        let one = rebuilt(code, &self.rows, 1)?;
        let many = rebuilt(code, &self.rows, parity)?;
        let compare = timed(&self.rows, |row| {
            ensure!(code.agrees(&row.slices(data + parity))?, "the parity is wrong");
            Ok(())
        })?;
        for (times, time) in self
            .times
            .iter_mut()
            .zip([copy, checksum, encode, one, many, compare])
        {
            times.push(time);
        }
        Ok(())
    }
}

impl Row {
    fn random(code: &Code, random: &mut SmallRng) -> Result<Self> {
        let data: Vec<Vec<u8>> = (0..code.profile().data())
            .map(|_| {
                let mut shard = vec![0; CHUNK];
                random.fill_bytes(&mut shard);
                shard
            })
            .collect();
        let row = Self(data);
        let parity = code.encode(&row.slices(row.0.len()))?;
        Ok(Self(row.0.into_iter().chain(parity).collect()))
    }

    fn slices(&self, count: usize) -> Vec<&[u8]> {
        self.0[..count].iter().map(Vec::as_slice).collect()
    }
}

fn timed(rows: &[Row], mut work: impl FnMut(&Row) -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    rows.iter().try_for_each(&mut work)?;
    Ok(begun.elapsed())
}

/// How long it takes to have the first chunks of data back. What is left is copied before, which is not counted.
fn rebuilt(code: &Code, rows: &[Row], lost: usize) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for row in rows {
        let mut left: Vec<Option<Vec<u8>>> = row.0.iter().cloned().map(Some).collect();
        left[..lost.min(usize::from(code.profile().data()))].fill(None);
        let begun = Instant::now();
        code.rebuild_data(&mut left)?;
        sum += begun.elapsed();
        ensure!(
            left[0].as_ref() == row.0.first(),
            "what was rebuilt is not what was there"
        );
    }
    Ok(sum)
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("machine: {}", machine::description());
    println!("load at the start: {}", machine::load());
    let profiles = options.profiles.iter().zip(1..);
    let measured: Result<Vec<Measured>> = profiles
        .map(|(profile, seed)| Measured::new(*profile, seed).with_context(|| profile.to_string()))
        .collect();
    let mut measured = measured?;
    for _ in 0..options.rounds.max(1) {
        measured.iter_mut().try_for_each(Measured::round)?;
    }
    println!("load at the end: {}", machine::load());
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    let heads = Measured::NAMES.map(|name| format!("{name}, GB/s"));
    table.set_header([String::from("profile")].into_iter().chain(heads));
    for one in &mut measured {
        let bytes = one.bytes() as f64;
        let figures = one.times.iter_mut().map(|times| {
            times.sort_unstable();
            format!("{:.2}", bytes / times[times.len() / 2].as_secs_f64() / 1e9)
        });
        let figures: Vec<String> = figures.collect();
        table.add_row([one.code.profile().to_string()].into_iter().chain(figures));
    }
    println!("{table}");
    println!(
        "GB/s of data (k chunks of 64 KiB a row), one core, medians of {} rounds",
        options.rounds.max(1)
    );
    Ok(())
}
