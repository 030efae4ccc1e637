//! NBD: what QEMU's tools, libnbd's tools and fio find when they use `storaged-nbd`.

mod copies;
mod handshake;
mod interruption;
mod patterns;
mod security;

use crate::stage::Stage;
use crate::suite::{Check, Selection, Tally};

const MIB: u64 = 1 << 20;
/// The size of the export `large` in bytes.
const LARGE: u64 = 128 << 30;

/// Runs the selected checks against a gateway that serves volumes from memory.
pub fn run(selection: &Selection) -> Tally {
    let mut tally = Tally::default();
    let stage = |_: &Check<Stage>| Stage::in_memory(&[("disk", 64 * MIB), ("large", LARGE)]);
    for checks in [
        handshake::CHECKS,
        patterns::CHECKS,
        copies::CHECKS,
        interruption::CHECKS,
        security::CHECKS,
    ] {
        tally.run("nbd in memory", checks, selection, stage);
    }
    tally
}
