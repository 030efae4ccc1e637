//! Every limit and every pause of an owner, with its reason.

/// Writes in flight, counted by object. As deep as a device queue of QEMU, twice.
pub(super) const WRITES_MAX: usize = 256;
/// Bytes of writes in flight: half of what a replica accepts from one connection, and what a full
/// disk's reserve must bear for each volume that is open (`docs/decisions/0010-full-disks.md`).
pub(super) const WRITE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Reads in flight, counted by object.
pub(super) const READS_MAX: usize = 256;
/// Bytes of reads in flight.
pub(super) const READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The longest part of a read; a divisor of an object's size. Small enough that several are under way in a large read,
/// large enough that none costs much more for it.
pub(super) const READ_PART_BYTES: u64 = 512 * 1024;
/// Requests in flight to one disk: a quarter of what its replica accepts.
pub(super) const LINK_REQUESTS_MAX: usize = 256;
/// Objects whose stamp is kept while nothing is in flight for them: 256 GiB of address space for a
/// few MiB of memory. Beyond it stamps are forgotten and learned again, a round trip each.
pub(super) const OBJECTS_KNOWN_MAX: usize = 65_536;
/// Ranges of a pool that encodes rows of which is known what lies where: 64 GiB of address space, in 2 KiB each.
pub(super) const RANGES_KNOWN_MAX: usize = 16_384;
/// Pause between two rounds of giving back what rows no longer need, in milliseconds: half a second, as with what is
/// complete.
pub(super) const GIVE_BACK_MS: u64 = 500;
/// Ranges in such a round: a message to each disk of the group for each.
pub(super) const GIVING_MAX: usize = 64;
/// How often what is to be read is looked through at one event, because a shard that cannot be read made others wanted: each
/// time a shard fewer is left, of the 20 that there may be.
pub(super) const REBUILD_STEPS_MAX: usize = 20;
/// How long a row's front must have been left alone at least to be encoded, in milliseconds; twice as long at most. Longer
/// than the pauses of a guest that writes to a file piece by piece.
pub(super) const ROW_REST_MS: u64 = 3_000;
/// Rows that are known to have something in their fronts: more than a guest leaves behind in a minute.
pub(super) const RESTING_KNOWN_MAX: usize = 65_536;
/// Rows that are read at once to be encoded, while no guest waits: enough to keep all disks of a group busy.
pub(super) const ROWS_GATHERED_MAX: usize = 4;
/// The same while a guest has requests under way.
pub(super) const ROWS_GATHERED_BUSY_MAX: usize = 1;
/// Pause between two ranges that a new owner looks at, for what the former one left in fronts, in milliseconds: 16 GiB in
/// about three minutes, for forty small requests in a second.
pub(super) const SWEEP_PAUSE_MS: u64 = 50;
/// Objects that a take-over levels at once. A delta is up to 4 MiB, so this is 32 MiB.
pub(super) const LEVELS_MAX: usize = 8;
/// Writes after which the replicas hear at once what is complete, whatever the time: well below the
/// 64 Ki objects in doubt that a disk may have for one owner (Q8).
pub(super) const WRITES_BEFORE_COMPLETE: u64 = 16_384;
/// The longest time until the replicas hear what is complete, in milliseconds (rule 6: a second).
pub(super) const COMPLETE_INTERVAL_MS: u64 = 500;
/// How long a disk may leave a request unanswered before it is suspected (Failure).
pub(super) const STALL_MS: u64 = 500;
/// How often a disk that stays in trouble is complained of: whoever was asked may have been away, or
/// could not spare it then.
pub(super) const SUSPECT_AGAIN_MS: u64 = 1_000;
/// How long the disks' answers are counted before they are compared, in milliseconds.
pub(super) const PACE_WINDOW_MS: u64 = 10_000;
/// So many windows one after the other a disk must be slow before it is told of: a checkpoint or a neighbour's burst
/// is over by then.
pub(super) const PACE_WINDOWS: u32 = 6;
/// Writes in a window without which nothing is said of a disk.
pub(super) const PACE_WRITES_MIN: u32 = 20;
/// A disk is slow if half of its answers take so many times longer than the others': times are known to a factor of two
/// on each side, so this stands for 25 to 100.
pub(super) const PACE_FACTOR: u64 = 25;
/// What takes less is fast enough, whatever the others do: a rotating disk in a far room stays below.
pub(super) const PACE_FLOOR_MS: u64 = 20;
/// How long a connection may be silent, with requests unanswered, before it is opened anew: longer
/// than a slow disk's hiccups, shorter than TCP's own patience.
pub(super) const SILENCE_MS: u64 = 5_000;
/// Pause after "busy": about what the replica needs for some of what it has.
pub(super) const BUSY_PAUSE_MS: u64 = 5;
/// Pause after an answer that a newer map, here or there, will change.
pub(super) const MAP_PAUSE_MS: u64 = 20;
/// Pause after an answer that only time or a person can change.
pub(super) const TROUBLE_PAUSE_MS: u64 = 1_000;
/// Pause between two requests for the present view.
pub(super) const WANT_VIEW_MS: u64 = 100;
/// Pause between two questions to a full disk.
pub(super) const FULL_PROBE_MS: u64 = 500;
/// Part of the lease time, in tenths, after which an owner stops sending (rule 1).
pub(super) const LEASE_USED_TENTHS: u64 = 8;
/// Part of the lease time, in tenths, after which an owner asks all slots whether they vouch for it: late enough that it
/// does not in good times, early enough that they have answered when it must stop otherwise.
pub(super) const LEASE_DANGER_TENTHS: u64 = 5;
/// Rounds of questions to all slots that may be under way: what a round trip of a second needs.
pub(super) const HEARTBEAT_ROUNDS_MAX: usize = 4;
/// Such questions to one disk that may be unanswered, beside its other requests: together they are what a replica accepts
/// of one connection. Of a disk that understands questions about one group only, whoever has more groups there has its
/// lease alone.
pub(super) const LINK_HEARTBEATS_MAX: usize = 1024 - LINK_REQUESTS_MAX;
/// Part of the lease time, in tenths, after which a renewal is asked for: three tries fit.
pub(super) const LEASE_RENEW_TENTHS: u64 = 2;
