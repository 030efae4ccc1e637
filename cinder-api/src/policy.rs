//! Who may do what: Cinder's rules by their names, with what an operator's file says instead of some of them.
//!
//! The language is that of oslo.policy ([`expression`]); the defaults are in [`rules`]. Which rule a request needs is said
//! where the request is handled.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fault::Fault;
use crate::identity::Caller;

pub mod expression;
pub mod rules;

use expression::{Expression, Target};

/// The longest chain of rules that refer to rules: longer ones are circles.
const DEPTH_MAX: usize = 32;

/// All rules.
#[derive(Debug)]
pub struct Policy {
    rules: BTreeMap<String, Expression>,
}

/// Why a policy is none.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is neither JSON nor YAML with a text for each rule.
    #[error("the policy {path} is wrong: {reason}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A rule is none.
    #[error("the policy's rule {name:?} is wrong: {reason}")]
    Rule {
        /// The rule.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl Policy {
    /// The defaults, with the rules of a file instead of those of the same names.
    pub fn load(file: Option<&Path>) -> Result<Self, PolicyError> {
        let mut texts: BTreeMap<String, String> = rules::DEFAULTS
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        if let Some(path) = file {
            texts.extend(read(path)?);
        }
        let mut rules = BTreeMap::new();
        for (name, text) in texts {
            let parsed = Expression::parse(&text);
            let expression = parsed.map_err(|reason| PolicyError::Rule {
                name: name.clone(),
                reason,
            })?;
            rules.insert(name, expression);
        }
        Ok(Self { rules })
    }

    /// Whether a rule lets somebody do something with what belongs to a project, and perhaps to a user.
    pub fn allows(&self, rule: &str, caller: &Caller, project: Option<&str>) -> bool {
        let target = Target {
            project_id: project,
            caller,
        };
        self.holds(rule, &target, 0)
    }

    /// Refuses what a rule does not let somebody do.
    pub fn check(&self, rule: &str, caller: &Caller, project: Option<&str>) -> Result<(), Fault> {
        if self.allows(rule, caller, project) {
            return Ok(());
        }
        Err(Fault::forbidden(format!(
            "Policy doesn't allow {rule} to be performed."
        )))
    }

    fn holds(&self, rule: &str, target: &Target<'_>, depth: usize) -> bool {
        let expression = self.rules.get(rule);
        depth < DEPTH_MAX
            && expression.is_some_and(|expression| {
                expression.holds(target, &|other| self.holds(other, target, depth + 1))
            })
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, PolicyError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read {
        path: shown.clone(),
        source,
    })?;
    // JSON is YAML, too. An empty file, or one with nothing but comments, says nothing.
    let parsed: Result<Option<BTreeMap<String, String>>, _> = serde_yaml_ng::from_str(&text);
    let rules = parsed.map_err(|error| PolicyError::Parse {
        path: shown,
        reason: error.to_string(),
    })?;
    Ok(rules.unwrap_or_default())
}
