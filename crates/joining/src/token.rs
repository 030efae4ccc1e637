//! The token: one word that is pasted on a new machine. It says whom to ask, how to know him, and with which secret.
//!
//! Nothing here draws lots or looks at a clock: whether a token is still good only the cluster knows.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Specification};
use ring::digest::{SHA256, digest};

use crate::bytes::Reader;

/// What every token begins with, for people and for programs that look for secrets in the wrong places.
const PREFIX: &str = "sdjoin";
/// The format of the bytes behind it.
const VERSION: u8 = 1;
/// The most addresses in a token: more would not make a word that one likes to paste.
pub const ADDRESSES_MAX: usize = 4;
/// The longest address: a name of the longest kind and a port.
pub const ADDRESS_LENGTH_MAX: usize = 253 + 6;
/// No token has more characters: a longer text is not even looked at.
const TEXT_LENGTH_MAX: usize = 2048;
/// What is hashed before a secret, so that the hash is good for nothing else.
const SECRET_CONTEXT: &[u8] = b"storaged join secret 1";

/// Which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(TokenError::NoId)
    }
}

/// What proves that one was given the token. It is random, and only ever kept as its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// What the cluster keeps of it, for this token and no other. The secret has 128 random bits, so a plain hash
    /// gives nothing away.
    pub fn hash(&self, id: TokenId) -> [u8; 32] {
        let mut text = SECRET_CONTEXT.to_vec();
        text.extend_from_slice(&id.0.to_le_bytes());
        text.extend_from_slice(&self.0);
        sha256(&text)
    }
}

/// SHA-256 of the certificate (DER) of a cluster's authority: how a cluster is known before anything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(sha256(certificate))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Which one.
    pub id: TokenId,
    /// Of the authority of the cluster that it is for.
    pub authority: Fingerprint,
    /// What makes it good.
    pub secret: Secret,
    /// Where to ask, `HOST:PORT`, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<String>,
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error(
        "this is not a token: `storagectl cluster token` on a node makes one, a single word that begins with {PREFIX}"
    )]
    NoToken,
    /// It is one, with other letters, or without some.
    #[error("the token was changed on its way here: is it the whole word?")]
    Damaged,
    /// A newer program made it.
    #[error(
        "the token has version {0}, and this program knows version {VERSION}: use the storagectl that comes with the cluster's storaged"
    )]
    Newer(u8),
    /// It does not name a token.
    #[error("a token's number has 16 hexadecimal digits: `storagectl cluster tokens` shows them")]
    NoId,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.authority.0);
        bytes.extend_from_slice(&self.secret.0);
        let addresses: Vec<&String> = self.addresses.iter().take(ADDRESSES_MAX).collect();
        bytes.push(u8::try_from(addresses.len()).map_err(|_| fmt::Error)?);
        for address in addresses {
            let length = u16::try_from(address.len()).map_err(|_| fmt::Error)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(address.as_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_LENGTH_MAX || !text.is_ascii() {
            return Err(TokenError::NoToken);
        }
        let text = text.to_ascii_lowercase();
        let word = text.strip_prefix(PREFIX).ok_or(TokenError::NoToken)?;
        let bytes = base32()
            .and_then(|base32| base32.decode(word.as_bytes()).ok())
            .ok_or(TokenError::Damaged)?;
        let (content, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
            return Err(TokenError::Damaged);
        }
        let mut reader = Reader(content);
        match reader.byte() {
            Some(VERSION) => content_of(&mut reader).ok_or(TokenError::Damaged),
            Some(version) => Err(TokenError::Newer(version)),
            None => Err(TokenError::Damaged),
        }
    }
}

/// Lower case, because a word in capitals is harder to read.
fn base32() -> Option<data_encoding::Encoding> {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().ok()
}

