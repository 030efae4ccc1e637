//! Disks that have no room, and disks that fail.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;

use crate::stage::{PATIENCE, Stage};
use crate::writer::{BALLAST, BALLAST_SIZE, Word};

/// How long errors go on.
const STORM: Duration = Duration::from_secs(5);

/// Writes are refused before they are sent, and go on when something is deleted.
pub(super) fn full(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    stage.nodes[0].storagectl(&["volume", "create", BALLAST, &BALLAST_SIZE.to_string()])?;
    stage.witness.ask(Word::Fill)?;
    let deadline = Instant::now() + PATIENCE;
    while stage.witness.ask(Word::Tell)?.refused == 0 {
        ensure!(
            Instant::now() < deadline,
            "the disk is full, and no write was refused"
        );
        stage.witness.hold(STORM)?;
    }
    stage.nodes[0].storagectl(&["volume", "delete", BALLAST, "--yes"])?;
    stage.until_it_goes_on()
}

/// The disk is taken out of service, the volume goes on, and what it missed is copied to it afterwards.
pub(super) fn errors(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    stage
        .bench
        .as_ref()
        .context("the disk cannot be made to fail")?
        .fail()?;
    stage.until_it_goes_on()?;
    stage.witness.hold(STORM)?;
    let status = stage.nodes[2].storagectl(&["status"])?;
    stage.victim()?.kill()?;
    stage.bench.as_ref().context("the disk is gone")?.mend()?;
    stage.victim()?.start_again()?;
    ensure!(
        status.contains("disk-"),
        "the failing disk is not told of: {status}"
    );
    stage.witness.until_it_wrote(1, PATIENCE)
}
