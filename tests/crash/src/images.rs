//! Power cuts: at every event of a run, every choice of what was kept of the writes under way.

use protocol::Stamp;
use protocol::storage::StorageRequest;
use store::medium::memory::{Disk, Event, Fate, Image, Random, Recorded};

use crate::operation::{self, Kind};
use crate::scenario::{self, Allowed, Scenario, State};
use crate::{Tally, scenario::ask};

/// How thorough.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// All subsets up to so many writes under way; samples above.
    pub subsets_up_to: usize,
    /// How many samples, torn ones among them.
    pub samples: u64,
    /// Of so many images one is also recovered under power cuts, and one is used further.
    pub further_every: u64,
}

/// Cuts the power at every event of a scenario; of one whose requests come one after the other, at
/// those of the last kind only: a shorter scenario has the ones before.
pub fn power_cuts(base: &Image, scenario: &Scenario, together: bool, effort: Effort, tally: &mut Tally) {
    let disk = Disk::new(base.clone());
    let ran = scenario::open(&disk).and_then(|mut store| {
        disk.record();
        let run = scenario::run(&disk, &mut store, scenario, together)?;
        let recording = disk.take_recording();
        disk.end_process();
        Ok((run, recording))
    });
    let scene = |what: &str| format!("{:?} (together: {together}), {what}", scenario.kinds);
    let (run, recording) = match ran {
        Ok(ran) => ran,
        Err(error) => return tally.count(Err(error), || scene("the run itself")),
    };
    if let Some(error) = run.errors.first() {
        return tally.count(Err(format!("a request failed: {error}")), || {
            scene("the run itself")
        });
    }
    let skip = if together { 0 } else { run.last_from };
    let first = recording.partition_point(|recorded| recorded.round <= skip);
    for place in first..=recording.len() {
        let (image, round) = cut(base, &recording, place);
        let allowed = run.allowed_before(round, scenario);
        let result = survive(&image, scenario, &allowed);
        tally.count(result, || scene(&format!("the process dies at event {place}")));
        let seed = place as u64;
        for fates in choices(image.unflushed(), effort, seed) {
            let outcome = image.after_power_cut(&fates);
            let number = tally.images;
            let result = look(&outcome, scenario, &allowed, effort, number);
            tally.count(result, || scene(&format!("cut at event {place}, {fates:?}")));
            if tally.is_hopeless() {
                return;
            }
        }
    }
}

/// The disk when the power goes at an event: what was done in earlier polls is done; of the poll
/// that the event belongs to, jobs have come as far as the event, and all else is under way.
fn cut(base: &Image, recording: &[Recorded], place: usize) -> (Image, u64) {
    let mut image = base.clone();
    let Some(at) = recording.get(place) else {
        for recorded in recording {
            image.apply(&recorded.event);
        }
        return (image, u64::MAX);
    };
    for recorded in recording.iter().filter(|recorded| recorded.round < at.round) {
        image.apply(&recorded.event);
    }
    let begun = recording[..place]
        .iter()
        .filter(|recorded| recorded.round == at.round);
    let is_write = |event: &Event| matches!(event, Event::Write { .. } | Event::Punch(..));
    for recorded in begun {
        if recorded.in_job || !is_write(&recorded.event) {
            image.apply(&recorded.event);
        }
    }
    let same_round = recording
        .iter()
        .filter(|recorded| recorded.round == at.round && !recorded.in_job);
    for recorded in same_round {
        match recorded.event.clone() {
            Event::Write {
                file, offset, bytes, ..
            } => {
                image.apply(&Event::Write {
                    file,
                    offset,
                    bytes,
                    durable: false,
                });
            }
            Event::Punch(..) => image.apply(&recorded.event),
            Event::Flush(_) | Event::SetLength(..) => {}
        }
    }
    (image, at.round)
}

/// What may become of so many writes.
fn choices(writes: usize, effort: Effort, seed: u64) -> Vec<Vec<Fate>> {
    let mut random = Random::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let fate = |kept: bool| if kept { Fate::Kept } else { Fate::Lost };
    let mut choices = Vec::new();
    if writes <= effort.subsets_up_to {
        for subset in 0..1u64 << writes {
            choices.push((0..writes).map(|write| fate(subset >> write & 1 == 1)).collect());
        }
    } else {
        choices.push(vec![Fate::Lost; writes]);
        choices.push(vec![Fate::Kept; writes]);
        for _ in 0..effort.samples {
            choices.push((0..writes).map(|_| fate(random.below(2) == 1)).collect());
        }
    }
    if writes > 0 {
        for _ in 0..effort.samples {
            let torn = |_| match random.below(4) {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => Fate::Torn(random.next()),
            };
            choices.push((0..writes).map(torn).collect());
        }
    }
    choices
}

