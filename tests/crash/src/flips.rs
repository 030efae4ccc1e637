//! Flipped bits: a changed bit in any structure is found, or harmless; it never gives wrong bytes.

use store::medium::File;
use store::medium::memory::{Disk, Image, Random};

use crate::Tally;
use crate::operation::Kind;
use crate::scenario::{self, Scenario};

/// Files, and whether damage at the newest of what they hold looks like a write cut short: such a
/// write may be taken back.
const FILES: [(File, bool); 4] = [
    (File::Superblock, false),
    (File::Log, true),
    (File::Data, true),
    (File::Meta, false),
];

/// The states that bits are flipped in: with a full log, and with an empty one.
pub const STATES: [&[Kind]; 3] = [
    &[
        Kind::WriteSmall,
        Kind::Raise,
        Kind::WriteLarge,
        Kind::Snapshot,
        Kind::Level,
        Kind::Merge,
    ],
    &[
        Kind::WriteUnaligned,
        Kind::Raise,
        Kind::Snapshot,
        Kind::WriteSmall,
        Kind::Checkpoint,
    ],
    &[
        Kind::Snapshot,
        Kind::WriteUnaligned,
        Kind::Checkpoint,
        Kind::ZeroSmall,
        Kind::WriteSmall,
    ],
];

/// Flips one bit in every `stride` bytes of every page that holds anything.
pub fn flip_bits(base: &Image, scenario: &Scenario, stride: u64, tally: &mut Tally) {
    let kinds = &scenario.kinds;
    let disk = Disk::new(base.clone());
    let ran = scenario::open(&disk)
        .and_then(|mut store| scenario::run(&disk, &mut store, scenario, false).map(drop));
    disk.end_process();
    if let Err(error) = ran {
        return tally.count(Err(error), || format!("{kinds:?}"));
    }
    let image = disk.image();
    for (file, may_cut) in FILES {
        let mut random = Random::new(stride);
        for page in image.written_pages(file) {
            for step in 0..4096 / stride {
                let offset = page + step * stride + random.below(stride);
                let bit = u32::try_from(random.below(8)).unwrap_or(0);
                let outcome = look(&image, scenario, file, (offset, bit), may_cut);
                tally.count(outcome, || format!("{kinds:?}, {file:?} byte {offset} bit {bit}"));
                if tally.is_hopeless() {
                    return;
                }
            }
        }
    }
}

fn look(image: &Image, scenario: &Scenario, file: File, at: (u64, u32), may_cut: bool) -> Result<(), String> {
    let mut image = image.clone();
    image.flip(file, at.0, at.1);
    let disk = Disk::new(image);
    let Ok(mut store) = scenario::open(&disk) else {
        return Ok(());
    };
    let seen = scenario::view(&mut store)?;
    disk.end_process();
    let Ok(seen) = seen else { return Ok(()) };
    let least = scenario.requests - usize::from(may_cut);
    let mut states = scenario.states.iter().filter(|state| state.after >= least);
    if states.any(|state| state.view.allows(&seen)) {
        Ok(())
    } else {
        Err("wrong bytes are given as good".to_owned())
    }
}
