//! The question whether many groups still stand, and its answer, in bytes.

use bytes::{BufMut, BytesMut};

use super::field::{Reader, put_count, put_pg};
use super::response::{put_refusal, read_refusal};
use crate::frame::WireError;
use crate::id::{Generation, Interval, PgId, TreeRevision, VolumeId};
use crate::message::{Refusal, VOUCH_GROUPS_MAX, Vouch};

/// Length of a group with its interval.
const GROUP_LEN: usize = 16;
/// Length of a group with the shortest refusal.
const REFUSED_LEN_MIN: usize = 9;

pub(super) fn put_vouch(out: &mut BytesMut, vouch: &Vouch) {
    out.put_u64_le(vouch.volume.0);
    out.put_u64_le(vouch.generation.0);
    out.put_u64_le(vouch.revision.0);
    put_count(out, vouch.groups.len());
    for (pg, interval) in &vouch.groups {
        put_pg(out, *pg);
        out.put_u64_le(interval.0);
    }
}

pub(super) fn read_vouch(reader: &mut Reader<'_>) -> Result<Vouch, WireError> {
    let volume = VolumeId(reader.u64()?);
    let generation = Generation(reader.u64()?);
    let revision = TreeRevision(reader.u64()?);
    let count = reader.entries(GROUP_LEN)?;
    if !(1..=VOUCH_GROUPS_MAX).contains(&count) {
        return Err(reader.wrong("number of groups"));
    }
    let groups = (0..count)
        .map(|_| Ok((reader.pg()?, Interval(reader.u64()?))))
        .collect::<Result<_, WireError>>()?;
    Ok(Vouch {
        volume,
        generation,
        revision,
        groups,
    })
}

pub(super) fn put_standing(out: &mut BytesMut, refused: &[(PgId, Refusal)]) {
    put_count(out, refused.len());
    for (pg, refusal) in refused {
        put_pg(out, *pg);
        put_refusal(out, refusal);
    }
}

pub(super) fn read_standing(reader: &mut Reader<'_>) -> Result<Vec<(PgId, Refusal)>, WireError> {
    let count = reader.entries(REFUSED_LEN_MIN)?;
    if count > VOUCH_GROUPS_MAX {
        return Err(reader.wrong("number of groups"));
    }
    (0..count)
        .map(|_| Ok((reader.pg()?, read_refusal(reader)?)))
        .collect()
}
