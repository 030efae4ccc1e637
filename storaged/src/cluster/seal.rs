//! Seals small secrets that stand in the coordination store with what every node of the cluster has, and the store and
//! its backups have not: the key of the cluster's authority. What the secrets are for is not known here.
//!
//! A sealed secret is base64 (RFC 4648 section 4) of:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | the kind of seal: 1 |
//! | 12 | a random nonce |
//! | the secret's | the secret, encrypted with ChaCha20-Poly1305 (RFC 8439) |
//! | 16 | its tag, which covers the place where the secret stands, too: moved elsewhere it does not open |
//!
//! The key is derived by HKDF with SHA-256 (RFC 5869) from the authority's private key in PKCS #8, with the cluster's identity
//! as salt, for this purpose alone.

use std::fmt;

use data_encoding::BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

/// The kind of seal that is made here.
const KIND: u8 = 1;
/// What the key is for: another purpose gets another one.
const PURPOSE: &[u8] = b"storaged: secrets in the coordination store, 1";

/// See the module.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

/// No randomness could be had, or the cipher refuses.
#[derive(Debug, thiserror::Error)]
#[error("a secret cannot be sealed: the system gives no random numbers")]
pub struct SealError;

impl Seal {
    /// That of a cluster whose authority has this private key, as PKCS #8.
    pub fn new(cluster: [u8; 16], authority_key: &[u8]) -> Result<Self, SealError> {
        let derived = Salt::new(HKDF_SHA256, &cluster).extract(authority_key);
        let purpose = [PURPOSE];
        let key = derived
            .expand(&purpose, &CHACHA20_POLY1305)
            .map_err(|_| SealError)?;
        Ok(Self {
            key: LessSafeKey::new(UnboundKey::from(key)),
            random: SystemRandom::new(),
        })
    }

    /// A secret that stands at `place`, sealed: another text each time.
    pub fn seal(&self, place: &str, secret: &str) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| SealError)?;
        self.seal_with(nonce, place, secret)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], place: &str, secret: &str) -> Result<String, SealError> {
        let mut encrypted = secret.as_bytes().to_vec();
        let place = Aad::from(place.as_bytes());
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(unique, place, &mut encrypted)
            .map_err(|_| SealError)?;
        Ok(BASE64.encode(&[&[KIND], &nonce[..], &encrypted].concat()))
    }

    /// What was sealed for `place`; nothing if it was not, or not for this cluster, or was changed since.
    pub fn open(&self, place: &str, sealed: &str) -> Option<String> {
        let bytes = BASE64.decode(sealed.as_bytes()).ok()?;
        let (kind, rest) = bytes.split_first()?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *kind != KIND {
            return None;
        }
        let mut secret = encrypted.to_vec();
        let place = Aad::from(place.as_bytes());
        let unique = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(unique, place, &mut secret).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    //! A sealed secret is a stored format: golden text; and it opens where it was sealed for, and nowhere else.
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: [u8; 16] = [7; 16];
    const KEY: &[u8] = b"the authority's key";

    fn seal() -> Seal {
        Seal::new(CLUSTER, KEY).unwrap()
    }

    #[test]
    fn a_sealed_secret_keeps_its_golden_text() {
        let golden = "AQkJCQkJCQkJCQkJCco1L9KYmoEzMnrB9M73SBeiDNKkFKKDR+Njcv0=";
        assert_eq!(
            seal()
                .seal_with([9; NONCE_LEN], "a place", "123456789012")
                .unwrap(),
            golden
        );
        assert_eq!(seal().open("a place", golden).unwrap(), "123456789012");
    }

    #[test]
    fn it_opens_for_its_cluster_and_place_alone() {
        let sealed = seal().seal("a place", "123456789012").unwrap();
        assert_ne!(sealed, seal().seal("a place", "123456789012").unwrap());
        assert_eq!(seal().open("another place", &sealed), None);
        let others = [Seal::new([8; 16], KEY), Seal::new(CLUSTER, b"another key")];
        for other in others {
            assert_eq!(other.unwrap().open("a place", &sealed), None);
        }
    }

    proptest! {
        #[test]
        fn what_was_changed_does_not_open(secret in "[ -~]{0,255}", at in any::<proptest::sample::Index>(), bit in 0..8_u32) {
            let sealed = seal().seal("a place", &secret).unwrap();
            prop_assert_eq!(seal().open("a place", &sealed), Some(secret));
            let mut bytes = BASE64.decode(sealed.as_bytes()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(seal().open("a place", &BASE64.encode(&bytes)), None);
        }

        #[test]
        fn what_was_never_sealed_does_not_open(text in ".*") {
            prop_assert_eq!(seal().open("a place", &text), None);
        }
    }
}
