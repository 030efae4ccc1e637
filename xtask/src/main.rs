//! Not written yet: see docs/architecture.md for what belongs here.

fn main() {}
