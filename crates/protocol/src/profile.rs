//! How many shards a row has: k of data, and m of parity. What they hold is not known here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The fewest shards of data: with one, a pool with copies is the same and costs less.
pub const DATA_MIN: u8 = 2;
/// The most shards of data: beyond it a read of what is lost asks too many disks.
pub const DATA_MAX: u8 = 16;
/// The fewest shards of parity.
pub const PARITY_MIN: u8 = 1;
/// The most shards of parity: what is smaller than a row is kept as so many copies and one more.
pub const PARITY_MAX: u8 = 4;

/// k and m of a pool, as in "4+2".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Profile {
    data: u8,
    parity: u8,
}

/// Why there is no such profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It is not two numbers.
    #[error("{0:?} is no profile: give the shards of data and of parity, as in 4+2")]
    Form(String),
    /// A number is out of its range.
    #[error(
        "{data}+{parity} is no profile: there are {DATA_MIN} to {DATA_MAX} shards of data and {PARITY_MIN} to {PARITY_MAX} of parity"
    )]
    Range {
        /// Shards of data.
        data: u8,
        /// Shards of parity.
        parity: u8,
    },
}

impl Profile {
    /// So many shards of data and of parity.
    pub fn new(data: u8, parity: u8) -> Result<Self, ProfileError> {
        if (DATA_MIN..=DATA_MAX).contains(&data) && (PARITY_MIN..=PARITY_MAX).contains(&parity) {
            Ok(Self { data, parity })
        } else {
            Err(ProfileError::Range { data, parity })
        }
    }

    /// Shards of data, 2 to 16.
    pub fn data(self) -> u8 {
        self.data
    }

    /// Shards of parity, 1 to 4: as many failures lose nothing.
    pub fn parity(self) -> u8 {
        self.parity
    }

    /// The shards whose disks keep what is smaller than a row, as whole copies: as many as may fail, and one more.
    pub fn fronts(self) -> std::ops::Range<u8> {
        0..self.parity + 1
    }

    /// All shards, 3 to 20: as many disks does a placement group have.
    pub fn width(self) -> u8 {
        self.data + self.parity
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> Self {
        profile.to_string()
    }
}

impl TryFrom<String> for Profile {
    type Error = ProfileError;

    fn try_from(text: String) -> Result<Self, ProfileError> {
        text.parse()
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let form = || ProfileError::Form(text.to_owned());
        let (data, parity) = text.split_once('+').ok_or_else(form)?;
        let number = |part: &str| part.parse().map_err(|_| form());
        Self::new(number(data)?, number(parity)?)
    }
}

#[cfg(test)]
mod tests {
    //! What is written is what is read, and what cannot be is refused in words.
    use super::*;

    #[test]
    fn a_profile_is_written_as_it_is_read() {
        for text in ["2+1", "4+2", "8+3", "16+4"] {
            let profile: Profile = text.parse().unwrap();
            assert_eq!(profile.to_string(), text);
        }
        assert_eq!("4+2".parse::<Profile>().unwrap().width(), 6);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for text in ["", "4", "4+", "+2", "four+two", "4+2+1", "400+2", "-4+2"] {
            assert!(
                matches!(text.parse::<Profile>(), Err(ProfileError::Form(_))),
                "{text}"
            );
        }
        for text in ["1+1", "17+2", "4+0", "4+5"] {
            let said = text.parse::<Profile>().unwrap_err().to_string();
            assert!(said.starts_with(text) && said.contains("2 to 16"), "{said}");
        }
    }
}
