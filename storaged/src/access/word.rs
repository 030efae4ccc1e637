//! An access token as it is written: one word, `sdaccess_`, its number, `_`, its secret, both in hexadecimal digits.
//! Programs that look for secrets in the wrong places know it by how it begins.
//!
//! Whether a token is good is not known here.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};

use crate::cluster::identity::hexadecimal;

/// What every token begins with.
const PREFIX: &str = "sdaccess_";
/// What is hashed before a secret, so that the hash is good for nothing else.
const SECRET_CONTEXT: &[u8] = b"storaged access secret 1";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Digits of a number.
const ID_DIGITS: usize = 16;

/// Which token: no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessId(pub u64);

impl fmt::Display for AccessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text is not a token, or not a token's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not a number.
    #[error("a token's number has {ID_DIGITS} hexadecimal digits: `storagectl access list` shows them")]
    NoId,
    /// Not a token. What it is instead is not repeated: it may be another secret.
    #[error("this is no access token: one is a word that begins with {PREFIX}")]
    NoWord,
}

impl FromStr for AccessId {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let bytes: [u8; ID_DIGITS / 2] = digits(text).ok_or(WordError::NoId)?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

/// A token. It prints as its number: only [`Word::reveal`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Word {
    /// Which.
    pub id: AccessId,
    /// What makes it good: random.
    pub secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access token {}", self.id)
    }
}

impl Word {
    /// The word itself.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, hexadecimal(&self.secret))
    }

    /// What the cluster keeps of it. The secret has 256 random bits, so a plain hash gives nothing away.
    pub fn hash(&self) -> [u8; 32] {
        let mut text = SECRET_CONTEXT.to_vec();
        text.extend_from_slice(&self.id.0.to_le_bytes());
        text.extend_from_slice(&self.secret);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        hash
    }
}

impl FromStr for Word {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or(WordError::NoWord)?;
        Ok(Self {
            id: id.parse().map_err(|_| WordError::NoWord)?,
            secret: digits(secret).ok_or(WordError::NoWord)?,
        })
    }
}

/// Bytes that are written as so many digits.
fn digits<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let text = text.as_bytes();
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = (digit(pair[0])?, digit(pair[1])?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    //! A word comes back as it was made; its form and its hash are stored by others and never change.
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_keeps_its_form_and_its_hash_and_does_not_print_itself() {
        let word = Word {
            id: AccessId(0x2a),
            secret: [0xab; SECRET_BYTES],
        };
        let text = format!("sdaccess_000000000000002a_{}", "ab".repeat(32));
        assert_eq!(word.reveal(), text);
        assert_eq!(text.parse::<Word>().unwrap(), word);
        assert_eq!(format!("{word:?}"), "access token 000000000000002a");
        // By another program's SHA-256.
        let golden = "717d378d7ed2259cdf332680b8a2c3dd80ea68409917624e7f54e311697a3a79";
        assert_eq!(hexadecimal(&word.hash()), golden);
    }

    proptest! {
        #[test]
        fn no_other_text_is_taken_for_a_token(text in "(sdaccess_)?[0-9a-fA-Fg_+ ]{0,90}") {
            if let Ok(word) = text.parse::<Word>() {
                prop_assert_eq!(word.reveal(), text.to_lowercase());
            }
        }
    }
}
