//! Keys of offers: shown once, kept as hashes.

use std::fmt::Write as _;

use ring::digest;
use subtle::ConstantTimeEq as _;

/// A new key, from the system's random numbers: 122 bits of them. Digits and letters that everybody can type.
pub(super) fn generate() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// What is kept of a key: SHA-256 of salt and key, in hexadecimal.
pub(super) fn hash(salt: &str, key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt.as_bytes());
    context.update(key.as_bytes());
    context
        .finish()
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Whether it is the key of which this is kept. How long that takes tells nothing.
pub(super) fn is_right(salt: &str, key: &str, kept: &str) -> bool {
    hash(salt, key).as_bytes().ct_eq(kept.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    //! Only the right key is right.
    use super::*;

    #[test]
    fn a_key_is_right_with_its_salt_only() {
        let (salt, key) = (generate(), generate());
        let kept = hash(&salt, &key);
        assert_eq!(kept.len(), 64);
        assert!(is_right(&salt, &key, &kept));
        assert!(!is_right(&salt, &generate(), &kept));
        assert!(!is_right(&generate(), &key, &kept));
        assert!(!is_right(&salt, "", &kept));
        assert_eq!(
            hash("a", "bc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
