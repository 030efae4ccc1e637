//! Names of iSCSI targets and initiators (RFC 7143 section 4.2.7): which texts are names, and which are the same.
//!
//! RFC 3722 lets names have letters of all languages, prepared with stringprep. Here they are ASCII, where that
//! comes to lower case.

/// The most bytes of a name (RFC 7143 section 4.2.7.1).
pub const NAME_BYTES_MAX: usize = 223;
/// Hexadecimal digits of an `eui.` name: an EUI-64.
const EUI_DIGITS: usize = 16;
/// Hexadecimal digits of an `naa.` name: 64 or 128 bits.
const NAA_DIGITS: [usize; 2] = [16, 32];
/// Bytes of the `yyyy-mm` of an `iqn.` name.
const DATE_BYTES: usize = 7;

/// Why a text is no name of a target or an initiator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IscsiNameError {
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the iSCSI name has {0} bytes: use at most {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A character that no name has.
    #[error("the iSCSI name {name:?} contains {found:?}: use letters (a-z), digits, '.', '-' and ':'")]
    BadCharacter {
        /// The name.
        name: String,
        /// The first character that is wrong.
        found: char,
    },
    /// It does not begin as a name does.
    #[error(
        "{0:?} is no iSCSI name: write iqn.YEAR-MONTH.DOMAIN-BACKWARDS:ANYTHING, for example \
         iqn.2026-11.org.example:disk-1"
    )]
    Unknown(String),
    /// The date or the domain of an `iqn.`.
    #[error(
        "{0:?} is no iSCSI name: after iqn. come a year and a month in which you had the domain (2026-11), a dot, and \
         the domain backwards (org.example)"
    )]
    BadQualified(String),
    /// The digits of an `eui.` or `naa.`.
    #[error("{0:?} is no iSCSI name: after eui. come 16 hexadecimal digits, after naa. 16 or 32")]
    BadDigits(String),
}

/// A name as it is kept and compared: in lower case. Refuses what is none.
pub fn normalise_name(text: &str) -> Result<String, IscsiNameError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(IscsiNameError::TooLong(text.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    if let Some(found) = text.chars().find(|c| !allowed(*c)) {
        let name = text.to_owned();
        return Err(IscsiNameError::BadCharacter { name, found });
    }
    let name = text.to_ascii_lowercase();
    let hexadecimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.split_once('.') {
        Some(("iqn", rest)) if is_qualified(rest) => Ok(name),
        Some(("iqn", _)) => Err(IscsiNameError::BadQualified(name)),
        Some(("eui", digits)) if digits.len() == EUI_DIGITS && hexadecimal(digits) => Ok(name),
        Some(("naa", digits)) if NAA_DIGITS.contains(&digits.len()) && hexadecimal(digits) => Ok(name),
        Some(("eui" | "naa", _)) => Err(IscsiNameError::BadDigits(name)),
        _ => Err(IscsiNameError::Unknown(name)),
    }
}

/// Whether this is `yyyy-mm.domain`, perhaps with a colon and more behind it.
fn is_qualified(rest: &str) -> bool {
    let Some((date, domain)) = rest.split_once('.') else {
        return false;
    };
    let domain = domain.split(':').next().unwrap_or_default();
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    is_date(date) && domain.split('.').all(label)
}

fn is_date(date: &str) -> bool {
    let Some((year, month)) = date.split_once('-') else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    date.len() == DATE_BYTES
        && year.len() == 4
        && digits(year)
        && digits(month)
        && ("01"..="12").contains(&month)
}

#[cfg(test)]
mod tests {
    //! Names of initiators and targets as they are found in the field pass; what only looks like one is told why.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_hosts_have_are_taken_and_made_small() {
        for name in [
            "iqn.1993-08.org.debian:01:4ad84b87b0",
            "iqn.1998-01.com.vmware:esx-1-5f2a3b",
            "iqn.1991-05.com.microsoft:win-abc.example.org",
            "iqn.2026-11.org.example",
            "eui.02004567a425678d",
            "naa.52004567ba64678d",
            "naa.62004567ba64678d0123456789abcdef",
        ] {
            assert_eq!(normalise_name(name).as_deref(), Ok(name));
            assert_eq!(normalise_name(&name.to_uppercase()).as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_sentence_that_names_the_fault() {
        for (name, part) in [
            ("", "is no iSCSI name: write"),
            ("disk-1", "is no iSCSI name: write"),
            ("iqn.2026-13.org.example:a", "a year and a month"),
            ("iqn.26-11.org.example:a", "a year and a month"),
            ("iqn.2026-11.:a", "a year and a month"),
            ("iqn.2026-11", "a year and a month"),
            ("iqn.2026-11.org..example", "a year and a month"),
            ("eui.02004567a425678", "hexadecimal digits"),
            ("naa.52004567ba64678g", "hexadecimal digits"),
            ("iqn.2026-11.org.example:a b", "contains ' '"),
            ("iqn.2026-11.org.example:a/b", "contains '/'"),
            ("iqn.2026-11.org.example:a_b", "contains '_'"),
            ("iqn.2026-11.org.example:\u{fc}", "contains '\u{fc}'"),
        ] {
            let error = normalise_name(name).unwrap_err().to_string();
            assert!(error.contains(part), "{name:?}: {error}");
        }
        let long = format!("iqn.2026-11.org.example:{}", "x".repeat(200));
        assert_eq!(normalise_name(&long), Err(IscsiNameError::TooLong(224)));
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_a_panic_and_what_passes_stays_as_it_is(
            text in "((?i)iqn|eui|naa)?\\.?[0-9]{0,4}-?[01]?[0-9]?\\.?\\PC{0,40}",
        ) {
            if let Ok(name) = normalise_name(&text) {
                prop_assert!(name.is_ascii() && !name.contains('/') && !name.is_empty());
                prop_assert_eq!(normalise_name(&name), Ok(name.clone()));
            }
        }
    }
}
