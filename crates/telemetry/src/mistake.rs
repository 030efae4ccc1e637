//! What is said of a configuration file that cannot be read: where, and what was expected there, without what stands there.
//! A mistake may be in the line of a password, and logs are read by more people than configurations.

use std::ops::Range;

/// Beginnings of a parser's sentences that go on with the value they found.
const WITH_VALUE: [&str; 2] = ["invalid type: ", "invalid value: "];
/// What such sentences end with.
const EXPECTED: &str = "expected ";

/// "line 4, column 12: expected a string". The place and the sentence are the parser's, the former in bytes of the file.
pub fn mistake(text: &str, place: Option<Range<usize>>, sentence: &str) -> String {
    let is_of_value = WITH_VALUE.iter().any(|beginning| sentence.starts_with(beginning));
    // From the end: what was found may have these words in it, too.
    let told = match sentence.rfind(EXPECTED) {
        Some(at) if is_of_value => sentence.get(at..).unwrap_or_default(),
        None if is_of_value => "there is something else than expected",
        _ => sentence,
    };
    let before = place.and_then(|place| text.get(..place.start));
    before.map_or_else(
        || told.to_owned(),
        |before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}: {told}")
        },
    )
}

#[cfg(test)]
mod tests {
    //! The place is right, and the value is not told.
    use super::*;

    const TEXT: &str = "user = '\u{fc}'\npassword = 12345\n";

    #[test]
    fn a_mistake_is_found_by_its_place() {
        let told = mistake(
            TEXT,
            Some(12..20),
            "unknown field `password`, expected `password_file`",
        );
        assert_eq!(
            told,
            "line 2, column 1: unknown field `password`, expected `password_file`"
        );
        assert_eq!(
            mistake(TEXT, Some(0..4), "duplicate key"),
            "line 1, column 1: duplicate key"
        );
        assert_eq!(
            mistake(TEXT, None, "missing field `records`"),
            "missing field `records`"
        );
        assert_eq!(mistake(TEXT, Some(900..901), "odd"), "odd");
    }

    #[test]
    fn a_value_is_not_told() {
        for (sentence, told) in [
            (
                "invalid type: integer `12345`, expected a string",
                "expected a string",
            ),
            (
                "invalid value: string \"we expected rain\", expected a size",
                "expected a size",
            ),
            (
                "invalid type: string \"12345\"",
                "there is something else than expected",
            ),
        ] {
            assert_eq!(
                mistake(TEXT, Some(23..28), sentence),
                format!("line 2, column 12: {told}")
            );
        }
    }
}
