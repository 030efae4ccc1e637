//! The file's bytes are as documented, and no file leads to anything but a memory or a sentence.
use super::*;

const OWN: Identity = Identity {
    cluster: [0xC1; 16],
    node: NodeId(3),
    serial: [0x5E; 16],
};

fn sample() -> Memory {
    let record = |value: &str, modified: u64| Remembered {
        value: value.as_bytes().into(),
        modified: (modified > 0).then_some(Revision(modified)),
    };
    Memory {
        revision: Revision(0x0102),
        up: [NodeId(3), NodeId(5)].into(),
        records: [
            ("/storaged/disk/1".to_owned(), record("{}", 7)),
            ("/storaged/layer/1/1".to_owned(), record("{\"a\":1}", 0)),
        ]
        .into(),
    }
}

/// Version 1, byte by byte: docs/formats/memory.md.
fn golden() -> Vec<u8> {
    let mut bytes = b"sdmemory\x01\0\0\0".to_vec();
    bytes.extend([0xC1; 16]);
    bytes.extend([3, 0, 0, 0]);
    bytes.extend([0x5E; 16]);
    bytes.extend([2, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend([2, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0]);
    bytes.extend([2, 0, 0, 0]);
    bytes.extend([16, 0, 0, 0]);
    bytes.extend(b"/storaged/disk/1");
    bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"\x02\0\0\0{}");
    bytes.extend([19, 0, 0, 0]);
    bytes.extend(b"/storaged/layer/1/1");
    bytes.extend([0; 8]);
    bytes.extend(b"\x07\0\0\0{\"a\":1}");
    let sum = crc(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[test]
fn the_bytes_of_version_1_are_these() {
    assert_eq!(sample().encode(&OWN).unwrap(), golden());
    assert_eq!(Memory::decode(&golden(), &OWN).unwrap(), sample());
}

#[test]
fn what_was_written_is_read_again_and_only_by_the_node_that_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Memory::recollect(folder.path(), &OWN), None);
    sample().write(folder.path(), &OWN).unwrap();
    assert_eq!(Memory::recollect(folder.path(), &OWN), Some(sample()));
    for other in [
        Identity {
            node: NodeId(4),
            ..OWN
        },
        Identity {
            cluster: [0; 16],
            ..OWN
        },
        Identity {
            serial: [0; 16],
            ..OWN
        },
    ] {
        let refused = Memory::decode(&golden(), &other).unwrap_err();
        assert!(matches!(refused, MemoryError::Foreign), "{refused}");
        assert_eq!(Memory::recollect(folder.path(), &other), None);
    }
}

#[test]
fn a_file_that_is_cut_anywhere_or_has_any_bit_turned_counts_as_none() {
    let whole = golden();
    for end in 0..whole.len() {
        let read = Memory::decode(&whole[..end], &OWN);
        assert!(read.is_err(), "cut at {end}");
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = Memory::decode(&bytes, &OWN);
        assert!(read.is_err(), "bit {bit}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), b"something else").unwrap();
    assert_eq!(Memory::recollect(folder.path(), &OWN), None);
}

#[test]
fn lengths_that_are_nonsense_under_a_good_checksum_are_refused_and_nothing_is_taken_for_them() {
    let whole = golden();
    // The count of nodes, of records, and the length of the first key.
    for at in [56, 68, 72] {
        let mut bytes = whole[..whole.len() - CRC_BYTES].to_vec();
        bytes[at..at + 4].copy_from_slice(&[0xFF; 4]);
        let sum = crc(&bytes);
        bytes.extend(sum.to_le_bytes());
        let refused = Memory::decode(&bytes, &OWN).unwrap_err();
        assert!(matches!(refused, MemoryError::Damaged(_)), "{at}: {refused}");
    }
}

#[test]
fn a_file_of_another_version_says_which() {
    let mut bytes = golden();
    bytes[8] = 2;
    let refused = Memory::decode(&bytes, &OWN).unwrap_err();
    assert!(matches!(refused, MemoryError::Version(2)), "{refused}");
}