fn content_of(reader: &mut Reader<'_>) -> Option<Token> {
    let id = TokenId(u64::from_le_bytes(reader.array()?));
    let authority = Fingerprint(reader.array()?);
    let secret = Secret(reader.array()?);
    let count = usize::from(reader.byte()?);
    if count == 0 || count > ADDRESSES_MAX {
        return None;
    }
    let mut addresses = Vec::new();
    for _ in 0..count {
        let length = usize::from(reader.short()?);
        if length > ADDRESS_LENGTH_MAX {
            return None;
        }
        addresses.push(String::from_utf8(reader.take(length)?.to_vec()).ok()?);
    }
    reader.0.is_empty().then_some(Token {
        id,
        authority,
        secret,
        addresses,
    })
}

#[cfg(test)]
mod tests {
    //! A token comes back as it was made, and nothing else is taken for one.
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token {
            id: TokenId(0x0102_0304_0506_0708),
            authority: Fingerprint([0xaa; 32]),
            secret: Secret([0x55; 16]),
            addresses: vec!["10.0.0.1:7470".to_owned()],
        }
    }

    #[test]
    fn a_token_keeps_its_golden_text() {
        let golden = "sdjoinaeeaobqfaqbqeankvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvkvjkvkvkvkvkvkvkvkvkvkvkvkvkqcdiageyc4mbogaxdcorxgq3taettn3va";
        assert_eq!(token().to_string(), golden);
        assert_eq!(golden.parse(), Ok(token()));
        assert_eq!(golden.to_uppercase().parse(), Ok(token()));
    }

    #[test]
    fn what_is_no_token_or_was_changed_is_refused_and_says_which() {
        for text in ["", "abc", "sdjoi", "10.0.0.1:7470", "sdj\u{f6}in"] {
            assert_eq!(text.parse::<Token>(), Err(TokenError::NoToken), "{text}");
        }
        let long = format!("sdjoin{}", "a".repeat(TEXT_LENGTH_MAX));
        assert_eq!(long.parse::<Token>(), Err(TokenError::NoToken));
        let good = token().to_string();
        for text in [
            "sdjoin",
            "sdjoin1",
            "sdjoin!",
            &good[..good.len() - 1],
            &format!("{good}a"),
        ] {
            assert_eq!(text.parse::<Token>(), Err(TokenError::Damaged), "{text}");
        }
    }

    #[test]
    fn any_one_character_that_is_changed_is_found() {
        let good = token().to_string();
        for at in 0..good.len() {
            for letter in ["a", "7", "z"] {
                let mut changed = good.clone();
                changed.replace_range(at..=at, letter);
                if changed != good {
                    assert!(changed.parse::<Token>().is_err(), "{at}: {changed}");
                }
            }
        }
    }

    #[test]
    fn a_token_of_a_newer_program_says_so() {
        let mut bytes = vec![VERSION + 1];
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
        assert_eq!(text.parse::<Token>(), Err(TokenError::Newer(2)));
    }

    #[test]
    fn a_secret_is_hashed_for_its_own_token_only_and_is_not_shown() {
        let secret = Secret([7; 16]);
        assert_ne!(secret.hash(TokenId(1)), secret.hash(TokenId(2)));
        assert_ne!(secret.hash(TokenId(1)), Secret([8; 16]).hash(TokenId(1)));
        assert!(!format!("{:?}", token()).contains("85, 85"));
    }

    #[test]
    fn a_number_of_a_token_comes_back_and_other_words_do_not() {
        let id = token().id;
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "1",
            "+102030405060708",
            "010203040506070g",
            "01020304050607080",
        ] {
            assert_eq!(text.parse::<TokenId>(), Err(TokenError::NoId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_token_comes_back(
            id in any::<u64>(), authority in any::<[u8; 32]>(), secret in any::<[u8; 16]>(),
            addresses in prop::collection::vec("[a-z0-9.:\\[\\]]{1,60}", 1..=ADDRESSES_MAX),
        ) {
            let token = Token { id: TokenId(id), authority: Fingerprint(authority), secret: Secret(secret), addresses };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn any_text_is_safe_to_parse(text in "(sdjoin)?\\PC{0,200}") {
            _ = text.parse::<Token>();
        }

        #[test]
        fn any_bytes_with_a_good_sum_are_safe_to_parse(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes));
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string(), text.to_lowercase());
            }
        }
    }
}
