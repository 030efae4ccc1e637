//! Loads an open volume through this crate alone, without a guest or a gateway: for profiles.
//!
//! `load DIR/storaged.sock VOLUME read|write DEPTH COUNT` does COUNT requests of 4 KiB at random
//! places, DEPTH at a time, and prints IOPS, mean and 99th percentile, and its own CPU a request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::device::{BlockDevice, Operation};
use client::transport::Address;
use client::volume::{Options, Volume};
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// What is shared by all requests in flight.
struct Load {
    volume: Volume,
    write: bool,
    data: Bytes,
    random: Cell<u64>,
    left: Cell<u64>,
    running: Cell<u64>,
    latencies: RefCell<Vec<Duration>>,
    done: Notify,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, name, pattern, depth, count] = &arguments[..] else {
        return Err("usage: load DIR/storaged.sock VOLUME read|write DEPTH COUNT".into());
    };
    let (depth, count): (u64, u64) = (depth.parse()?, count.parse()?);
    let options = Options {
        program: "load".into(),
        storaged: vec![socket.parse::<Address>()?],
        volume: name.clone(),
        snapshot: None,
        read_only: false,
        wait: Duration::from_secs(10),
        read_cache: None,
    };
    let write = pattern == "write";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let volume = Volume::open(options).await?;
        volume.opened().await;
        let load = Rc::new(Load {
            volume,
            write,
            data: Bytes::from(vec![0x5a; 4096]),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
            left: Cell::new(count),
            running: Cell::new(0),
            latencies: RefCell::default(),
            done: Notify::new(),
        });
        let (start, cpu) = (Instant::now(), cpu_time());
        for _ in 0..depth.min(count) {
            next(&load);
        }
        load.done.notified().await;
        report(&load, start.elapsed(), cpu_time().saturating_sub(cpu));
        load.volume.close().await;
        Ok(())
    })
}

/// Starts one more request; when it is done, it starts the next.
fn next(load: &Rc<Load>) {
    let Some(left) = load.left.get().checked_sub(1) else {
        if load.running.get() == 0 {
            load.done.notify_one();
        }
        return;
    };
    load.left.set(left);
    load.running.set(load.running.get() + 1);
    let mut random = load.random.get();
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    load.random.set(random);
    let offset = random % (load.volume.info().size / 4096) * 4096;
    let operation = if load.write {
        Operation::Write {
            offset,
            data: vec![load.data.clone()],
        }
    } else {
        Operation::Read { offset, length: 4096 }
    };
    let (start, again) = (Instant::now(), Rc::clone(load));
    load.volume.submit(
        operation,
        Box::new(move |answer| {
            if let Err(error) = answer {
                eprintln!("a request failed: {error}");
            }
            again.latencies.borrow_mut().push(start.elapsed());
            again.running.set(again.running.get() - 1);
            next(&again);
        }),
    );
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn report(load: &Load, wall: Duration, cpu: Duration) {
    let mut latencies = load.latencies.take();
    latencies.sort_unstable();
    let count = u32::try_from(latencies.len()).unwrap_or(u32::MAX).max(1);
    let mean = latencies.iter().sum::<Duration>() / count;
    let p99 = latencies
        .get(latencies.len() * 99 / 100)
        .copied()
        .unwrap_or_default();
    let iops = f64::from(count) / wall.as_secs_f64();
    println!(
        "{iops:.0} IOPS, mean {mean:?}, p99 {p99:?}, client CPU {:?} a request",
        cpu / count
    );
}
