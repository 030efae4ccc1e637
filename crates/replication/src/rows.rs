//! Pools that encode rows: where the newest state of a range lies, front or row, and how rows are made whole again
//! (`docs/decisions/0050-erasure-coding.md`, `0052-rows-by-the-model.md`). Pure; of requests and disks' answers it
//! knows what they hold, not how they travel.

pub mod layout;
pub mod settling;
