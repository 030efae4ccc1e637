//! Nothing but its manifest: the same features of others' crates for every build of the workspace.
//!
//! Cargo counts what tests alone use only where it builds tests. `serde`, `syn` and with them nearly everything were
//! therefore compiled twice in every whole run: once for programs and once for tests. Dependencies of this crate count in
//! both, and are compiled for neither: no program and no test uses it. A rule of tidy finds what is missing here.
#![forbid(unsafe_code)]
