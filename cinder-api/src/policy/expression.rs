//! The language of oslo.policy: `role:admin or (role:member and project_id:%(project_id)s)`.
//!
//! Checks that this service cannot make (`http:...`, and what asks for things that a request does not have) do not hold.

use crate::identity::Caller;

/// The deepest nesting of an expression.
const DEPTH_MAX: usize = 64;

/// What a rule is checked against.
#[derive(Debug)]
pub struct Target<'a> {
    /// The project of what is asked for; nothing if it is nobody's.
    pub project_id: Option<&'a str>,
    /// Who asks.
    pub caller: &'a Caller,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Always.
    Always,
    /// Never.
    Never,
    /// If all of them hold.
    All(Vec<Expression>),
    /// If one of them holds.
    Any(Vec<Expression>),
    /// If it does not hold.
    Not(Box<Expression>),
    /// A single check: `kind:what`.
    Check(String, String),
}

impl Expression {
    /// Reads one. An empty text always holds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens = tokens(text);
        if tokens.is_empty() {
            return Ok(Self::Always);
        }
        let mut reader = Reader { tokens, at: 0 };
        let expression = reader.any(0)?;
        match reader.peek() {
            None => Ok(expression),
            Some(token) => Err(format!("{token:?} is not expected there")),
        }
    }

    /// Whether it holds; `rule` answers that for other rules.
    pub fn holds(&self, target: &Target<'_>, rule: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::All(parts) => parts.iter().all(|part| part.holds(target, rule)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(target, rule)),
            Self::Not(inner) => !inner.holds(target, rule),
            Self::Check(kind, what) => check(kind, what, target, rule),
        }
    }
}

fn check(kind: &str, what: &str, target: &Target<'_>, rule: &impl Fn(&str) -> bool) -> bool {
    let caller = target.caller;
    let wanted = match what {
        "%(project_id)s" | "%(tenant_id)s" => target.project_id,
        "%(user_id)s" => Some(caller.user_id.as_str()),
        _ if what.starts_with("%(") => None,
        plain => Some(plain),
    };
    match kind {
        "rule" => rule(what),
        "role" => caller.roles.iter().any(|role| role.eq_ignore_ascii_case(what)),
        "project_id" | "tenant_id" => caller.project_id.is_some() && caller.project_id.as_deref() == wanted,
        "user_id" => wanted == Some(caller.user_id.as_str()),
        "is_admin" => what.eq_ignore_ascii_case(if caller.is_admin { "true" } else { "false" }),
        // Every project is one for administrators unless Keystone says that only one is, and then our rules do not ask.
        "is_admin_project" => what.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

fn tokens(text: &str) -> Vec<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    // `%(project_id)s` is one word.
    let joined = spaced.replace("% ( ", "%(").replace(" ) s", ")s");
    joined.split_whitespace().map(str::to_owned).collect()
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn takes(&mut self, token: &str) -> bool {
        let takes = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(token));
        self.at += usize::from(takes);
        takes
    }

    fn any(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = vec![self.all(depth)?];
        while self.takes("or") {
            parts.push(self.all(depth)?);
        }
        Ok(one_of(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = vec![self.single(depth)?];
        while self.takes("and") {
            parts.push(self.single(depth)?);
        }
        Ok(one_of(parts, Expression::All))
    }

    fn single(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested more than {DEPTH_MAX} deep"));
        }
        if self.takes("not") {
            return Ok(Expression::Not(Box::new(self.single(depth + 1)?)));
        }
        if self.takes("(") {
            let inner = self.any(depth + 1)?;
            return if self.takes(")") {
                Ok(inner)
            } else {
                Err("a bracket is not closed".to_owned())
            };
        }
        let Some(token) = self.peek().map(str::to_owned) else {
            return Err("it ends where a check is expected".to_owned());
        };
        self.at += 1;
        match token.as_str() {
            "@" => Ok(Expression::Always),
            "!" => Ok(Expression::Never),
            check => match check.split_once(':') {
                Some((kind, what)) => Ok(Expression::Check(
                    kind.trim_matches(['\'', '"']).to_owned(),
                    what.trim_matches(['\'', '"']).to_owned(),
                )),
                None => Err(format!("{check:?} is no check: write KIND:WHAT")),
            },
        }
    }
}

fn one_of(mut parts: Vec<Expression>, many: impl Fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

#[cfg(test)]
mod tests {
    //! What expressions mean, and which are none.
    use super::*;

    fn holds(text: &str, roles: &[&str], project: &str) -> bool {
        let caller = Caller {
            user_id: "u".to_owned(),
            project_id: Some("p".to_owned()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Caller::default()
        };
        let target = Target {
            project_id: Some(project),
            caller: &caller,
        };
        Expression::parse(text)
            .unwrap()
            .holds(&target, &|rule| rule == "yes")
    }

    #[test]
    fn and_binds_closer_than_or_and_brackets_closest() {
        let rule = "role:admin or (role:member and project_id:%(project_id)s)";
        assert!(holds(rule, &["admin"], "other"));
        assert!(holds(rule, &["Member"], "p"));
        assert!(!holds(rule, &["member"], "other"));
        assert!(holds("role:a or role:b and role:c", &["a"], "p"));
        assert!(!holds("(role:a or role:b) and role:c", &["a"], "p"));
        assert!(holds("not role:a and rule:yes", &[], "p"));
        assert!(!holds("not rule:yes", &[], "p"));
    }

    #[test]
    fn always_never_and_unknown_kinds() {
        assert!(holds("", &[], "p") && holds("@", &[], "p"));
        assert!(!holds("!", &["admin"], "p"));
        assert!(!holds("http://somewhere", &["admin"], "p"));
        assert!(!holds("user_id:%(target.user_id)s", &[], "p"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["role", "(role:a", "role:a or", "role:a role:b", "and role:a", ")"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        assert!(Expression::parse(&"(".repeat(1000)).is_err());
    }
}
