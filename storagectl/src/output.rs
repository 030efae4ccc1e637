//! What the user sees: tables and sentences for people, or the API's answer as JSON for programs.

use std::io::Write;

use admin_api::sizes::format_size;
use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// How to show an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables and sentences.
    People,
    /// JSON, as the API gave it.
    Json,
}

impl Form {
    /// Shows `answer` as JSON, or the text that `render` makes of it.
    pub(crate) fn show<A: Serialize>(self, answer: &A, render: impl FnOnce(&A) -> String) -> Result<()> {
        match self {
            Self::Json => line(&serde_json::to_string_pretty(answer)?),
            Self::People => line(&render(answer)),
        }
    }

    /// Shows one of many answers: JSON on one line each, so that a reader can split them.
    pub(crate) fn show_one_of_many<A: Serialize>(
        self,
        answer: &A,
        render: impl FnOnce(&A) -> String,
    ) -> Result<()> {
        match self {
            Self::Json => line(&serde_json::to_string(answer)?),
            Self::People => line(&render(answer)),
        }
    }

    /// A sentence for people; programs read the status.
    pub(crate) fn say(self, sentence: &str) -> Result<()> {
        match self {
            Self::Json => Ok(()),
            Self::People => line(sentence),
        }
    }
}

/// Prints a line. Unlike `println`, it returns an error when the reader went away.
pub(crate) fn line(text: &str) -> Result<()> {
    if !text.is_empty() {
        writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    }
    Ok(())
}

/// A table without lines: columns in capitals, those named in `numbers` flush right.
pub(crate) fn table<const COLUMNS: usize>(
    columns: [&str; COLUMNS],
    numbers: &[&str],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(columns.map(str::to_uppercase));
    table.add_rows(rows);
    for (position, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(position) {
            column.set_padding((u16::from(position > 0), 1));
            if numbers.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The properties of one thing: a line each, the names flush left.
pub(crate) fn properties(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows.iter().filter(|(_, value)| !value.is_empty());
    lines
        .map(|(name, value)| format!("{name:<width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A sentence, and a line for each thing that the asker should know besides.
pub(crate) fn with_notes(sentence: String, notes: &[String]) -> String {
    let notes = notes.iter().map(|note| format!("note: {note}"));
    std::iter::once(sentence)
        .chain(notes)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A size with its bytes: `10 GiB (10737418240 bytes)`.
pub(crate) fn exact_size(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", format_size(bytes))
}

/// What stands where nobody knows: not a zero.
pub(crate) const UNKNOWN: &str = "-";

/// Something that may not be known.
pub(crate) fn known<T>(amount: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    amount.map_or_else(|| UNKNOWN.to_owned(), shown)
}

/// A share as a percentage, without a fraction; of what is known.
pub(crate) fn share(part: Option<u64>, whole: Option<u64>) -> String {
    known(part.zip(whole), |(part, whole)| percent(part, whole))
}

/// A share as a percentage, without a fraction.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let share = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{share} %")
}

#[cfg(test)]
mod tests {
    //! The layout that people's eyes and simple scripts rely on.
    use super::*;

    #[test]
    fn a_table_has_capital_headings_and_no_trailing_spaces() {
        let rows = [
            ["db".to_owned(), "10 GiB".to_owned()],
            ["database-2".to_owned(), "1 TiB".to_owned()],
        ];
        let text = table(["name", "size"], &["size"], rows);
        assert_eq!(text, "NAME          SIZE\ndb          10 GiB\ndatabase-2   1 TiB");
        assert_eq!(table(["name"], &[], []), "NAME");
    }

    #[test]
    fn properties_without_a_value_are_left_out() {
        let text = properties(&[
            ("name", "db".into()),
            ("origin", String::new()),
            ("size", exact_size(4096)),
        ]);
        assert_eq!(text, "name    db\nsize    4 KiB (4096 bytes)");
    }

    #[test]
    fn a_share_of_nothing_is_no_division_by_zero() {
        assert_eq!(percent(0, 0), "0 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100 %");
    }
}
