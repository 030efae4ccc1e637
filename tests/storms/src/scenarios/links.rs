//! Cables and links: pulled, loose, deaf in one direction, slow, narrow, and links that turn bits over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::network::{lose, plug};
use crate::relay::{Relay, Weather};
use crate::stage::{LAPSE, Stage, VICTIM};

/// Where the writer is.
const OWN: usize = 0;
/// How long bad weather lasts.
const STORM: Duration = Duration::from_secs(6);
/// How often a loose cable comes off.
const FLAPS: u32 = 10;
/// The longest time that it is off, and on again, in milliseconds.
const FLAP_MAX_MS: u64 = 900;
/// Between two resets of all connections, in milliseconds at most.
const RESET_MAX_MS: u64 = 700;
/// One bit in so many bytes: most connections live long enough to carry some requests.
const CORRUPT_EVERY: u64 = 200_000;

pub(super) fn cable(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    plug(VICTIM, false)?;
    stage.until_it_goes_on()?;
    stage.witness.hold(LAPSE)?;
    plug(VICTIM, true)?;
    stage.until_it_goes_on()
}

/// Nobody else takes the volume, so its I/O waits, and goes on.
pub(super) fn own_cable(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    plug(OWN, false)?;
    stage.witness.hold(LAPSE)?;
    plug(OWN, true)?;
    stage.until_it_goes_on()
}

pub(super) fn one_way_to_writer(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    lose(VICTIM, OWN, true)?;
    stage.until_it_goes_on()?;
    stage.witness.hold(LAPSE)?;
    lose(VICTIM, OWN, false)?;
    stage.until_it_goes_on()
}

pub(super) fn one_way_from_writer(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    lose(OWN, VICTIM, true)?;
    stage.until_it_goes_on()?;
    stage.witness.hold(LAPSE)?;
    lose(OWN, VICTIM, false)?;
    stage.until_it_goes_on()
}

pub(super) fn flapping(stage: &mut Stage, random: &mut SmallRng) -> Result<()> {
    for _ in 0..FLAPS {
        plug(VICTIM, false)?;
        let off = random.random_range(50..FLAP_MAX_MS);
        stage.witness.hold(Duration::from_millis(off))?;
        plug(VICTIM, true)?;
        let on = random.random_range(50..FLAP_MAX_MS);
        stage.witness.hold(Duration::from_millis(on))?;
    }
    stage.until_it_goes_on()
}

pub(super) fn slow(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    weather(
        stage,
        Weather {
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(20),
            ..Weather::default()
        },
    )
}

pub(super) fn narrow(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    weather(
        stage,
        Weather {
            bandwidth: 256 << 10,
            ..Weather::default()
        },
    )
}

pub(super) fn deaf(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    weather(
        stage,
        Weather {
            deaf: true,
            ..Weather::default()
        },
    )
}

pub(super) fn mute(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    weather(
        stage,
        Weather {
            mute: true,
            ..Weather::default()
        },
    )
}

/// TLS must turn every one of these into the end of a connection.
pub(super) fn corrupt(stage: &mut Stage, _: &mut SmallRng) -> Result<()> {
    let before = corrupted(stage);
    for relay in &stage.relays {
        relay.set(Weather {
            corrupt: CORRUPT_EVERY,
            ..Weather::default()
        });
    }
    stage.witness.hold(STORM)?;
    stage.relays.iter().for_each(Relay::calm);
    ensure!(
        corrupted(stage) > before,
        "no bit was turned over: nothing was tried"
    );
    stage.until_it_goes_on()
}

fn corrupted(stage: &Stage) -> u64 {
    stage.relays.iter().map(Relay::corrupted).sum()
}

pub(super) fn resets(stage: &mut Stage, random: &mut SmallRng) -> Result<()> {
    let deadline = Instant::now() + STORM;
    while Instant::now() < deadline {
        stage.relays.iter().for_each(Relay::reset);
        let pause = random.random_range(50..RESET_MAX_MS);
        stage.witness.hold(Duration::from_millis(pause))?;
    }
    stage.until_it_goes_on()
}

/// The victim's relay has this weather for a while; writes go on all the time.
fn weather(stage: &mut Stage, weather: Weather) -> Result<()> {
    let relay = |stage: &Stage, weather: Option<Weather>| {
        let relay = stage.relays.get(VICTIM).context("there is no relay")?;
        match weather {
            Some(weather) => relay.set(weather),
            None => relay.calm(),
        }
        anyhow::Ok(())
    };
    relay(stage, Some(weather))?;
    stage.until_it_goes_on()?;
    stage.witness.hold(STORM)?;
    stage.until_it_goes_on()?;
    relay(stage, None)?;
    stage.until_it_goes_on()
}
