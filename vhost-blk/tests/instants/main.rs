//! Every instant at which a `vhost-blk` can die: the ring's code runs in a process of its own, one machine
//! instruction after the other, and each state that it leaves in the memory that outlives it is taken over by
//! another ring.
//!
//! Whatever the instant, each request is answered exactly once; what was answered is not done again; what was
//! not is done again in its old order, before anything new. A death during the take-over is no different.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that it did not expect"
)]

mod machine;
mod steps;
mod successor;

use std::process::ExitCode;

use machine::{Machine, Script};

/// Of the states that the first death can leave, every so many-th is tried with a second death.
const SECOND_DEATH_EVERY: usize = 9;

fn main() -> ExitCode {
    if let Some(script) = steps::script_of_this_process() {
        script.perform(&Machine::inherited());
        return ExitCode::SUCCESS;
    }
    // `cargo test -- --list` and a filter that does not mean this test.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let listed = std::env::args().any(|word| word == "--list");
    let wanted =
        !listed && (words.is_empty() || words.iter().any(|word| "every_instant".contains(word.as_str())));
    if wanted {
        every_instant_of_a_death_is_harmless();
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {} filtered out",
        u8::from(wanted),
        u8::from(!wanted)
    );
    ExitCode::SUCCESS
}

fn every_instant_of_a_death_is_harmless() {
    let machine = Machine::new();
    machine.set_up();
    let states = steps::through(&machine, Script::Work);
    for state in &states {
        machine.restore(state);
        successor::take_over(&machine);
    }
    let mut second = 0;
    for state in states.iter().step_by(SECOND_DEATH_EVERY) {
        machine.restore(state);
        for state in steps::through(&machine, Script::Succeed) {
            machine.restore(&state);
            successor::take_over(&machine);
            second += 1;
        }
    }
    println!(
        "{} states after one death, {second} after two: every request answered once",
        states.len()
    );
    // Each of the five requests is marked, counted, linked, published and unmarked.
    assert!(states.len() > 25 && second > 25, "the steps have seen too little");
}
