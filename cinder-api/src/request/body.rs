//! Bodies: JSON objects whose fields are read one by one, each with the rule that it must keep to.
//!
//! The rules and their words are those of Cinder's schemas: clients show the words to people, and tests compare them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde_json::{Map, Value};

use crate::fault::Fault;

/// The longest name, description, metadata value and the like, in characters.
pub const TEXT_MAX: usize = 255;
/// The largest number that any field takes: what Cinder's database holds.
pub const INTEGER_MAX: i64 = 0x7FFF_FFFF;

/// A JSON object.
#[derive(Clone, Debug, Default)]
pub struct Body(pub Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = axum::body::Bytes::from_request(request, state).await;
        // The door has read it whole, and has refused what is too long.
        let bytes = bytes.map_err(|_| Fault::bad_request("The body broke off."))?;
        if bytes.is_empty() {
            return Err(Fault::bad_request(
                "The server could not comply with the request since it is either \
                malformed or otherwise incorrect.",
            ));
        }
        let is_json = kind
            .as_ref()
            .and_then(|kind| kind.to_str().ok())
            .is_none_or(is_json);
        if !is_json {
            return Err(Fault::bad_media_type("Unsupported Content-Type"));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Fault::bad_request("The body is no JSON object.")),
            Err(error) => Err(Fault::bad_request(format!("cannot understand JSON: {error}"))),
        }
    }
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || (kind.starts_with("application/vnd.openstack.volume") && kind.contains("json"))
}

impl Body {
    /// The object in it that has this name.
    pub fn object(&self, name: &str) -> Result<Fields<'_>, Fault> {
        match self.0.get(name) {
            Some(Value::Object(map)) => Ok(Fields(map)),
            Some(other) => Err(Fault::field(name, other, &is_no(other, "object"))),
            None => Err(Fault::bad_request(format!(
                "Invalid input for field/attribute body. '{name}' is a required property"
            ))),
        }
    }

    /// Refuses anything beside these.
    pub fn only(&self, known: &[&str]) -> Result<(), Fault> {
        Fields(&self.0).only(known)
    }

    /// What is to be done, where exactly one key says so, and what stands under it.
    pub fn action(&self) -> Result<(&str, &Value), Fault> {
        let mut entries = self.0.iter();
        match (entries.next(), entries.next()) {
            (Some((name, inside)), None) => Ok((name, inside)),
            _ => Err(Fault::bad_request(
                "There is no such action: the body needs exactly one.",
            )),
        }
    }
}

