//! Pages of listings: `limit`, `marker`, `offset`, `sort` and `sort_key` with `sort_dir`, the link to the next page, and the
//! count of all.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Context, Query};
use crate::fault::Fault;
use crate::records::{Instant, Record, Stored};

/// The most rows of a page; more are not an error, only not given. Cinder's `osapi_max_limit`.
const LIMIT_MAX: usize = 1000;

/// What rows are compared by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    /// Nothing: before everything.
    None,
    /// A number.
    Number(u64),
    /// A moment.
    Moment(Instant),
    /// Text.
    Text(Cow<'a, str>),
}

impl<'a> From<Option<&'a str>> for Key<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::None, |text| Self::Text(text.into()))
    }
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

/// Which page is wanted, in which order.
#[derive(Clone, Debug)]
pub struct Page {
    limit: usize,
    is_limited: bool,
    marker: Option<String>,
    offset: usize,
    /// The keys, and whether each goes downwards.
    sort: Vec<(String, bool)>,
    with_count: bool,
}

/// The rows of a page.
#[derive(Debug)]
pub struct Selected<R> {
    /// The rows, in order.
    pub rows: Vec<Arc<Stored<R>>>,
    /// How many there are in all pages; if that was asked.
    pub count: Option<usize>,
    /// Whether there may be a next page.
    pub is_full: bool,
}

impl Page {
    /// Reads what the query says. `keys` are those that rows can be sorted by.
    pub fn read(query: &Query, keys: &[&str]) -> Result<Self, Fault> {
        let limit = number(query, "limit")?;
        Ok(Self {
            limit: limit.unwrap_or(LIMIT_MAX).min(LIMIT_MAX),
            is_limited: limit.is_some(),
            marker: query.get("marker").map(str::to_owned),
            offset: number(query, "offset")?.unwrap_or(0),
            sort: sort(query, keys)?,
            with_count: false,
        })
    }

    /// Reads what a version says of counting, too.
    pub fn counted(mut self, query: &Query, is_known: bool) -> Result<Self, Fault> {
        self.with_count = is_known && query.boolean("with_count")?.unwrap_or(false);
        Ok(self)
    }

    /// The most rows of the page, for rows that are no records.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What the page comes after.
    pub fn marker(&self) -> Option<&str> {
        self.marker.as_deref()
    }

    /// How many rows after that are left out.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The keys that rows are sorted by, and whether each goes downwards.
    pub fn sort(&self) -> &[(String, bool)] {
        &self.sort
    }

    /// Takes the page from rows that are ordered by their making, oldest first. `key` gives what a row is sorted by.
    pub fn select<'a, R: Record>(
        &self,
        rows: impl DoubleEndedIterator<Item = &'a Arc<Stored<R>>> + Clone,
        keep: impl Fn(&R) -> bool,
        key: impl Fn(&'a R, &str) -> Key<'a>,
    ) -> Result<Selected<R>, Fault> {
        let kept = rows.clone().filter(|row| keep(&row.record));
        let count = self.with_count.then(|| kept.clone().count());
        let is_there = |marker: &String| rows.clone().any(|row| row.id() == marker.as_str());
        if let Some(marker) = &self.marker
            && !is_there(marker)
        {
            return Err(Fault::not_found(format!("Marker {marker} could not be found.")));
        }
        let rows: Vec<_> = match self.sort.as_slice() {
            [(only, downwards)] if only == "created_at" => {
                if *downwards {
                    self.cut(rows.rev(), keep)
                } else {
                    self.cut(rows, keep)
                }
            }
            _ => {
                // What the page comes after need not be kept itself, but has its place.
                let is_marker = |id: &str| self.marker.as_deref() == Some(id);
                let rows = rows.filter(|row| keep(&row.record) || is_marker(row.id()));
                let mut sorted: Vec<_> = rows.collect();
                sorted.sort_by(|one, other| self.compare(&one.record, &other.record, &key));
                self.cut(sorted.into_iter(), keep)
            }
        };
        Ok(Selected {
            is_full: self.is_limited && self.limit > 0 && rows.len() == self.limit || rows.len() == LIMIT_MAX,
            rows,
            count,
        })
    }

