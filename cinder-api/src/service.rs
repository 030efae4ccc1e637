//! What every request and every job works with.

use std::sync::Arc;

use axum::extract::State;

use crate::backup::{ObjectStore, Repository};
use crate::config::Settings;
use crate::connections::Connections;
use crate::fault::Fault;
use crate::identity::{Caller, Keystone};
use crate::keys::Keys;
use crate::policy::Policy;
use crate::records::{Backup, Record, Records, Stored, Table};
use crate::request::Context;
use crate::storage::Storage;
use crate::work::Trouble;

/// The service: one a process.
pub struct Service {
    /// What is configured.
    pub settings: Settings,
    /// Who asks.
    pub keystone: Keystone,
    /// Who may do what.
    pub policy: Policy,
    /// What there is.
    pub records: Records,
    /// Where it lies.
    pub storage: Storage,
    /// How hosts reach it.
    pub connections: Connections,
    /// Where backups are kept; nothing if no place is configured.
    pub backups: Option<Repository>,
    /// Where keys of encrypted volumes are; nothing if no key manager is configured.
    pub keys: Option<Keys>,
}

/// How handlers get the service.
pub type Shared = State<Arc<Service>>;

impl Service {
    /// Where backups are kept.
    pub fn backups(&self) -> Result<&Repository, Fault> {
        let none = || {
            Fault::unavailable(
                "No place for backups is configured: an operator sets backups.store and what it needs.",
            )
        };
        self.backups.as_ref().ok_or_else(none)
    }

    /// Where keys of encrypted volumes are.
    pub fn keys(&self) -> Result<&Keys, Fault> {
        let none = || {
            Fault::bad_request(
                "Invalid volume type: volumes of this type are encrypted with a key of their own, and no key manager is known \
                 here: it would be shown as encrypted and would not be. An operator sets keys.manager.",
            )
        };
        self.keys.as_ref().ok_or_else(none)
    }

    /// The objects among which a backup's are.
    pub fn objects_of(&self, backup: &Backup) -> Result<Arc<dyn ObjectStore>, Trouble> {
        Ok(self.backups()?.open(backup.container.as_deref())?)
    }

    /// Refuses what a rule does not let a caller do with things of his own project.
    pub fn check(&self, rule: &str, context: &Context) -> Result<(), Fault> {
        let project = context.caller.project_id.as_deref();
        self.policy.check(rule, &context.caller, project)
    }

    /// Refuses what a rule does not let a caller do with something of a project.
    pub fn check_for(&self, rule: &str, context: &Context, project: &str) -> Result<(), Fault> {
        self.policy.check(rule, &context.caller, Some(project))
    }

    /// Whether a rule lets a caller do something with something of a project.
    pub fn allows(&self, rule: &str, caller: &Caller, project: &str) -> bool {
        self.policy.allows(rule, caller, Some(project))
    }
}

/// Something of a project, if it exists for a caller.
pub fn seen<'a, R: Record>(table: &'a Table<R>, context: &Context, id: &str) -> Option<&'a Arc<Stored<R>>> {
    let is_visible = |project| is_visible(&context.caller, project);
    table
        .get(id)
        .filter(|stored| stored.project().is_some_and(is_visible))
}

/// Whether something of a project exists for a caller: his own project's, and for an administrator everything.
pub fn is_visible(caller: &Caller, project: &str) -> bool {
    caller.is_admin || caller.project_id.as_deref() == Some(project)
}
