//! CHAP: what answers a challenge (RFC 1994 section 4.1, RFC 7143 section 12.1.3), and whether it is right.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use sha3::Digest as _;
use subtle::ConstantTimeEq as _;

/// Hash functions, by their numbers in the registry of PPP authentication algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 5, which every initiator knows.
    Md5,
    /// 6.
    Sha1,
    /// 7.
    Sha256,
    /// 8: SHA3-256.
    Sha3,
}

impl Algorithm {
    /// From the strongest to the weakest.
    const ALL: [Self; 4] = [Self::Sha3, Self::Sha256, Self::Sha1, Self::Md5];

    /// As it travels.
    pub fn number(self) -> u32 {
        match self {
            Self::Md5 => 5,
            Self::Sha1 => 6,
            Self::Sha256 => 7,
            Self::Sha3 => 8,
        }
    }

    /// The strongest of a list as `CHAP_A` has it.
    pub fn choose(offered: &str) -> Option<Self> {
        let known = |algorithm: &Self| {
            offered
                .split(',')
                .any(|number| number.trim().parse() == Ok(algorithm.number()))
        };
        Self::ALL.into_iter().find(known)
    }
}

/// What answers a challenge: the hash of the identifier, the secret and the challenge.
pub fn answer_to(algorithm: Algorithm, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(1 + secret.len() + challenge.len());
    input.push(identifier);
    input.extend_from_slice(secret);
    input.extend_from_slice(challenge);
    match algorithm {
        Algorithm::Md5 => md5::Md5::digest(&input).to_vec(),
        Algorithm::Sha1 => digest(&SHA1_FOR_LEGACY_USE_ONLY, &input).as_ref().to_vec(),
        Algorithm::Sha256 => digest(&SHA256, &input).as_ref().to_vec(),
        Algorithm::Sha3 => sha3::Sha3_256::digest(&input).to_vec(),
    }
}

/// Whether two answers are the same; takes the same time whatever they differ in.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    //! Known hashes of what identifier, secret and challenge add up to: "abc".
    use super::*;

    #[test]
    fn answers_are_known_hashes() {
        let hex = |algorithm| data_encoding::HEXLOWER.encode(&answer_to(algorithm, b'a', b"b", b"c"));
        assert_eq!(hex(Algorithm::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(Algorithm::Sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(hex(Algorithm::Sha256).starts_with("ba7816bf8f01cfea"));
        assert!(hex(Algorithm::Sha3).starts_with("3a985da74fe225b2"));
        assert!(is_same(b"abc", b"abc") && !is_same(b"abc", b"abd") && !is_same(b"ab", b"abc"));
    }
}
