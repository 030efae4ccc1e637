//! Text keys (RFC 7143 section 6.1): `key=value`, each ended by a zero byte. Bounded in number and length.

use std::fmt::Write as _;

/// Keys of one exchange. All that the standard knows are fewer than 50.
pub const KEYS_MAX: usize = 128;
/// Bytes of a key's name.
pub const NAME_MAX: usize = 63;
/// Bytes of a value. The standard allows 255 for most, and 8192 for none that is used here; challenges and
/// their answers as hexadecimal digits have up to 2050.
pub const VALUE_MAX: usize = 4096;
/// Bytes of an exchange: what may be gathered from requests that go on.
pub const TEXT_MAX: usize = 64 * 1024;

/// Why text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not `key=value`, a name that is none, or not UTF-8.
    #[error("the text is not a list of key=value")]
    Malformed,
    /// A limit of this module.
    #[error("the text has too many keys, or one that is too long")]
    TooLong,
    /// The same key twice.
    #[error("a key comes twice")]
    Twice,
}

/// Keys with their values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    pairs: Vec<(String, String)>,
}

impl Text {
    /// Reads what an initiator sent. Bytes after the last zero byte, if all are zero, are padding.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        if bytes.len() > TEXT_MAX {
            return Err(TextError::TooLong);
        }
        let mut text = Self::default();
        for pair in bytes.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
            let pair = std::str::from_utf8(pair).map_err(|_| TextError::Malformed)?;
            let (name, value) = pair.split_once('=').ok_or(TextError::Malformed)?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(TextError::Malformed);
            }
            if name.len() > NAME_MAX || value.len() > VALUE_MAX || text.pairs.len() == KEYS_MAX {
                return Err(TextError::TooLong);
            }
            if text.get(name).is_some() {
                return Err(TextError::Twice);
            }
            text.add(name, value);
        }
        Ok(text)
    }

    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Adds one at the end.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.pairs.push((name.to_owned(), value.into()));
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::new();
        for (name, value) in &self.pairs {
            // Writing to a string cannot fail.
            let _ = write!(text, "{name}={value}\0");
        }
        text.into_bytes()
    }
}

/// A number: decimal, or hexadecimal after `0x` (RFC 7143 section 6.1).
pub fn number(value: &str) -> Option<u32> {
    let hexadecimal = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((value, 10), |digits| (digits, 16));
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// A large binary value: hexadecimal after `0x`, base64 after `0b` (RFC 7143 section 6.1).
pub fn binary(value: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = value.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => {
            let even = if digits.len().is_multiple_of(2) { "" } else { "0" };
            data_encoding::HEXLOWER_PERMISSIVE
                .decode(format!("{even}{digits}").as_bytes())
                .ok()
        }
        "0b" | "0B" => data_encoding::BASE64.decode(digits.as_bytes()).ok(),
        _ => None,
    }
}

/// A large binary value as it is sent.
pub fn hexadecimal(bytes: &[u8]) -> String {
    format!("0x{}", data_encoding::HEXLOWER.encode(bytes))
}

#[cfg(test)]
mod tests {
    //! What is written reads back, limits hold, and no input is more than an error.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_and_values_are_read() {
        let text = Text::parse(b"InitiatorName=iqn.a:b\0SessionType=Normal\0X=\0\0\0").unwrap();
        assert_eq!(text.get("InitiatorName"), Some("iqn.a:b"));
        assert_eq!(text.get("X"), Some(""));
        assert_eq!(text.iter().count(), 3);
        assert_eq!(text.encode(), b"InitiatorName=iqn.a:b\0SessionType=Normal\0X=\0");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(Text::parse(b"novalue\0"), Err(TextError::Malformed));
        assert_eq!(Text::parse(b"=value\0"), Err(TextError::Malformed));
        assert_eq!(Text::parse(b"a=1\0a=2\0"), Err(TextError::Twice));
        assert_eq!(Text::parse(&vec![b'a'; TEXT_MAX + 1]), Err(TextError::TooLong));
        let long = format!("a={}\0", "x".repeat(VALUE_MAX + 1));
        assert_eq!(Text::parse(long.as_bytes()), Err(TextError::TooLong));
    }

    #[test]
    fn numbers_and_binary_values() {
        assert_eq!(
            (number("512"), number("0x200"), number("-1"), number("+1")),
            (Some(512), Some(512), None, None)
        );
        assert_eq!(binary("0x0aff"), Some(vec![10, 255]));
        assert_eq!(binary("0xaff"), Some(vec![10, 255]));
        assert_eq!(binary("0bCv8="), Some(vec![10, 255]));
        assert_eq!((binary("12"), binary("0"), binary("0xz")), (None, None, None));
        assert_eq!(hexadecimal(&[10, 255]), "0x0aff");
    }

    proptest! {
        #[test]
        fn any_bytes_are_text_that_reads_back_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(text) = Text::parse(&bytes) {
                prop_assert_eq!(Text::parse(&text.encode()), Ok(text));
            }
        }

        #[test]
        fn any_value_is_a_number_or_is_not(value in ".{0,20}") {
            let _ = (number(&value), binary(&value));
        }
    }
}
