//! Kinds of volumes that an operator offers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::instant::Instant;
use super::table::Record;

/// How volumes of a type are encrypted, for those who do it: the compute hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// A UUID.
    pub id: String,
    /// What does it: `luks`, `luks2`, `plain`, or a class of os-brick.
    pub provider: String,
    /// Where it is done: `front-end` or `back-end`.
    pub control_location: String,
    /// As cryptsetup writes it: `aes-xts-plain64`.
    #[serde(default)]
    pub cipher: Option<String>,
    /// In bits.
    #[serde(default)]
    pub key_size: Option<u64>,
    /// When it was said.
    pub created_at: Instant,
    /// When it was changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
}

impl Encryption {
    /// Whether what one encrypts, the other decrypts with the same key.
    pub fn is_like(&self, other: &Self) -> bool {
        (
            &self.provider,
            &self.control_location,
            &self.cipher,
            self.key_size,
        ) == (
            &other.provider,
            &other.control_location,
            &other.cipher,
            other.key_size,
        )
    }
}

/// A volume type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeType {
    /// A UUID.
    pub id: String,
    /// Unique: see [`TypeName`].
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// The projects that may use one that is not public.
    #[serde(default)]
    pub projects: BTreeSet<String>,
    /// What the scheduler and clients go by: `volume_backend_name`, `multiattach` ...
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
    /// Its quality of service.
    #[serde(default)]
    pub qos_id: Option<String>,
    /// How its volumes are encrypted, if they are.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// Whether it is being deleted: no volume gets it any more. Said before anybody looks whether volumes have it, for those
    /// who give it to a volume rely on this record (see [`super::Edit::rely`]).
    #[serde(default)]
    pub deleting: bool,
    /// When it was made.
    pub created_at: Instant,
    /// When it was changed last.
    #[serde(default)]
    pub updated_at: Option<Instant>,
}

impl VolumeType {
    /// Whether a project may use it.
    pub fn is_for(&self, project: &str) -> bool {
        self.is_public || self.projects.contains(project)
    }

    /// Whether an extra specification says yes in the way that schedulers read: `<is> True`.
    pub fn says_yes(&self, key: &str) -> bool {
        let said = self.extra_specs.get(key);
        said.is_some_and(|said| {
            let mut words = said.split_whitespace();
            words.next() == Some("<is>") && words.next().is_some_and(|word| word.eq_ignore_ascii_case("true"))
        })
    }
}

impl Record for VolumeType {
    const KIND: &'static str = "type";

    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> Instant {
        self.created_at
    }
}

/// That a type has a name. Its identity is the name in hexadecimal, so that no two can be made at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeName {
    /// See [`TypeName::key`].
    pub id: String,
    /// The type.
    pub type_id: String,
}

impl TypeName {
    /// The record of a name.
    pub fn new(name: &str, type_id: &str) -> Self {
        Self {
            id: Self::key(name),
            type_id: type_id.to_owned(),
        }
    }

    /// The record of the name of a type of groups: those are names of their own.
    pub fn for_group(name: &str, type_id: &str) -> Self {
        Self {
            id: format!("group-{}", Self::key(name)),
            type_id: type_id.to_owned(),
        }
    }

    /// The identity of a name's record.
    pub fn key(name: &str) -> String {
        super::names::key(name)
    }
}

impl Record for TypeName {
    const KIND: &'static str = "type-name";

    fn id(&self) -> &str {
        &self.id
    }
}

/// The type that a project's volumes get if nobody names one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultType {
    /// The project.
    pub project_id: String,
    /// The type.
    pub type_id: String,
}

impl Record for DefaultType {
    const KIND: &'static str = "default-type";

    fn id(&self) -> &str {
        &self.project_id
    }
}
