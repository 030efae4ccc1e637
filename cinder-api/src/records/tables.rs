//! All kinds of records together, and how a key of the store finds its table.

use coordination::{Entry, Event, Revision};

use super::attachment::Attachment;
use super::backup::Backup;
use super::group::{Group, GroupSnapshot, GroupType};
use super::image::ImageCopy;
use super::job::Job;
use super::managed::Managed;
use super::message::Message;
use super::qos::{QosName, QosSpecs};
use super::quota::{Limits, Usage};
use super::service::Service;
use super::snapshot::Snapshot;
use super::table::{Record, Table};
use super::transfer::Transfer;
use super::volume::Volume;
use super::volume_type::{DefaultType, TypeName, VolumeType};

/// What all keys of cinder-api begin with. Part of the stored format.
pub const ROOT: &str = "/storaged/cinder/";
/// Written by each transaction: the one that wrote it last is the newest. Its value is empty.
pub const LAST: &str = "/storaged/cinder/last";
/// The format of all records.
pub const FORMAT: &str = "/storaged/cinder/format";
/// Which process carries a job out: goes away with that process's lease. Not in memory.
pub const CLAIMS: &str = "/storaged/cinder/claim/";
/// Which processes there are, by names of their own choice: each goes away with the process's lease. Not in memory.
pub const PROCESSES: &str = "/storaged/cinder/process/";

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the record {key} cannot be read: {source}. Was it written by a newer cinder-api?")]
pub struct RecordError {
    /// Where it lies.
    key: String,
    /// What is wrong with it.
    source: serde_json::Error,
}

/// The key of a record.
pub fn key<R: Record>(id: &str) -> String {
    format!("{ROOT}{}/{id}", R::KIND)
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $record:ty),* $(,)?) => {
        /// All records.
        #[derive(Debug, Default)]
        pub struct Tables {
            /// How far it is: everything up to this transaction is in it.
            pub revision: Revision,
            $($(#[$doc])* pub $name: Table<$record>,)*
        }

        $(impl Keeps<$record> for Tables {
            fn table(&self) -> &Table<$record> {
                &self.$name
            }
        })*

        impl Tables {
            /// How many records there are of each kind.
            pub fn counts(&self) -> Vec<(&'static str, usize)> {
                vec![$((<$record>::KIND, self.$name.len()),)*]
            }

            fn put(&mut self, kind: &str, entry: &Entry) -> Result<(), serde_json::Error> {
                match kind {
                    $(<$record>::KIND => {
                        self.$name.put(serde_json::from_slice(&entry.value)?, entry.modified);
                    })*
                    _ => {}
                }
                Ok(())
            }

            fn remove(&mut self, kind: &str, id: &str) {
                match kind {
                    $(<$record>::KIND => self.$name.remove(id),)*
                    _ => {}
                }
            }
        }
    };
}

/// That a kind of records is among the tables.
pub trait Keeps<R> {
    /// All of that kind.
    fn table(&self) -> &Table<R>;
}

tables! {
    /// Volumes.
    volumes: Volume,
    /// Snapshots; a snapshot's parent is its volume.
    snapshots: Snapshot,
    /// Attachments; an attachment's parent is its volume.
    attachments: Attachment,
    /// Volume types.
    types: VolumeType,
    /// Which type has a name.
    type_names: TypeName,
    /// The types that projects get without asking.
    default_types: DefaultType,
    /// Quality of service.
    qos: QosSpecs,
    /// Which quality of service has a name.
    qos_names: QosName,
    /// Which volumes of the storage were taken over.
    managed: Managed,
    /// What projects may have.
    limits: Limits,
    /// What projects have.
    usages: Usage,
    /// Offers of volumes to other projects; a transfer's parent is its volume.
    transfers: Transfer,
    /// Kinds of groups.
    group_types: GroupType,
    /// Groups; a group's parent is its type.
    groups: Group,
    /// Snapshots of groups; such a snapshot's parent is its group.
    group_snapshots: GroupSnapshot,
    /// Backups; a backup's parent is the one that it is the difference to.
    backups: Backup,
    /// Copies of images in the storage.
    image_copies: ImageCopy,
    /// What users should know.
    messages: Message,
    /// Switches of services.
    services: Service,
    /// What is to be done; a job's parent is what it is about.
    jobs: Job,
}

impl Tables {
    /// Takes over a record as it is in the store.
    pub(super) fn load(&mut self, entry: &Entry) -> Result<(), RecordError> {
        let Some((kind, _)) = parts(&entry.key) else {
            return Ok(());
        };
        self.put(kind, entry).map_err(|source| RecordError {
            key: entry.key.clone(),
            source,
        })
    }

    /// Takes over a change.
    pub(super) fn apply(&mut self, event: &Event) -> Result<(), RecordError> {
        match event {
            Event::Put(entry) => self.load(entry)?,
            Event::Deleted(key) => {
                if let Some((kind, id)) = parts(key) {
                    self.remove(kind, id);
                }
            }
        }
        Ok(())
    }
}

fn parts(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(ROOT)?.split_once('/')
}
