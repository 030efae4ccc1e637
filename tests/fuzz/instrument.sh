#!/bin/sh
# Compiles one crate of this workspace as libFuzzer wants it: coverage counters and traced comparisons, which are LLVM's own
# and need flags only. `cargo xtask fuzz` names it to cargo as RUSTC_WORKSPACE_WRAPPER, so crates of others stay as they are.
set -eu
rustc=$1
shift
exec "$rustc" "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing
