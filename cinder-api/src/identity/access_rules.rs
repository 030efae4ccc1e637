//! Access rules of application credentials: which paths they let through.
//!
//! `*` is one part of a path, `**` any number of parts, `{name}` one part that the rule gives a name.

use super::token::AccessRule;

/// What the service is called in rules.
const SERVICE_TYPES: &[&str] = &["block-storage", "volumev3", "volume", "block-store"];

/// Whether one of the rules lets the request through. `path` is as the client wrote it, without the query.
pub fn lets_through(rules: &[AccessRule], method: &str, path: &str) -> bool {
    rules.iter().any(|rule| {
        SERVICE_TYPES.contains(&rule.service.as_str())
            && rule.method.eq_ignore_ascii_case(method)
            && fits(&parts(&rule.path), &parts(path))
    })
}

fn parts(path: &str) -> Vec<&str> {
    path.trim_matches('/').split('/').collect()
}

fn fits(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => {
            (0..=path.len()).any(|skip| path.get(skip..).is_some_and(|path| fits(rest, path)))
        }
        Some((first, rest)) => path.split_first().is_some_and(|(part, more)| {
            let is_open = *first == "*" || (first.starts_with('{') && first.ends_with('}'));
            (is_open || first == part) && fits(rest, more)
        }),
    }
}

#[cfg(test)]
mod tests {
    //! The three kinds of open places, and that nothing else is let through.
    use super::*;

    fn rule(method: &str, path: &str) -> AccessRule {
        AccessRule {
            service: "block-storage".to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn open_places_are_filled_and_nothing_more() {
        let rules = [rule("GET", "/v3/*/volumes/{id}"), rule("GET", "/v3/types/**")];
        assert!(lets_through(&rules, "GET", "/v3/abc/volumes/1"));
        assert!(!lets_through(&rules, "GET", "/v3/abc/volumes"));
        assert!(!lets_through(&rules, "POST", "/v3/abc/volumes/1"));
        assert!(!lets_through(&rules, "GET", "/v3/abc/volumes/1/metadata"));
        assert!(lets_through(&rules, "GET", "/v3/types"));
        assert!(lets_through(&rules, "GET", "/v3/types/1/extra_specs"));
        assert!(!lets_through(&[], "GET", "/v3/types"));
    }

    #[test]
    fn rules_of_other_services_let_nothing_through() {
        let mut other = rule("GET", "/v3/**");
        other.service = "compute".to_owned();
        assert!(!lets_through(&[other], "GET", "/v3/types"));
    }
}
