//! Filters of listings: which names count for whom, and how values compare.

use std::collections::BTreeMap;

use super::{Context, Query};
use crate::fault::Fault;
use crate::records::Instant;

/// Names in queries that are no filters.
const NOT_FILTERS: &[&str] = &[
    "limit",
    "marker",
    "offset",
    "sort",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "with_count",
];

/// A filter: a name, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is compared.
    pub name: String,
    /// With what.
    pub value: String,
    /// Whether it is enough that the value is in it (`name~=part`).
    pub is_like: bool,
}

impl Filter {
    /// Whether a text is what is wanted.
    pub fn fits(&self, text: &str) -> bool {
        if self.is_like {
            text.contains(&self.value)
        } else {
            text == self.value
        }
    }

    /// Whether a text is there and is what is wanted.
    pub fn fits_some(&self, text: Option<&str>) -> bool {
        text.is_some_and(|text| self.fits(text))
    }

    /// Whether something is as wanted that is true or false.
    pub fn fits_truth(&self, truth: bool) -> bool {
        super::body::boolean(&self.value) == Some(truth)
    }

    /// Whether all pairs that are wanted are there: `{'key': 'value'}`.
    pub fn fits_metadata(&self, metadata: &BTreeMap<String, String>) -> bool {
        let Some(wanted) = dictionary(&self.value) else {
            return false;
        };
        wanted.iter().all(|(key, value)| metadata.get(key) == Some(value))
    }

    /// Whether a moment is as wanted: `gt:2026-11-28T00:00:00,lt:...`. What cannot be read fits nothing: see
    /// [`Filter::check_moments`].
    pub fn fits_moment(&self, moment: Option<Instant>) -> bool {
        let Some(moment) = moment else {
            return false;
        };
        self.value.split(',').all(|part| match comparison(part) {
            Some((operator, other)) => match operator {
                "gt" => moment > other,
                "gte" => moment >= other,
                "eq" => moment == other,
                "neq" => moment != other,
                "lt" => moment < other,
                "lte" => moment <= other,
                _ => false,
            },
            None => false,
        })
    }

    /// Refuses a moment that cannot be read.
    pub fn check_moments(&self) -> Result<(), Fault> {
        let bad = self.value.split(',').find(|part| comparison(part).is_none());
        match bad {
            None => Ok(()),
            Some(part) => Err(Fault::bad_request(format!(
                "Invalid {}: {part} is neither a time nor a comparison such as gt:2026-11-28T00:00:00.",
                self.name
            ))),
        }
    }
}

fn comparison(part: &str) -> Option<(&str, Instant)> {
    let part = part.trim();
    match part.split_once(':') {
        Some((operator @ ("gt" | "gte" | "eq" | "neq" | "lt" | "lte"), moment)) => {
            Some((operator, Instant::parse(moment)?))
        }
        _ => Some(("eq", Instant::parse(part)?)),
    }
}

/// All filters of a query, whoever asks: for listings that never refused one.
pub fn any(query: &Query) -> Vec<Filter> {
    let are_filters = query
        .0
        .iter()
        .filter(|(key, _)| !NOT_FILTERS.contains(&key.as_str()));
    let read = |(key, value): &(String, String)| Filter {
        name: key.clone(),
        value: value.clone(),
        is_like: false,
    };
    are_filters.map(read).collect()
}

/// The filters of a query. `known` are those that everybody may use; an administrator may use any. From 3.31 others are
/// refused, before they do nothing.
pub fn filters(context: &Context, query: &Query, known: &[&str]) -> Result<Vec<Filter>, Fault> {
    let mut filters = Vec::new();
    for (key, value) in &query.0 {
        if NOT_FILTERS.contains(&key.as_str()) {
            continue;
        }
        let (name, is_like) = match key.strip_suffix('~') {
            Some(name) if context.version.is(34) => (name, true),
            _ => (key.as_str(), false),
        };
        if context.caller.is_admin || known.contains(&name) {
            filters.push(Filter {
                name: name.to_owned(),
                value: value.clone(),
                is_like,
            });
        } else if context.version.is(31) {
            return Err(Fault::bad_request(format!(
                "Invalid filters {name} are found in query options."
            )));
        }
    }
    Ok(filters)
}

/// Reads a map of texts as clients write it: JSON, or as Python prints it.
pub fn dictionary(text: &str) -> Option<BTreeMap<String, String>> {
    if let Ok(map) = serde_json::from_str(text) {
        return Some(map);
    }
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut words = Words(inside.trim());
    let mut map = BTreeMap::new();
    while !words.0.is_empty() {
        let key = words.word()?;
        words.token(':')?;
        map.insert(key, words.word()?);
        if words.token(',').is_none() && !words.0.is_empty() {
            return None;
        }
    }
    Some(map)
}

struct Words<'a>(&'a str);

impl Words<'_> {
    fn token(&mut self, token: char) -> Option<()> {
        self.0 = self.0.strip_prefix(token)?.trim_start();
        Some(())
    }

    /// A text in quotes of either kind, with an optional `u` before them; or a bare word.
    fn word(&mut self) -> Option<String> {
        let quoted = self
            .0
            .strip_prefix('u')
            .filter(|rest| rest.starts_with(['\'', '"']));
        let rest = quoted.unwrap_or(self.0);
        let Some(quote) = rest.chars().next().filter(|first| matches!(first, '\'' | '"')) else {
            let end = rest.find([',', ':']).unwrap_or(rest.len());
            let word = rest.get(..end)?.trim().to_owned();
            self.0 = rest.get(end..)?;
            return Some(word);
        };
        let mut word = String::new();
        let mut characters = rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.0 = rest.get(at + 1..)?.trim_start();
                return Some(word);
            }
            if character == '\\' {
                word.push(characters.next()?.1);
            } else {
                word.push(character);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    //! Maps in both spellings, moments with operators.
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn maps_are_read_as_python_and_as_json_write_them() {
        assert_eq!(dictionary("{'a': 'b'}"), Some(map(&[("a", "b")])));
        assert_eq!(
            dictionary(r#"{"a": "b", "c": "d"}"#),
            Some(map(&[("a", "b"), ("c", "d")]))
        );
        assert_eq!(
            dictionary(r#"{u'it\'s': "x, y", 'k': ''}"#),
            Some(map(&[("it's", "x, y"), ("k", "")]))
        );
        assert_eq!(dictionary("{}"), Some(map(&[])));
        for text in ["", "a", "{'a'}", "{'a': 'b'", "{'a': 'b' 'c': 'd'}", "{'a: 'b'}"] {
            assert_eq!(dictionary(text), None, "{text}");
        }
    }

    #[test]
    fn moments_are_compared_as_the_operator_says() {
        let moment = Instant::parse("2026-11-28T05:00:00");
        let filter = |value: &str| Filter {
            name: "created_at".to_owned(),
            value: value.to_owned(),
            is_like: false,
        };
        assert!(filter("gt:2026-11-27,lt:2026-11-29").fits_moment(moment));
        assert!(!filter("gt:2026-11-29").fits_moment(moment));
        assert!(filter("2026-11-28T05:00:00").fits_moment(moment));
        assert!(filter("neq:2026-11-28").fits_moment(moment));
        assert!(filter("soon").check_moments().is_err());
        assert!(filter("gte:2026-11-28T05:00:00").check_moments().is_ok());
    }
}
