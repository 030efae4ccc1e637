//! Records in the coordination store: of other versions, of another who writes there, or of nobody.

use std::fmt::Debug;
use std::sync::Arc;

use coordination::records::{
    AuthorityRecord, CounterRecord, DiskRecord, EventRecord, FamilyRecord, GroupRecord, JoinTokenRecord,
    LayerRecord, MoveRecord, NameRecord, NodeRecord, NodeUpRecord, OwnerRecord, PoolRecord, PortalRecord,
    ReservationsRecord, SchemaRecord, SnapshotRecord, TargetRecord, VolumeRecord, decode, encode,
};
use coordination::{Entry, Revision, attach};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One input, read as every record that it could be.
pub(crate) fn run(input: &[u8]) {
    let entry = Entry {
        key: "key".to_owned(),
        value: Arc::from(input),
        created: Revision(1),
        modified: Revision(1),
        lease: None,
    };
    record::<SchemaRecord>(&entry);
    record::<AuthorityRecord>(&entry);
    record::<JoinTokenRecord>(&entry);
    record::<CounterRecord>(&entry);
    record::<NodeRecord>(&entry);
    record::<NodeUpRecord>(&entry);
    record::<DiskRecord>(&entry);
    record::<PoolRecord>(&entry);
    record::<GroupRecord>(&entry);
    record::<FamilyRecord>(&entry);
    record::<LayerRecord>(&entry);
    record::<VolumeRecord>(&entry);
    record::<MoveRecord>(&entry);
    record::<NameRecord>(&entry);
    record::<SnapshotRecord>(&entry);
    record::<OwnerRecord>(&entry);
    record::<EventRecord>(&entry);
    record::<TargetRecord>(&entry);
    record::<PortalRecord>(&entry);
    record::<ReservationsRecord>(&entry);
    record::<attach::AgentRecord>(&entry);
    record::<attach::WantRecord>(&entry);
    record::<attach::HaveRecord>(&entry);
}

/// What is read is written so that it reads back the same.
fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(entry: &Entry) {
    let Ok(read) = decode::<T>(entry) else {
        return;
    };
    let Ok(value) = encode(&read) else {
        return;
    };
    let written = Entry {
        value,
        ..entry.clone()
    };
    assert_eq!(decode::<T>(&written).ok().as_ref(), Some(&read));
}
