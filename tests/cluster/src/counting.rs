//! Counts a sector up by compare-and-writes through a shared volume, as many front ends do at once, until it is killed.
//!
//! The sector has the count first, and then for each client how often it has counted: so a client can see whether an
//! attempt came through of which that is not known. Each time one came through it says how often that was by now, and
//! whether it owns the volume; it ends with a sentence when something is wrong.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use client::device::{BlockDevice, DeviceError};
use client::request;
use client::sectors::Sectors;
use client::shared::SharedVolume;
use client::volume::Options;

const SECTOR: usize = 512;

/// Counts as client `who`, whose place is free.
pub(crate) async fn count(options: Options, who: usize) -> Result<()> {
    let volume = Rc::new(SharedVolume::open(options).await.context("open the volume")?);
    let device = Sectors::of_shared(Rc::clone(&volume) as Rc<dyn BlockDevice>);
    let place = 1 + who;
    ensure!(4 * place < SECTOR, "there is no place {place} in a sector");
    let mut through = 0;
    loop {
        let found = look(&device).await?;
        ensure!(
            found[place] == through,
            "{through} came through, and the sector says {}",
            found[place]
        );
        let mut next = found.clone();
        next[0] += 1;
        next[place] += 1;
        let came = match request::compare_and_write(&device, 0, bytes(&found), bytes(&next)).await {
            Ok(differs) => differs.is_none(),
            Err(DeviceError::NotKnown) => {
                println!("not known");
                look(&device).await?[place] == through + 1
            }
            Err(error) => return Err(error).context("compare and write"),
        };
        if came {
            through += 1;
            let role = if volume.volume().is_some() {
                "owner"
            } else {
                "peer"
            };
            println!("{through} {role}");
        }
    }
}

async fn look(device: &Sectors) -> Result<Vec<u32>> {
    let bytes = request::read(device, 0, SECTOR as u64).await.context("read")?;
    let words = bytes.as_chunks::<4>().0.iter();
    Ok(words.map(|word| u32::from_le_bytes(*word)).collect())
}

fn bytes(words: &[u32]) -> bytes::Bytes {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
