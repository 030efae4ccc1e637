//! A front end that can be killed: opens a volume, fills its first block, says so, and holds on to it.
//! `front-end SOCKET VOLUME BYTE`. With `busy` after that it goes on writing to the first blocks, two writes at once,
//! until one fails, and then once more. With `count` it shares the volume and counts a sector up, as the client whose
//! number the byte is.
#![forbid(unsafe_code)]

mod counting;

use std::time::Duration;

use anyhow::{Context, Result};
use client::device::DeviceError;
use client::request;
use client::transport::Address;
use client::volume::{Options, Volume};
use tokio::task::LocalSet;

/// The blocks that are written to.
const BLOCKS: u64 = 64;
/// How long `storaged` and a present owner are waited for.
const WAIT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut word = |what| words.next().with_context(|| format!("the {what} is missing"));
    let socket = word("socket")?;
    let volume = word("volume")?;
    let byte: u8 = word("byte")?.parse().context("the byte is no number")?;
    let task = words.next();
    let busy = task.as_ref().is_some_and(|word| word == "busy");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let options = Options {
            program: "front-end".to_owned(),
            storaged: vec![Address::Unix(socket.into())],
            volume,
            snapshot: None,
            read_only: false,
            wait: WAIT,
            read_cache: None,
        };
        if task.as_ref().is_some_and(|word| word == "count") {
            return counting::count(options, byte.into()).await;
        }
        let volume = Volume::open(options).await.context("open the volume")?;
        request::write(&volume, 0, vec![byte; 4096].into())
            .await
            .context("write")?;
        println!("written");
        if busy {
            let (first, second) = tokio::join!(write_on(&volume, byte, 1), write_on(&volume, byte, 2));
            println!("failed: {first}; {second}");
            let again = request::write(&volume, 0, vec![byte; 4096].into()).await;
            println!(
                "failed again: {}",
                again.err().map_or_else(String::new, |error| error.to_string())
            );
        }
        std::future::pending::<Result<()>>().await
    })
}

/// Writes blocks, each second one of the first few, until one fails.
async fn write_on(volume: &Volume, byte: u8, start: u64) -> DeviceError {
    let mut block = start;
    loop {
        let written = request::write(volume, block % BLOCKS * 4096, vec![byte; 4096].into()).await;
        if let Err(error) = written {
            return error;
        }
        block += 2;
    }
}
