//! The fuzzer's process: libFuzzer's main, the target by the name in `STORAGED_FUZZ_TARGET`.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fuzz::Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("STORAGED_FUZZ_TARGET").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| {
            eprintln!("no fuzz target {name:?}: set STORAGED_FUZZ_TARGET");
            std::process::exit(2)
        })
    });
    (target.run)(input);
});
