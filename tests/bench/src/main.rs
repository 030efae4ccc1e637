//! The benchmarks: `local` (against qemu-storage-daemon), `snapshots`, `memory`. `cargo xtask bench`
//! runs them; results and the machine they were taken on are kept in `docs/benchmarks.md`.

fn main() {}
