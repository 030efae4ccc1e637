//! Nodes that die, stand still, or lose all they had.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::SmallRng;
use store::{Options, Store};

use crate::stage::{LAPSE, Stage};

/// The longest time for which a node stays dead.
const DEAD_MAX_MS: u64 = 8_000;
/// How long nothing happens, when nothing does.
const CALM: Duration = Duration::from_secs(2);

pub(super) fn nothing(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    stage.witness.hold(CALM)
}

pub(super) fn killed(stage: &mut Stage, random: &mut SmallRng) -> Result<()> {
    stage.victim()?.kill()?;
    stage.until_it_goes_on()?;
    stage
        .witness
        .hold(Duration::from_millis(random.random_range(0..DEAD_MAX_MS)))?;
    stage.victim()?.start_again()
}

pub(super) fn own_killed(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    let own = stage.nodes.first_mut().context("there is no node")?;
    own.kill()?;
    own.start_again()?;
    stage.until_it_goes_on()
}

/// It does not know that it was away: what it says after is that of a zombie.
pub(super) fn stopped(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    stage.victim()?.storaged().freeze()?;
    stage.until_it_goes_on()?;
    stage.witness.hold(LAPSE)?;
    stage.victim()?.storaged().thaw()?;
    stage.until_it_goes_on()
}

pub(super) fn wiped(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    stage.victim()?.kill()?;
    stage.until_it_goes_on()?;
    let disks = stage.victim()?.disks();
    let [disk] = disks.as_slice() else {
        anyhow::bail!("the node has {} disks, and should have one", disks.len());
    };
    let mut format = Store::open(disk, &Options::default())
        .context("look what disk it was")?
        .format()
        .clone();
    std::fs::remove_dir_all(disk).context("wipe a disk")?;
    format.serial = rand::random();
    Store::create(disk, &format).context("put an empty disk in its place")?;
    ensure!(disk.is_dir(), "there is no disk in its place");
    stage.victim()?.start_again()
}
