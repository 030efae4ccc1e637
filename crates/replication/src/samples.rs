//! Small objects for the tests of what is computed from them: all of one family, one range and one generation.

use std::sync::Arc;

use protocol::profile::Profile;
use protocol::rows::{RowCode, RowCodes};
use protocol::storage::ChunkState;
use protocol::{FamilyId, Generation, LayerId, ObjectId, Stamp};

pub(crate) fn stamp(count: u64) -> Stamp {
    Stamp {
        generation: Generation(1),
        count,
    }
}

pub(crate) fn object(layer: u64) -> ObjectId {
    ObjectId {
        family: FamilyId(1),
        index: 0,
        layer: LayerId(layer),
    }
}

/// A chunk of blocks with bytes.
pub(crate) fn chunk(number: u8, count: u64, present: u16) -> ChunkState {
    ChunkState {
        chunk: number,
        stamp: stamp(count),
        present,
        zero: 0,
    }
}

/// Parity of 2+1 that one can see through: each byte is the exclusive or of the other two.
#[derive(Debug)]
pub(crate) struct Parity;

impl RowCode for Parity {
    fn encode(&self, data: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        Some(vec![xor(data.first()?, data.get(1)?)])
    }

    fn rebuild(&self, shards: Vec<Option<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
        let (a, b, c) = (
            shards.first()?.clone(),
            shards.get(1)?.clone(),
            shards.get(2)?.clone(),
        );
        let of = |own: Option<Vec<u8>>, one: &Option<Vec<u8>>, other: &Option<Vec<u8>>| {
            own.or_else(|| Some(xor(one.as_ref()?, other.as_ref()?)))
        };
        Some(vec![
            of(a.clone(), &b, &c)?,
            of(b.clone(), &a, &c)?,
            of(c, &a, &b)?,
        ])
    }
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

impl RowCodes for Parity {
    fn code(&self, _profile: Profile) -> Option<Arc<dyn RowCode>> {
        Some(Arc::new(Parity))
    }
}
