//! A front end that can be killed: opens a volume, fills its first block, says so, and holds on to it.
//! `front-end SOCKET VOLUME BYTE`.
#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result};
use client::request;
use client::transport::Address;
use client::volume::{Options, Volume};
use tokio::task::LocalSet;

/// How long `storaged` and a present owner are waited for.
const WAIT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let mut word = |what| words.next().with_context(|| format!("the {what} is missing"));
    let socket = word("socket")?;
    let volume = word("volume")?;
    let byte: u8 = word("byte")?.parse().context("the byte is no number")?;
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
        };
        let volume = Volume::open(options).await.context("open the volume")?;
        request::write(&volume, 0, vec![byte; 4096].into())
            .await
            .context("write")?;
        println!("written");
        std::future::pending::<Result<()>>().await
    })
}
