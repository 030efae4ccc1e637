//! The coordination store: members that die, all of it away, and one that was put back to an older state.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use serde::Deserialize;

use crate::stage::{GOES_ON, LAPSE, PATIENCE, Stage};
use crate::writer::Word;

/// How long a member stays dead.
const DEAD: Duration = Duration::from_secs(4);
/// How long all of etcd is away: several leases of both kinds.
const AWAY: Duration = Duration::from_secs(20);
const AWAY_LONG: Duration = Duration::from_secs(90);

pub(super) fn leader(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    let leader = stage.etcd.leader()?;
    member(stage, leader)
}

pub(super) fn follower(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    let follower = (stage.etcd.leader()? + 1) % stage.etcd.members();
    member(stage, follower)
}

fn member(stage: &mut Stage, member: usize) -> Result<()> {
    stage.etcd.kill_member(member)?;
    stage.until_it_goes_on()?;
    stage.witness.hold(DEAD)?;
    // What needs the store can be done without that member.
    stage.nodes[0].storagectl(&["volume", "snapshot", "victim", "between"])?;
    stage.nodes[0].storagectl(&["snapshot", "delete", "victim@between", "--yes"])?;
    stage.etcd.start_member(member)?;
    stage.until_it_goes_on()
}

pub(super) fn away(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    without(stage, AWAY)
}

pub(super) fn away_long(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    without(stage, AWAY_LONG)
}

/// Only changes wait.
fn without(stage: &mut Stage, time: Duration) -> Result<()> {
    stage.etcd.kill()?;
    let begun = stage.witness.ask(Word::Begin)?;
    ensure!(begun.refused == 0, "writes were refused");
    stage.witness.hold(LAPSE)?;
    // From here on no lease proves anything any more.
    let goes_on = stage.witness.until_it_wrote(GOES_ON, LAPSE);
    let goes_on = goes_on.and_then(|()| stage.witness.hold(time.saturating_sub(2 * LAPSE)));
    let goes_on = goes_on.and_then(|()| stage.witness.until_it_wrote(GOES_ON, LAPSE));
    stage.etcd.start_again()?;
    goes_on.context("without the store")?;
    stage.witness.until_it_wrote(GOES_ON, PATIENCE)
}

/// What the owner's record says, as far as it is looked at.
#[derive(Deserialize)]
struct Volume {
    owner: Option<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    generation: u64,
}

/// No generation goes back: whoever opens a volume next has a higher one than any before.
pub(super) fn restored(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    let backup = stage.etcd.save("backup")?;
    let before = generation(stage)?;
    // The backup knows nothing of these.
    stage.nodes[1].storagectl(&["volume", "create", "lost", "16M"])?;
    stage.until_it_goes_on()?;
    stage.etcd.restore(&backup)?;
    stage.witness.hold(LAPSE)?;
    let ended = stage.revive()?;
    if ended > 0 {
        eprintln!("{ended} storaged ended when etcd was put back, and were started again");
    }
    stage.until_it_goes_on()?;
    let after = generation(stage)?;
    ensure!(
        after >= before,
        "the generation went back from {before} to {after}"
    );
    Ok(())
}

fn generation(stage: &Stage) -> Result<u64> {
    let told = stage.nodes[0].storagectl(&["--json", "volume", "info", "victim"])?;
    let volume: Volume = serde_json::from_str(&told).context("read a volume")?;
    Ok(volume.owner.context("the volume has no owner")?.generation)
}
