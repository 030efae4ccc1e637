//! The arithmetic: parity from data, and what is lost from what is left.
//!
//! The code is the systematic Reed-Solomon code over GF(2^8) with the polynomial 0x11d, its generator a Vandermonde matrix
//! whose upper part is made the unit matrix. It is part of what is on disks: a golden test holds it.

use reed_solomon_erasure::galois_8::ReedSolomon;

use protocol::profile::Profile;
use protocol::rows::RowCode;

/// Computes for one profile. Matrices that were needed once are kept for the next time.
#[derive(Debug)]
pub struct Code {
    profile: Profile,
    engine: ReedSolomon,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The processor lacks what the arithmetic is compiled for.
    #[error("this machine's processor has no AVX2, which pools with erasure coding need: use copies here")]
    Processor,
    /// The shards are not as many as the profile says.
    #[error("a row of {expected} shards was given {given}")]
    Shards {
        /// As many as there must be.
        expected: usize,
        /// As many as there were.
        given: usize,
    },
    /// They are of several lengths, or empty.
    #[error("the shards of a row are not of one length")]
    Lengths,
    /// Fewer than k are left.
    #[error(
        "{left} shards are left, and {needed} are needed: the row is lost until more of its disks are back"
    )]
    TooFew {
        /// As many as are left.
        left: usize,
        /// k.
        needed: usize,
    },
    /// The library refused for another reason.
    #[error("the row cannot be computed: {0}")]
    Library(String),
}

impl Code {
    /// For a profile.
    pub fn new(profile: Profile) -> Result<Self, CodeError> {
        if !processor_will_do() {
            return Err(CodeError::Processor);
        }
        let (data, parity) = (usize::from(profile.data()), usize::from(profile.parity()));
        Ok(Self {
            profile,
            engine: ReedSolomon::new(data, parity).map_err(library)?,
        })
    }

    /// The profile.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The parity of a row: m shards, of k shards of data of one length.
    pub fn encode(&self, data: &[&[u8]]) -> Result<Vec<Vec<u8>>, CodeError> {
        let length = self.length(data, self.data())?;
        let mut parity = vec![vec![0; length]; usize::from(self.profile.parity())];
        self.engine.encode_sep(data, &mut parity).map_err(library)?;
        Ok(parity)
    }

    /// Fills in the shards that are not there: those of data first, then of parity. What is there is not changed.
    pub fn rebuild(&self, shards: &mut [Option<Vec<u8>>]) -> Result<(), CodeError> {
        self.check_left(shards)?;
        self.engine.reconstruct(shards).map_err(library)
    }

    /// The same, of data only: for reads, which need no parity.
    pub fn rebuild_data(&self, shards: &mut [Option<Vec<u8>>]) -> Result<(), CodeError> {
        self.check_left(shards)?;
        self.engine.reconstruct_data(shards).map_err(library)
    }

    /// Whether the parity is that of the data: all shards, k and then m.
    pub fn agrees(&self, shards: &[&[u8]]) -> Result<bool, CodeError> {
        self.length(shards, usize::from(self.profile.width()))?;
        self.engine.verify(shards).map_err(library)
    }

    fn check_left(&self, shards: &[Option<Vec<u8>>]) -> Result<(), CodeError> {
        let expected = usize::from(self.profile.width());
        if shards.len() != expected {
            return Err(CodeError::Shards {
                expected,
                given: shards.len(),
            });
        }
        let left: Vec<&[u8]> = shards.iter().flatten().map(Vec::as_slice).collect();
        if left.len() < self.data() {
            return Err(CodeError::TooFew {
                left: left.len(),
                needed: self.data(),
            });
        }
        self.length(&left, left.len()).map(drop)
    }

    /// The one length of so many shards.
    #[allow(clippy::unused_self, reason = "the callers read better")]
    fn length(&self, shards: &[&[u8]], expected: usize) -> Result<usize, CodeError> {
        if shards.len() != expected {
            return Err(CodeError::Shards {
                expected,
                given: shards.len(),
            });
        }
        let length = shards.first().map_or(0, |shard| shard.len());
        let same = length > 0 && shards.iter().all(|shard| shard.len() == length);
        same.then_some(length).ok_or(CodeError::Lengths)
    }

    fn data(&self) -> usize {
        usize::from(self.profile.data())
    }
}

impl RowCode for Code {
    fn encode(&self, data: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        Self::encode(self, data).ok()
    }

    fn rebuild(&self, mut shards: Vec<Option<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
        Self::rebuild(self, &mut shards).ok()?;
        shards.into_iter().collect()
    }
}

/// The library's fast code is compiled for one processor and does not ask which one it is on.
fn processor_will_do() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    true
}

fn library(error: reed_solomon_erasure::Error) -> CodeError {
    CodeError::Library(error.to_string())
}
