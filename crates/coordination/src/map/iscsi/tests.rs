//! A gateway that waits is woken by what concerns it, and by nothing else.

use protocol::{FamilyId, LayerId};

use super::*;
use crate::records::{
    CredentialsRecord, LunRecord, NameRecord, NewerFields, SecretRecord, VolumeRecord, decode, encode,
};
use crate::store::Range;

const NAME: &str = "iqn.2026-11.org.example:a";
const VOLUME: VolumeId = VolumeId(7);

fn entry(key: &Key, at: u64, record: &impl serde::Serialize) -> Entry {
    Entry {
        key: key.to_text(),
        value: encode(record).unwrap(),
        created: Revision(at),
        modified: Revision(at),
        lease: None,
    }
}

fn target(at: u64) -> Entry {
    let lun = LunRecord {
        number: 0,
        volume: VOLUME,
        read_only: false,
        block_size: 512,
    };
    let record = TargetRecord {
        luns: vec![lun],
        access: Vec::new(),
        mutual: None,
        created_ms: 1,
        newer: NewerFields::default(),
    };
    entry(&Key::IscsiTarget(NAME.to_owned()), at, &record)
}

/// The same with a secret of its own.
fn target_with(at: u64, secret: SecretRecord) -> Entry {
    let mut record: TargetRecord = decode(&target(at)).unwrap();
    let user = "t".to_owned();
    record.mutual = Some(CredentialsRecord { user, secret });
    Entry {
        value: record.encode().unwrap(),
        ..target(at)
    }
}

fn note(at: u64) -> Entry {
    let target = NAME.to_owned();
    entry(&Key::IscsiLun(VOLUME), at, &LunOfRecord { target, number: 0 })
}

fn portal(at: u64) -> Entry {
    let record = PortalRecord {
        addresses: vec!["127.0.0.1:3260".to_owned()],
        since_ms: 1,
    };
    entry(&Key::IscsiPortal(NodeId(1), 1), at, &record)
}

fn volume(at: u64, id: VolumeId, name: &str) -> Entry {
    let record = VolumeRecord {
        name: name.to_owned(),
        family: FamilyId(1),
        head: LayerId(at),
        size: 4096,
        discard_to: None,
        origin: None,
        labels: std::collections::BTreeMap::new(),
        limits: protocol::limits::VolumeLimits::default(),
        created_ms: 1,
        newer: NewerFields::default(),
    };
    entry(&Key::Volume(id), at, &record)
}

fn name(at: u64, id: VolumeId, name: &str) -> Entry {
    entry(&Key::VolumeName(name.to_owned()), at, &NameRecord { id: id.0 })
}

fn start() -> ClusterMap {
    let entries = vec![
        target(1),
        note(1),
        volume(1, VOLUME, "disk"),
        name(1, VOLUME, "disk"),
    ];
    let revision = Revision(10);
    ClusterMap::build(&Range { entries, revision }).unwrap()
}

fn after(map: &ClusterMap, at: u64, events: Vec<Event>) -> ClusterMap {
    let revision = Revision(at);
    map.apply(&Batch { revision, events }).unwrap()
}

#[test]
fn what_gateways_serve_moves_on_with_targets_portals_and_names() {
    let map = start();
    assert_eq!(map.iscsi().revision(), Revision(10));
    assert_eq!(map.iscsi().lun_of(VOLUME).unwrap().record.target, NAME);
    let map = after(&map, 11, vec![Event::Put(portal(11))]);
    assert_eq!(map.iscsi().revision(), Revision(11));
    let renamed = vec![
        Event::Put(volume(12, VOLUME, "other")),
        Event::Deleted(Key::VolumeName("disk".to_owned()).to_text()),
        Event::Put(name(12, VOLUME, "other")),
    ];
    let map = after(&map, 12, renamed);
    assert_eq!(map.iscsi().revision(), Revision(12));
    let gone = Event::Deleted(Key::IscsiPortal(NodeId(1), 1).to_text());
    let map = after(&map, 13, vec![gone]);
    assert_eq!(
        (map.iscsi().revision(), map.iscsi().portals().count()),
        (Revision(13), 0)
    );
}

#[test]
fn what_is_none_of_the_gateways_business_does_not_wake_them() {
    let map = start();
    let other = VolumeId(8);
    let made = vec![
        Event::Put(volume(11, other, "new")),
        Event::Put(name(11, other, "new")),
    ];
    let map = after(&map, 11, made);
    let map = after(&map, 12, vec![Event::Put(volume(12, VOLUME, "disk"))]);
    let record = ReservationsRecord::default();
    let reserved = entry(&Key::IscsiReservation(VOLUME), 13, &record);
    let map = after(&map, 13, vec![Event::Put(reserved)]);
    assert_eq!(map.iscsi().revision(), Revision(10));
    assert_eq!(map.reservations(VOLUME).unwrap().modified, Revision(13));
}

#[test]
fn a_map_that_was_read_at_once_equals_one_that_followed() {
    let followed = after(&start(), 11, vec![Event::Put(portal(11))]);
    let entries = vec![
        target(1),
        note(1),
        volume(1, VOLUME, "disk"),
        name(1, VOLUME, "disk"),
        portal(11),
    ];
    let read = ClusterMap::build(&Range {
        entries,
        revision: Revision(11),
    });
    assert_eq!(read.unwrap(), followed);
}

#[test]
fn targets_and_reservations_are_remembered_and_portals_are_not() {
    let map = after(&start(), 11, vec![Event::Put(portal(11))]);
    let reserved = entry(&Key::IscsiReservation(VOLUME), 12, &ReservationsRecord::default());
    let map = after(&map, 12, vec![Event::Put(reserved)]);
    let records = map.records().unwrap();
    assert_eq!(
        records[&Key::IscsiTarget(NAME.to_owned()).to_text()].value,
        target(1).value
    );
    assert!(records.contains_key(&Key::IscsiLun(VOLUME).to_text()));
    assert!(records.contains_key(&Key::IscsiReservation(VOLUME).to_text()));
    assert!(!records.keys().any(|key| key.contains("iscsi-portal")));
    assert!(map.was_used_since(Revision(11)) && !map.was_used_since(Revision(12)));
}

/// What a process remembers is put back into a store that was restored: older programs must refuse it there, too.
#[test]
fn a_target_is_remembered_in_the_format_that_it_has() {
    let word = || "AQ==".to_owned();
    for secret in [SecretRecord::Clear(word()), SecretRecord::Sealed(word())] {
        let kept = target_with(1, secret);
        let (entries, revision) = (vec![kept.clone()], Revision(10));
        let map = ClusterMap::build(&Range { entries, revision }).unwrap();
        assert_eq!(map.records().unwrap()[&kept.key].value, kept.value);
    }
}
