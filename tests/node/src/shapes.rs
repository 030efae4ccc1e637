//! Whether a text tells a secret: as it is, or in any of the shapes in which programs write bytes.

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};

/// Whether a secret is in a text, in whatever shape.
pub fn tells(text: &str, secret: &[u8]) -> bool {
    shapes(secret).iter().any(|shape| text.contains(shape.as_str()))
}

/// As text, as numbers, and as what others write bytes as.
fn shapes(secret: &[u8]) -> Vec<String> {
    let numbers = format!("{secret:?}");
    let mut shapes = vec![
        numbers.trim_matches(['[', ']']).to_owned(),
        HEXLOWER.encode(secret),
        HEXUPPER.encode(secret),
    ];
    // In Base64 it depends on what is before it.
    for skipped in 0..3 {
        let rest = &secret[skipped..];
        shapes.push(BASE64.encode(&rest[..rest.len() - rest.len() % 3]));
    }
    shapes.extend(String::from_utf8(secret.to_owned()));
    shapes
}

#[cfg(test)]
mod tests {
    //! A search that finds nothing must be one that would have found it.
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_shape() {
        for told in [
            "password=canary,",
            "[1, 99, 97, 110, 97, 114, 121, 2]",
            "0x63616e617279",
            "63616E617279",
            "Y2FuYXJ5",
            // After one byte, and after two.
            &BASE64.encode(b"?canary!"),
            &BASE64.encode(b"??canary!"),
        ] {
            assert!(tells(told, b"canary"), "{told}");
        }
        assert!(!tells("Secret", b"canary"));
    }
}
