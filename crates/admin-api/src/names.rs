//! Names of volumes, snapshots and pools: 1 to 128 ASCII letters, digits, `.`, `_` and `-`, of which the
//! first is a letter or a digit. Such a name is safe in a path, an URL, an NBD export name and a shell,
//! and never looks like an option or like `..`.

use std::fmt;

/// The most characters in a name. Leaves room for `name@snapshot` in an NBD export name (at most 4096
/// bytes) and in a file name (at most 255).
pub const NAME_LENGTH_MAX: usize = 128;
/// What stands between a volume's name and a snapshot's in a reference: no name can contain it.
pub const SNAPSHOT_SEPARATOR: char = '@';

/// Why a name is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name is needed: 1 to {NAME_LENGTH_MAX} letters, digits, '.', '_' and '-'")]
    Empty,
    /// More than [`NAME_LENGTH_MAX`] characters.
    #[error("the name has {length} characters: use at most {NAME_LENGTH_MAX}")]
    TooLong {
        /// How many there are.
        length: usize,
    },
    /// The first character is allowed, but not there.
    #[error("the name {name:?} starts with {first:?}: start with a letter or a digit")]
    BadStart {
        /// The name.
        name: String,
        /// Its first character.
        first: char,
    },
    /// A character that no name has.
    #[error("the name {name:?} contains {found:?}: use letters (a-z, A-Z), digits, '.', '_' and '-'")]
    BadCharacter {
        /// The name.
        name: String,
        /// The first character that is wrong.
        found: char,
    },
}

/// Whether `name` may be the name of a volume, a snapshot or a pool.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let Some(first) = name.chars().next() else {
        return Err(NameError::Empty);
    };
    let length = name.chars().count();
    if length > NAME_LENGTH_MAX {
        return Err(NameError::TooLong { length });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(found) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameError::BadCharacter {
            name: name.into(),
            found,
        });
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::BadStart {
            name: name.into(),
            first,
        });
    }
    Ok(())
}

/// A volume, or one of its snapshots: `volume` or `volume@snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The volume's name.
    pub volume: String,
    /// The snapshot's name, if it is a snapshot that is meant.
    pub snapshot: Option<String>,
}

impl std::str::FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (volume, snapshot) = match text.split_once(SNAPSHOT_SEPARATOR) {
            Some((volume, snapshot)) => (volume, Some(snapshot)),
            None => (text, None),
        };
        check_name(volume)?;
        snapshot.map(check_name).transpose()?;
        Ok(Self {
            volume: volume.into(),
            snapshot: snapshot.map(Into::into),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}{SNAPSHOT_SEPARATOR}{snapshot}", self.volume),
            None => f.write_str(&self.volume),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What passes the check is harmless wherever a name is put, and what fails is told why.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_names_are_refused_with_a_sentence_that_names_the_fault() {
        for (name, part) in [
            ("", "a name is needed"),
            ("-rf", "start with a letter or a digit"),
            ("..", "start with a letter or a digit"),
            ("a b", "contains ' '"),
            ("a/b", "contains '/'"),
            ("a@b", "contains '@'"),
            ("b\u{fc}ro", "contains '\u{fc}'"),
            ("a\n", "contains '\\n'"),
        ] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains(part), "{name:?}: {error}");
        }
        assert_eq!(
            check_name(&"x".repeat(129)),
            Err(NameError::TooLong { length: 129 })
        );
        assert_eq!(check_name(&"x".repeat(128)), Ok(()));
    }

    #[test]
    fn a_reference_splits_at_its_one_separator() {
        let whole: Reference = "db@before-upgrade".parse().unwrap();
        assert_eq!(
            (whole.volume.as_str(), whole.snapshot.as_deref()),
            ("db", Some("before-upgrade"))
        );
        assert_eq!("db".parse::<Reference>().unwrap().snapshot, None);
        for wrong in ["db@", "@s", "a@b@c", ""] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_a_panic_and_what_passes_is_plain(text in ".{0,200}") {
            if check_name(&text).is_ok() {
                prop_assert!(text.len() <= NAME_LENGTH_MAX && !text.starts_with(['-', '.']));
                prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b"/@?#%&'\"\\".contains(&b)));
            }
        }

        #[test]
        fn every_well_formed_name_passes_and_every_reference_reads_back(
            volume in "[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
            snapshot in proptest::option::of("[A-Za-z0-9][A-Za-z0-9._-]{0,127}"),
        ) {
            prop_assert_eq!(check_name(&volume), Ok(()));
            let reference = Reference { volume, snapshot };
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
        }
    }
}
