//! Golden lists, each refusal, and no panic from any bytes.
use super::*;
use proptest::prelude::*;

/// The name of the unit of the golden list.
const NAA: u64 = 0x3123_4567_89ab_cdef;

/// A descriptor of a unit with blocks of 512 bytes.
const TARGET: [u8; 32] = [
    0xe4, 0, 0, 0, 1, 3, 0, 8, 0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 2, 0,
];

/// 2048 blocks from block 1 of the first unit to block 4096 of the second.
const SEGMENT: [u8; 28] = [
    0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x10, 0,
];

fn list(targets: &[[u8; 32]], segments: &[[u8; 28]]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[0] = 7;
    bytes[2..4].copy_from_slice(&u16::try_from(targets.len() * 32).unwrap().to_be_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(segments.len() * 28).unwrap().to_be_bytes());
    bytes.extend(targets.concat());
    bytes.extend(segments.concat());
    bytes
}

fn parsed(list: &[u8]) -> Result<CopyRequest, Sense> {
    parse(list, list.len())
}

/// What a golden list becomes with one byte changed.
fn changed(at: usize, byte: u8) -> Result<CopyRequest, Sense> {
    let mut list = list(&[TARGET, TARGET], &[SEGMENT]);
    list[at] = byte;
    parsed(&list)
}

#[test]
fn a_list_says_which_blocks_go_where() {
    let request = parsed(&list(&[TARGET, TARGET], &[SEGMENT])).unwrap();
    let target = |at| Target {
        at,
        naa: Some(NAA),
        block_size: 512,
        kind: 0,
    };
    let segment = Segment {
        number: 0,
        at: 80,
        source: Place {
            target: Some(target(16)),
            block: 1,
            at: 92,
        },
        destination: Place {
            target: Some(target(48)),
            block: 4096,
            at: 100,
        },
        count: 2048,
        by_destination: false,
    };
    assert_eq!(
        request,
        CopyRequest {
            list: Some(7),
            segments: vec![segment]
        }
    );
    assert!(changed(81, 0x02).unwrap().segments[0].by_destination);
    // The unit that the command came to.
    let mut own = SEGMENT;
    own[4..8].copy_from_slice(&[0xff; 4]);
    let request = parsed(&list(&[], &[own])).unwrap();
    assert_eq!(request.segments[0].source.target, None);
}

#[test]
fn a_list_may_be_empty_and_its_name_unused() {
    assert_eq!(parse(&[], 0), Ok(CopyRequest::default()));
    assert_eq!(parsed(&list(&[], &[])).unwrap().segments, []);
    assert_eq!(changed(1, 0x10).unwrap().list, Some(7));
    assert_eq!(changed(1, 0x18), Err(Sense::parameter(0)));
    assert_eq!(changed(1, 0x08), Err(Sense::parameter(1)));
    let mut unused = list(&[], &[]);
    unused[..2].copy_from_slice(&[0, 0x18]);
    assert_eq!(parsed(&unused).unwrap().list, None);
    // Order and priority are hints.
    assert!(changed(1, 0x27).is_ok());
}

#[test]
fn what_is_cut_off_is_refused() {
    let whole = list(&[TARGET], &[SEGMENT]);
    for length in 1..whole.len() {
        assert_eq!(parse(&whole, length), Err(Sense::PARAMETER_LENGTH), "{length}");
    }
    assert_eq!(parse(&whole[..40], whole.len()), Err(Sense::PARAMETER_LENGTH));
    assert_eq!(changed(3, 65), Err(Sense::PARAMETER_LENGTH));
    // A descriptor that its list cuts.
    assert_eq!(changed(3, 63), Err(Sense::parameter(2)));
    assert_eq!(changed(11, 27), Err(Sense::parameter(82)));
}

#[test]
fn there_may_be_eight_of_each_and_no_more() {
    let most = (usize::from(TARGETS_MAX), usize::from(SEGMENTS_MAX));
    let of = |targets, segments| parsed(&list(&vec![TARGET; targets], &vec![SEGMENT; segments]));
    assert_eq!(of(most.0, most.1).unwrap().segments.len(), most.1);
    assert_eq!(of(most.0 + 1, 1), Err(Sense::TOO_MANY_TARGETS));
    assert_eq!(of(2, most.1 + 1), Err(Sense::TOO_MANY_SEGMENTS));
    // Together they are longer than any list may be.
    assert_eq!(of(most.0 + 1, most.1), Err(Sense::PARAMETER_LENGTH));
}

#[test]
fn what_is_not_done_here_is_refused_with_its_place() {
    assert_eq!(changed(16, 0xe0), Err(Sense::UNSUPPORTED_TARGET.about(16)));
    assert_eq!(changed(48, 0xe6), Err(Sense::UNSUPPORTED_TARGET.about(48)));
    assert_eq!(changed(80, 0x0a), Err(Sense::UNSUPPORTED_SEGMENT.about(80)));
    assert_eq!(changed(83, 0x17), Err(Sense::parameter(82)));
    assert_eq!(changed(15, 1), Err(Sense::INLINE_DATA_LENGTH.about(12)));
    let unreachable = Sense::UNREACHABLE_COPY_TARGET.of_segment(0);
    assert_eq!(changed(85, 2), Err(unreachable.about(84)));
    assert_eq!(changed(86, 0xc0), Err(unreachable.about(86)));
    // A tape.
    let wrong = Sense::WRONG_COPY_TARGET.about(16).of_segment(0);
    assert_eq!(changed(17, 1), Err(wrong));
}

#[test]
fn only_a_binary_name_of_a_unit_is_one() {
    let naa = |at, byte| changed(at, byte).unwrap().segments[0].source.target.unwrap().naa;
    // What kind of number it is in a parallel bus is ignored since SPC-4.
    assert_eq!(naa(17, 0xe0), Some(NAA));
    assert_eq!(
        (naa(20, 2), naa(21, 1), naa(21, 0x13), naa(23, 16)),
        (None, None, None, None)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_list_or_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        named in 0..700usize,
    ) {
        if let Ok(request) = parse(&bytes, named) {
            prop_assert!(request.segments.len() <= usize::from(SEGMENTS_MAX));
        }
    }

    #[test]
    fn a_changed_list_is_a_list_or_is_refused(at in 0..108usize, byte in any::<u8>()) {
        if let Err(sense) = changed(at, byte) {
            prop_assert!(matches!(sense.key, 5 | 0xa));
        }
    }
}
