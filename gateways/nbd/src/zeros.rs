//! Finds zeros in what was read, so that they need not travel.
//!
//! Looking at the bytes costs less than asking the disks what they hold, and finds zeros that were
//! written as bytes too.

use bytes::Bytes;

use crate::wire::reply::Segment;

/// What is looked at in one go, in bytes; a shorter run of zeros travels as it is, for a chunk's
/// header would cost more than it saves.
const GRAIN: usize = 4096;

static ZEROS: [u8; GRAIN] = [0; GRAIN];

/// Splits `pieces` into runs of data and runs of zeros. Neighbours differ in kind; together they
/// are as long as the pieces.
pub fn segments(pieces: Vec<Bytes>) -> Vec<Segment> {
    let mut segments = Vec::new();
    for piece in pieces {
        let mut start = 0;
        while start < piece.len() {
            let zero = is_zero(grain(&piece, start));
            let mut end = start + grain(&piece, start).len();
            while end < piece.len() && is_zero(grain(&piece, end)) == zero {
                end += grain(&piece, end).len();
            }
            push(&mut segments, piece.slice(start..end), zero);
            start = end;
        }
    }
    segments
}

fn grain(piece: &Bytes, start: usize) -> &[u8] {
    &piece[start..piece.len().min(start + GRAIN)]
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.len() == GRAIN && bytes == ZEROS
}

fn push(segments: &mut Vec<Segment>, run: Bytes, zero: bool) {
    match segments.last_mut() {
        Some(Segment::Hole(length)) if zero => *length += run.len() as u64,
        Some(Segment::Data(data)) if !zero => data.push(run),
        _ if zero => segments.push(Segment::Hole(run.len() as u64)),
        _ => segments.push(Segment::Data(vec![run])),
    }
}

#[cfg(test)]
mod tests {
    //! The law: what the segments stand for is what was read.
    use super::*;
    use proptest::prelude::*;

    fn expand(segments: &[Segment]) -> Vec<u8> {
        let bytes = segments.iter().map(|segment| match segment {
            Segment::Data(data) => data.concat(),
            Segment::Hole(length) => vec![0; usize::try_from(*length).unwrap()],
        });
        bytes.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_block_of_zeros_is_a_hole_and_a_shorter_run_is_not() {
        assert_eq!(segments(vec![Bytes::from_static(&ZEROS)]), [Segment::Hole(4096)]);
        let short = Bytes::from_static(&ZEROS[..512]);
        assert_eq!(segments(vec![short.clone()]), [Segment::Data(vec![short])]);
    }

    #[test]
    fn holes_of_neighbouring_pieces_become_one() {
        let pieces = vec![Bytes::from_static(&ZEROS), Bytes::from_static(&ZEROS)];
        assert_eq!(segments(pieces), [Segment::Hole(8192)]);
    }

    proptest! {
        #[test]
        fn segments_stand_for_the_bytes(runs in proptest::collection::vec((0u8..3, 1usize..40), 0..12)) {
            let pieces: Vec<Bytes> =
                runs.iter().map(|(fill, units)| Bytes::from(vec![*fill; units * 512])).collect();
            let split = segments(pieces.clone());
            prop_assert_eq!(expand(&split), pieces.concat());
            let kinds: Vec<bool> = split.iter().map(|part| matches!(part, Segment::Hole(_))).collect();
            prop_assert!(kinds.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }
}