/// The fields of an object.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// Those of a value; none if it is no object.
    pub fn inside(value: &'a Value) -> Self {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        Self(value.as_object().unwrap_or(&NONE))
    }

    /// The field's value; nothing if it is left out or null.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there, even as null.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses fields that are not among these.
    pub fn only(&self, known: &[&str]) -> Result<(), Fault> {
        let unknown: Vec<String> = (self.0.keys())
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| format!("'{key}'"))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let verb = if unknown.len() == 1 { "was" } else { "were" };
        Err(Fault::bad_request(format!(
            "Additional properties are not allowed ({} {verb} unexpected)",
            unknown.join(", ")
        )))
    }

    /// Refuses an object in which none of these is.
    pub fn any_of(&self, names: &[&str]) -> Result<(), Fault> {
        if names.iter().any(|name| self.has(name)) {
            return Ok(());
        }
        Err(Fault::bad_request(format!(
            "One of these is needed at least: {}.",
            names.join(", ")
        )))
    }

    /// Text of a length in characters, blanks at both ends cut off.
    pub fn text(&self, name: &str, length: std::ops::RangeInclusive<usize>) -> Result<Option<String>, Fault> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let Value::String(text) = value else {
            return Err(Fault::field(name, value, &is_no(value, "string")));
        };
        check_length(name, value, text.chars().count(), &length)?;
        let text = text.trim();
        if text.is_empty() && *length.start() > 0 {
            return Err(Fault::field(name, value, "it is nothing but blanks"));
        }
        Ok(Some(text.to_owned()))
    }

    /// A name or a description: up to [`TEXT_MAX`] characters.
    pub fn short_text(&self, name: &str) -> Result<Option<String>, Fault> {
        self.text(name, 0..=TEXT_MAX)
    }

    /// Text that must be there.
    pub fn required_text(
        &self,
        name: &str,
        length: std::ops::RangeInclusive<usize>,
    ) -> Result<String, Fault> {
        match self.text(name, length)? {
            Some(text) => Ok(text),
            None => Err(self.required(name)),
        }
    }

    /// A whole number, also as digits in a string.
    pub fn integer(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(Fault::field(name, value, &is_no(value, "integer")));
        };
        if number < *range.start() {
            let why = format!("{number} is less than the minimum of {}", range.start());
            return Err(Fault::field(name, value, &why));
        }
        if number > *range.end() {
            let why = format!("{number} is greater than the maximum of {}", range.end());
            return Err(Fault::field(name, value, &why));
        }
        Ok(Some(number))
    }

    /// Yes or no, in any spelling that OpenStack knows.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let said = match value {
            Value::Bool(said) => Some(*said),
            Value::String(text) => boolean(text),
            Value::Number(number) => match number.as_i64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            _ => None,
        };
        said.map(Some)
            .ok_or_else(|| Fault::field(name, value, &is_no(value, "boolean")))
    }

    /// A status by its name, in any case of letters; `parse` knows them.
    pub fn named<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Fault> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let parsed = value.as_str().and_then(|text| parse(&text.to_lowercase()));
        let wrong = || Fault::field(name, value, "there is no such status");
        parsed.map(Some).ok_or_else(wrong)
    }

    /// The `status` in a body, which must be there.
    pub fn status<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
        self.named("status", parse)?
            .ok_or_else(|| self.required("status"))
    }

    /// A UUID.
    pub fn uuid(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) if is_uuid(text) => Ok(Some(text.clone())),
            Some(value) => Err(Fault::field(name, value, &is_no(value, "uuid"))),
        }
    }

    /// A map of short texts: keys of 1 to 255 characters, values of up to 255.
    pub fn metadata(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => metadata(name, map).map(Some),
            Some(value) => Err(Fault::field(name, value, &is_no(value, "object"))),
        }
    }

    /// The refusal of an object without this field.
    pub fn required(&self, name: &str) -> Fault {
        Fault::bad_request(format!(
            "Invalid input for field/attribute {name}. '{name}' is a required property"
        ))
    }
}

/// Checks a map of short texts.
pub fn metadata(name: &str, map: &Map<String, Value>) -> Result<BTreeMap<String, String>, Fault> {
    let mut texts = BTreeMap::new();
    for (key, value) in map {
        let length = key.chars().count();
        if key.trim().is_empty() || length > TEXT_MAX {
            let why = format!("Metadata property key of {length} characters: 1 to {TEXT_MAX} are possible");
            return Err(Fault::bad_request(format!(
                "Invalid input for field/attribute {name}. {why}"
            )));
        }
        let Value::String(text) = value else {
            return Err(Fault::field(key, value, &is_no(value, "string")));
        };
        check_length(key, value, text.chars().count(), &(0..=TEXT_MAX))?;
        texts.insert(key.clone(), text.clone());
    }
    Ok(texts)
}

/// Yes or no, in any spelling that OpenStack knows; nothing if it is neither.
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Whether a text is a UUID: 32 hexadecimal digits, with or without dashes.
pub fn is_uuid(text: &str) -> bool {
    text.len() <= 36 && uuid::Uuid::try_parse(text).is_ok()
}

fn check_length(
    name: &str,
    value: &Value,
    length: usize,
    range: &std::ops::RangeInclusive<usize>,
) -> Result<(), Fault> {
    if length < *range.start() {
        return Err(Fault::field(name, value, "it is too short"));
    }
    if length > *range.end() {
        let why = format!(
            "it has {length} characters, and {} are possible: it is too long",
            range.end()
        );
        return Err(Fault::field(name, value, &why));
    }
    Ok(())
}

fn is_no(value: &Value, kind: &str) -> String {
    match value {
        Value::String(text) => format!("'{text}' is not a '{kind}'"),
        Value::Null => format!("None is not of type '{kind}'"),
        other => format!("{other} is not of type '{kind}'"),
    }
}
