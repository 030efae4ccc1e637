//! What is written is read; whatever byte changes, the manifest is none any more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
use proptest::prelude::*;

use super::*;

fn id(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn small() -> Manifest {
    Manifest {
        backup: id(1),
        volume: id(2),
        parent: Some(id(3)),
        size: 2 * CHUNK_BYTES + 512,
        taken_at: Instant(1_795_842_800_000_000),
        sources: vec![id(1), id(3)],
        chunks: vec![
            Chunk::Zeros,
            Chunk::Stored {
                source: 1,
                digest: digest_of(b"old"),
            },
            Chunk::Stored {
                source: 0,
                digest: digest_of(b"new"),
            },
        ],
        description: b"{}".to_vec(),
    }
}

#[test]
fn the_bytes_of_a_manifest_are_those_of_version_1() {
    let bytes = small().encode();
    assert_eq!(bytes.len(), 128 + 2 * 16 + 3 * 36 + 2 + 32);
    assert_eq!(&bytes[..8], b"sdbackup");
    assert_eq!(&bytes[8..24], [1, 0, 0, 0, 0, 0, 64, 0, 46, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&bytes[24..40], [1; 16]);
    assert_eq!(&bytes[40..56], [2; 16]);
    assert_eq!(&bytes[56..72], [3; 16]);
    let text: String = digest_of(&bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    // All the rest of it. Another value here is another version of the format.
    assert_eq!(text, GOLDEN);
}

const GOLDEN: &str = "211bc6269ba195480dc1cf344ef9cd968edff4746f66cb5067800cfa223f38f4";

#[test]
fn a_change_of_any_byte_is_found() {
    let good = small().encode();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(Manifest::decode(&bad).is_err(), "byte {at}");
    }
    for length in 0..good.len() {
        assert!(Manifest::decode(&good[..length]).is_err(), "length {length}");
    }
}

#[test]
fn a_newer_manifest_is_refused_with_its_version() {
    let mut bytes = small().encode();
    bytes[8] = 2;
    assert_eq!(Manifest::decode(&bytes), Err(ManifestError::Version(2)));
}

#[test]
fn names_of_objects_are_unique_and_sorted_as_the_chunks_are() {
    assert_eq!(object_name(id(1), 0), format!("{}/000000/000", id(1)));
    assert_eq!(object_name(id(1), 4097), format!("{}/000001/001", id(1)));
    assert_eq!(manifest_name(id(1)), format!("{}/manifest", id(1)));
}

#[test]
fn sources_that_nothing_needs_any_more_are_left_out() {
    let mut manifest = small();
    manifest.sources = vec![id(1), id(9), id(3)];
    manifest.chunks[1] = Chunk::Stored {
        source: 2,
        digest: digest_of(b"old"),
    };
    manifest.tidy();
    assert_eq!(manifest, small());
}

prop_compose! {
    fn any_manifest()(
        sources in 1_u8..8,
        chunks in prop::collection::vec(prop::option::of((any::<u32>(), any::<[u8; 32]>())), 0..40),
        short in 0..CHUNK_BYTES,
        description in prop::collection::vec(any::<u8>(), 0..100),
        has_parent in any::<bool>(),
        taken_at in any::<i64>(),
    ) -> Manifest {
        let size = (chunks.len() as u64 * CHUNK_BYTES).saturating_sub(short);
        Manifest {
            backup: id(1),
            volume: id(200),
            parent: has_parent.then(|| id(3)),
            size,
            taken_at: Instant(taken_at),
            sources: (0..sources).map(|number| id(number + 1)).collect(),
            chunks: chunks
                .into_iter()
                .map(|chunk| match chunk {
                    None => Chunk::Zeros,
                    Some((index, digest)) => Chunk::Stored { source: index % u32::from(sources), digest },
                })
                .collect(),
            description,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(manifest in any_manifest()) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn a_tidy_manifest_means_the_same(manifest in any_manifest()) {
        let mut tidied = manifest.clone();
        tidied.tidy();
        prop_assert!(Manifest::decode(&tidied.encode()).is_ok());
        for (one, other) in manifest.chunks.iter().zip(&tidied.chunks) {
            match (one, other) {
                (Chunk::Zeros, Chunk::Zeros) => {}
                (Chunk::Stored { source: a, digest: x }, Chunk::Stored { source: b, digest: y }) => {
                    prop_assert_eq!(x, y);
                    prop_assert_eq!(manifest.sources[*a as usize], tidied.sources[*b as usize]);
                }
                _ => prop_assert!(false, "a chunk has become another"),
            }
        }
    }
}
