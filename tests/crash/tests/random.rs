//! Long random lives of a disk against the model.

/// `STORE_SEEDS` names how many more lives than these are wanted.
#[test]
fn random_lives_with_power_cuts_show_only_states_that_were() {
    let seeds = std::env::var("STORE_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(12);
    for seed in 1..=seeds {
        println!("seed {seed}");
        crash_tests::lives::live(seed);
    }
}
