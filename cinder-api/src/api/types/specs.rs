//! Maps of specifications, of types and of their quality of service: keys of few characters, short values.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::request::body::TEXT_MAX;

/// What specifications are kept as.
pub(crate) type Specs = BTreeMap<String, String>;

/// Characters of keys besides letters and digits; where blanks are possible, slashes are, too.
const PUNCTUATION: &str = "-_:.";
const MORE_PUNCTUATION: &str = " /";

/// Checks a map. What is null says nothing.
pub(crate) fn read(map: &Map<String, Value>, blanks: bool) -> Result<Specs, Fault> {
    let mut specs = Specs::new();
    for (key, value) in map {
        check_key(key, blanks)?;
        match value {
            Value::Null => {}
            Value::String(text) if text.chars().count() <= TEXT_MAX => {
                specs.insert(key.clone(), text.clone());
            }
            Value::String(_) => return Err(Fault::field(key, value, "it is too long")),
            other => {
                return Err(Fault::field(
                    key,
                    other,
                    &format!("{other} is not of type 'string'"),
                ));
            }
        }
    }
    Ok(specs)
}

fn check_key(key: &str, blanks: bool) -> Result<(), Fault> {
    let is_known = |character: char| {
        character.is_ascii_alphanumeric()
            || PUNCTUATION.contains(character)
            || blanks && MORE_PUNCTUATION.contains(character)
    };
    let is_good = !key.is_empty() && key.len() <= TEXT_MAX && key.chars().all(is_known);
    if is_good {
        return Ok(());
    }
    Err(Fault::bad_request(format!(
        "Invalid input for field/attribute extra_specs. '{key}' does not match any of the regexes: keys have 1 to {TEXT_MAX} \
         letters, digits and {PUNCTUATION}"
    )))
}

#[cfg(test)]
mod tests {
    //! Which keys and values are possible.
    use serde_json::json;

    use super::*;

    fn read_value(value: &Value, blanks: bool) -> Option<Specs> {
        read(value.as_object().unwrap(), blanks).ok()
    }

    #[test]
    fn keys_are_of_few_characters_and_null_says_nothing() {
        let specs = read_value(
            &json!({"RESKEY:availability_zones": "nova", "a-b.c": null}),
            false,
        )
        .unwrap();
        assert_eq!(specs.len(), 1);
        assert!(read_value(&json!({"two words/x": "1"}), true).is_some());
        for bad in [
            json!({"two words": "1"}),
            json!({"": "1"}),
            json!({"\u{e9}": "1"}),
            json!({"a": 1}),
            json!({"a": "x".repeat(256)}),
            json!({"a".repeat(256): "x"}),
        ] {
            assert_eq!(read_value(&bad, false), None, "{bad}");
        }
    }
}