    fn cut<'a, R: Record>(
        &self,
        rows: impl Iterator<Item = &'a Arc<Stored<R>>>,
        keep: impl Fn(&R) -> bool,
    ) -> Vec<Arc<Stored<R>>> {
        let mut before = self.marker.is_some();
        let after_marker = rows.skip_while(move |row| {
            let skip = before;
            if before && Some(row.id()) == self.marker.as_deref() {
                before = false;
            }
            skip
        });
        let kept = after_marker.filter(|row| keep(&row.record));
        kept.skip(self.offset).take(self.limit).cloned().collect()
    }

    fn compare<'a, R: Record>(
        &self,
        one: &'a R,
        other: &'a R,
        key: &impl Fn(&'a R, &str) -> Key<'a>,
    ) -> Ordering {
        for (name, downwards) in &self.sort {
            let order = key(one, name).cmp(&key(other, name));
            let order = if *downwards { order.reverse() } else { order };
            if order != Ordering::Equal {
                return order;
            }
        }
        (other.created(), other.id()).cmp(&(one.created(), one.id()))
    }
}

/// The answer: rows under their name, the link to the next page, and the count.
pub fn answer<R: Record>(
    context: &Context,
    query: &Query,
    (name, path): (&str, &str),
    selected: &Selected<R>,
    show: impl Fn(&Stored<R>) -> Value,
) -> Value {
    let rows: Vec<Value> = selected.rows.iter().map(|row| show(row)).collect();
    let mut answer = Map::new();
    if let Some(last) = selected.rows.last().filter(|_| selected.is_full) {
        let others = query
            .0
            .iter()
            .filter(|(key, _)| key != "marker" && key != "offset");
        let marker = ("marker".to_owned(), last.id().to_owned());
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(others.cloned().chain([marker]));
        let pairs = pairs.finish();
        let href = format!("{}?{pairs}", context.link(path));
        answer.insert(format!("{name}_links"), json!([{"rel": "next", "href": href}]));
    }
    answer.insert(name.to_owned(), rows.into());
    if let Some(count) = selected.count {
        answer.insert("count".to_owned(), count.into());
    }
    answer.into()
}

fn number(query: &Query, name: &str) -> Result<Option<usize>, Fault> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i32>() {
        Ok(number) if is_number => Ok(usize::try_from(number).ok()),
        _ => Err(Fault::bad_request(format!(
            "Invalid input for query parameters {name}. Value: {text}. It must be a whole number from 0 up."
        ))),
    }
}

fn sort(query: &Query, keys: &[&str]) -> Result<Vec<(String, bool)>, Fault> {
    let both =
        query.get("sort").is_some() && (query.get("sort_key").is_some() || query.get("sort_dir").is_some());
    if both {
        return Err(Fault::bad_request(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be \
            used with the 'sort' parameter.",
        ));
    }
    let mut sort = Vec::new();
    if let Some(text) = query.get("sort") {
        for wish in text.split(',').map(str::trim).filter(|wish| !wish.is_empty()) {
            let (key, direction) = wish.split_once(':').unwrap_or((wish, "desc"));
            sort.push((key.trim().to_owned(), is_downwards(direction)?));
        }
    } else {
        let key = query.get("sort_key").unwrap_or("created_at").trim();
        sort.push((
            key.to_owned(),
            is_downwards(query.get("sort_dir").unwrap_or("desc"))?,
        ));
    }
    if sort.is_empty() {
        sort.push(("created_at".to_owned(), true));
    }
    for (key, _) in &mut sort {
        // Clients call it by its name in answers, or by that in Cinder's database.
        if key == "name" && !keys.contains(&"name") {
            "display_name".clone_into(key);
        }
        if !keys.contains(&key.as_str()) {
            return Err(Fault::bad_request(format!(
                "Invalid sort key: {key}. Possible are {}.",
                keys.join(", ")
            )));
        }
    }
    Ok(sort)
}

fn is_downwards(direction: &str) -> Result<bool, Fault> {
    match direction.trim() {
        "asc" => Ok(false),
        "desc" => Ok(true),
        other => Err(Fault::bad_request(format!(
            "Invalid sort direction: {other}. Possible are asc and desc."
        ))),
    }
}
