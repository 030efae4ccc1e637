//! Pages of what could be taken over: rows that are no records, by reference or by size.

use serde_json::{Value, json};

use super::{BY_NAME, shown};
use crate::fault::Fault;
use crate::request::Query;
use crate::request::filter::dictionary;
use crate::request::listing::Page;

/// What rows can be sorted by.
pub(super) const SORT_KEYS: &[&str] = &["reference", "size"];

/// Something of the storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Its name there.
    pub(super) name: String,
    /// The volume that it is a snapshot of.
    pub(super) parent: Option<String>,
    /// In GiB.
    pub(super) size: u64,
    /// What it is to OpenStack, if it is something already.
    pub(super) known_as: Option<String>,
    /// Why it cannot be taken over.
    pub(super) obstacle: Option<String>,
}

impl Row {
    pub(super) fn view(&self, with_detail: bool) -> Value {
        let mut view = json!({
            "reference": shown(&self.name),
            "size": self.size,
            "safe_to_manage": self.obstacle.is_none(),
        });
        if let Some(parent) = &self.parent {
            view["source_reference"] = shown(parent);
        }
        if with_detail {
            view["cinder_id"] = json!(self.known_as);
            view["reason_not_safe"] = json!(self.obstacle);
            view["extra_info"] = Value::Null;
        }
        view
    }
}

/// The page that a query asks for.
pub(super) fn page(query: &Query, mut rows: Vec<Row>) -> Result<Vec<Row>, Fault> {
    let mut query = query.clone();
    let is_sorted = query.0.iter().any(|(key, _)| key == "sort" || key == "sort_key");
    if !is_sorted {
        query.0.push(("sort_key".to_owned(), "reference".to_owned()));
    }
    let page = Page::read(&query, SORT_KEYS)?;
    rows.sort_by(|one, other| (&one.name, &one.parent).cmp(&(&other.name, &other.parent)));
    for (key, downwards) in page.sort().iter().rev() {
        rows.sort_by(|one, other| {
            let order = match key.as_str() {
                "size" => one.size.cmp(&other.size),
                _ => one.name.cmp(&other.name),
            };
            if *downwards { order.reverse() } else { order }
        });
    }
    let mut after = 0;
    if let Some(marker) = page.marker() {
        let named = dictionary(marker).and_then(|mut map| map.remove(BY_NAME));
        let named = named.as_deref().unwrap_or(marker);
        let place = rows.iter().position(|row| row.name == named);
        let place = place.ok_or_else(|| Fault::bad_request(format!("marker not found: {marker}")))?;
        after = place + 1;
    }
    let rest = rows.into_iter().skip(after + page.offset());
    Ok(rest.take(page.limit()).collect())
}

#[cfg(test)]
mod tests {
    //! Order, marker and limit.
    use super::*;

    fn names(query: &[(&str, &str)]) -> Option<Vec<String>> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let query = Query(query.iter().map(pair).collect());
        let row = |(name, size): (&str, u64)| Row {
            name: name.to_owned(),
            size,
            ..Row::default()
        };
        let rows = [("b", 1), ("c", 3), ("a", 2)].map(row).to_vec();
        let page = page(&query, rows).ok()?;
        Some(page.into_iter().map(|row| row.name).collect())
    }

    #[test]
    fn rows_are_sorted_and_cut() {
        assert_eq!(names(&[]).unwrap(), ["c", "b", "a"]);
        assert_eq!(names(&[("sort", "reference:asc")]).unwrap(), ["a", "b", "c"]);
        assert_eq!(
            names(&[("sort", "size:asc"), ("limit", "2")]).unwrap(),
            ["b", "a"]
        );
        let after = [("sort", "size:asc"), ("marker", "{'source-name': 'b'}")];
        assert_eq!(names(&after).unwrap(), ["a", "c"]);
        assert_eq!(names(&[("marker", "c"), ("offset", "1")]).unwrap(), ["a"]);
        assert_eq!(names(&[("marker", "d")]), None);
        assert_eq!(names(&[("sort", "colour")]), None);
    }
}
