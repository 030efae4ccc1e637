//! What people and programs write on a volume: short names with texts, which storaged keeps and does not read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::names::{NameError, check_name};

/// Labels that a volume has at most.
pub const LABELS_MAX: usize = 16;
/// The longest text of a label, in bytes: notes of some pages.
pub const LABEL_LENGTH_MAX: usize = 8192;
/// What all labels of a volume take at most, names and texts, in bytes: every node has them in memory, and etcd moves a
/// volume's record as a whole.
pub const LABELS_LENGTH_MAX: usize = 16 << 10;

/// Changes labels: those that are not named stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabels {
    /// By its name (as volumes are named) the label's text, or null to take the label away.
    pub labels: BTreeMap<String, Option<String>>,
}

/// Why labels cannot be so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label's name is none.
    #[error("no label is called so: {0}")]
    Name(#[from] NameError),
    /// A text is too long.
    #[error("the label {name:?} has a text of {length} bytes: use at most {LABEL_LENGTH_MAX}")]
    TooLong {
        /// The label.
        name: String,
        /// The text's length in bytes.
        length: usize,
    },
    /// There would be too many.
    #[error("the volume would have {0} labels: use at most {LABELS_MAX}")]
    TooMany(usize),
    /// All together they would be too long.
    #[error("the volume's labels would take {0} bytes: use at most {LABELS_LENGTH_MAX}")]
    TooMuch(usize),
}

impl ChangeLabels {
    /// The labels after the change.
    pub fn apply(&self, labels: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, LabelError> {
        let mut changed = labels.clone();
        for (name, text) in &self.labels {
            check_name(name)?;
            match text {
                None => {
                    changed.remove(name);
                }
                Some(text) if text.len() > LABEL_LENGTH_MAX => {
                    return Err(LabelError::TooLong {
                        name: name.clone(),
                        length: text.len(),
                    });
                }
                Some(text) => {
                    changed.insert(name.clone(), text.clone());
                }
            }
        }
        if changed.len() > LABELS_MAX {
            return Err(LabelError::TooMany(changed.len()));
        }
        let length = changed.iter().map(|(name, text)| name.len() + text.len()).sum();
        if length > LABELS_LENGTH_MAX {
            return Err(LabelError::TooMuch(length));
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    //! What is named changes, and nothing grows without an end.
    use super::*;

    fn change(labels: &[(&str, Option<&str>)]) -> ChangeLabels {
        let owned = |(name, text): &(&str, Option<&str>)| ((*name).to_owned(), text.map(str::to_owned));
        ChangeLabels {
            labels: labels.iter().map(owned).collect(),
        }
    }

    #[test]
    fn labels_that_are_not_named_stay_and_null_takes_away() {
        let first = change(&[("a", Some("1")), ("b", Some(""))]);
        let first = first.apply(&BTreeMap::new()).unwrap();
        let second = change(&[("a", None), ("c", Some("3")), ("d", None)])
            .apply(&first)
            .unwrap();
        let told: Vec<_> = second.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(told, [("b", ""), ("c", "3")]);
    }

    #[test]
    fn what_is_too_much_or_has_no_name_is_refused() {
        let none = BTreeMap::new();
        let long = "x".repeat(LABEL_LENGTH_MAX);
        assert!(change(&[("a", Some(&long))]).apply(&none).is_ok());
        let longer = format!("{long}x");
        let refused = change(&[("a", Some(&longer))]).apply(&none).unwrap_err();
        assert!(matches!(refused, LabelError::TooLong { length: 8193, .. }));
        let refused = change(&[("a", Some(&long)), ("b", Some(&long))]).apply(&none);
        assert_eq!(refused, Err(LabelError::TooMuch(16386)));
        let names: Vec<String> = (0..=LABELS_MAX).map(|number| format!("l{number}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), Some(""))).collect();
        assert_eq!(change(&many).apply(&none), Err(LabelError::TooMany(17)));
        assert!(matches!(
            change(&[("a b", Some(""))]).apply(&none),
            Err(LabelError::Name(_))
        ));
    }
}