/// Opens an image and holds what it shows against the model; some are also used further.
fn look(
    image: &Image,
    scenario: &Scenario,
    allowed: &Allowed,
    effort: Effort,
    number: u64,
) -> Result<(), String> {
    let disk = Disk::new(image.clone());
    let further = number.is_multiple_of(effort.further_every);
    if further {
        disk.record();
    }
    let mut store = scenario::open(&disk)?;
    let shows = scenario::recognize(&mut store, scenario, allowed)?;
    if !further {
        disk.end_process();
        return Ok(());
    }
    let recording = disk.take_recording();
    cut_during_recovery(image, &recording, scenario, allowed, number)?;
    go_on(&disk, store, shows)
}

/// The process dies and all that it wrote is there, but what was not flushed is in a volatile cache
/// still. The next one shows what it found; when the power goes after that, it must not be lost.
pub fn survive(image: &Image, scenario: &Scenario, allowed: &Allowed) -> Result<(), String> {
    let disk = Disk::new(image.clone());
    let mut store = scenario::open(&disk)?;
    let shown = scenario::recognize(&mut store, scenario, allowed)?;
    disk.end_process();
    let disk = Disk::new(disk.image().after_power_cut(&[]));
    let outcome = scenario::open(&disk).and_then(|mut store| {
        scenario::recognize(&mut store, scenario, &allowed.clone().since(shown)).map(drop)
    });
    disk.end_process();
    outcome.map_err(|what| {
        format!(
            "the power went after the state after {} was shown: {what}",
            shown.after
        )
    })
}

/// A power cut while the disk is being opened: the next opening must come to an allowed state too.
fn cut_during_recovery(
    image: &Image,
    recording: &[Recorded],
    scenario: &Scenario,
    allowed: &Allowed,
    seed: u64,
) -> Result<(), String> {
    for place in 0..=recording.len() {
        let mut random = Random::new(seed ^ place as u64);
        let mut between = image.clone();
        for recorded in &recording[..place] {
            between.apply(&recorded.event);
        }
        if let Some(Recorded {
            event: Event::Write {
                file, offset, bytes, ..
            },
            ..
        }) = recording.get(place)
        {
            let (file, offset, bytes) = (*file, *offset, bytes.clone());
            between.apply(&Event::Write {
                file,
                offset,
                bytes,
                durable: false,
            });
        }
        let fates: Vec<Fate> = (0..between.unflushed())
            .map(|_| Fate::Torn(random.next()))
            .collect();
        let disk = Disk::new(between.after_power_cut(&fates));
        let outcome = scenario::open(&disk)
            .and_then(|mut store| scenario::recognize(&mut store, scenario, allowed).map(drop));
        outcome.map_err(|what| format!("after a cut at event {place} of the recovery: {what}"))?;
        disk.end_process();
    }
    Ok(())
}

/// A recovered disk is a disk: it takes a write, an end of doubt and a checkpoint, and still knows
/// them after.
fn go_on(disk: &Disk, mut store: store::Store, shows: &State) -> Result<(), String> {
    let follows = shows.view.stamps[2];
    let write =
        operation::write(Kind::WriteUnaligned, 3, (follows, Stamp::ZERO), 1000).ok_or("no such write")?;
    let settle = StorageRequest::Settle(vec![(operation::object(2), shows.view.stamps[1])]);
    for request in [write, settle] {
        ask(&mut store, &request)?.map_err(|error| format!("a request after the recovery: {error}"))?;
    }
    let seen = scenario::view(&mut store)?.map_err(|error| error.to_string())?;
    store
        .close()
        .map_err(|error| format!("the close after the recovery: {error}"))?;
    let problems = store::check::check_medium(&disk.medium())
        .map_err(|error| error.to_string())?
        .problems;
    if let Some(problem) = problems.first() {
        return Err(format!("the check after the recovery finds: {problem}"));
    }
    let mut store = scenario::open(disk)?;
    let again = scenario::view(&mut store)?.map_err(|error| error.to_string())?;
    disk.end_process();
    if again == seen {
        Ok(())
    } else {
        Err("a checkpoint after the recovery changed what is seen".to_owned())
    }
}
