//! Records are a stored format: golden bytes, and newer ones are refused in words.
use std::num::NonZeroU64;

use protocol::limits::{DirectionLimits, Rate};

use super::*;
use crate::store::Revision;

/// A record as the store has it, for the tests of all records; its key is that of a volume.
pub(super) fn entry(value: impl AsRef<[u8]>) -> Entry {
    Entry {
        key: "/storaged/volume/0000000000000001".to_owned(),
        value: value.as_ref().into(),
        created: Revision(1),
        modified: Revision(1),
        lease: None,
    }
}

#[test]
fn a_volume_record_keeps_its_golden_bytes() {
    let record = VolumeRecord {
        name: "disk-a".to_owned(),
        family: FamilyId(2),
        head: LayerId(3),
        size: 4096,
        discard_to: None,
        origin: None,
        labels: BTreeMap::new(),
        limits: VolumeLimits::default(),
        created_ms: 5,
        newer: NewerFields::default(),
    };
    let golden = br#"{"format":1,"name":"disk-a","family":2,"head":3,"size":4096,"created_ms":5}"#;
    assert_eq!(&*encode(&record).unwrap(), golden.as_slice());
    assert_eq!(decode::<VolumeRecord>(&entry(golden)).unwrap(), record);
}

#[test]
fn a_volume_record_with_labels_and_limits_keeps_its_golden_bytes() {
    let rate = |per_second, burst| {
        NonZeroU64::new(per_second).map(|per_second| Rate {
            per_second,
            burst: NonZeroU64::new(burst),
        })
    };
    let limits = VolumeLimits {
        operations: DirectionLimits {
            total: rate(500, 2000),
            ..DirectionLimits::default()
        },
        bytes: DirectionLimits {
            read: rate(7, 0),
            write: rate(8, 0),
            ..DirectionLimits::default()
        },
        operation_bytes: NonZeroU64::new(16384),
    };
    let record = VolumeRecord {
        name: "a".to_owned(),
        family: FamilyId(2),
        head: LayerId(3),
        size: 4096,
        discard_to: None,
        origin: None,
        labels: BTreeMap::from([("b".to_owned(), "c\n".to_owned())]),
        limits,
        created_ms: 5,
        newer: NewerFields::default(),
    };
    let golden = concat!(
        r#"{"format":1,"name":"a","family":2,"head":3,"size":4096,"labels":{"b":"c\n"},"limits":{"#,
        r#""operations":{"total":{"per_second":500,"burst":2000}},"#,
        r#""bytes":{"read":{"per_second":7},"write":{"per_second":8}},"operation_bytes":16384},"created_ms":5}"#,
    );
    assert_eq!(&*encode(&record).unwrap(), golden.as_bytes());
    assert_eq!(decode::<VolumeRecord>(&entry(golden.as_bytes())).unwrap(), record);
}

#[test]
fn a_join_token_record_keeps_its_golden_bytes() {
    let mut record = JoinTokenRecord {
        hash: [1; 32],
        node: NodeId(1),
        made_ms: 2,
        expires_ms: 3,
        used: None,
    };
    let hash = vec!["1"; 32].join(",");
    let open = format!(r#"{{"format":1,"hash":[{hash}],"node":1,"made_ms":2,"expires_ms":3}}"#);
    assert_eq!(&*encode(&record).unwrap(), open.as_bytes());
    assert_eq!(
        decode::<JoinTokenRecord>(&entry(open.as_bytes())).unwrap(),
        record
    );
    record.used = Some(JoinUse {
        used_ms: 4,
        name: "b".to_owned(),
        from: "10.0.0.2".to_owned(),
        node: NodeId(5),
    });
    let used = r#","used":{"used_ms":4,"name":"b","from":"10.0.0.2","node":5}}"#;
    let used = format!("{}{used}", open.trim_end_matches('}'));
    assert_eq!(&*encode(&record).unwrap(), used.as_bytes());
}

#[test]
fn an_access_token_record_keeps_its_golden_bytes() {
    let record = AccessTokenRecord {
        name: "pve".to_owned(),
        role: AccessRole::Operator,
        hash: [1; 32],
        node: NodeId(1),
        made_ms: 2,
        expires_ms: 3,
    };
    let hash = vec!["1"; 32].join(",");
    let golden = format!(
        r#"{{"format":1,"name":"pve","role":"operator","hash":[{hash}],"node":1,"made_ms":2,"expires_ms":3}}"#
    );
    assert_eq!(&*encode(&record).unwrap(), golden.as_bytes());
    assert_eq!(
        decode::<AccessTokenRecord>(&entry(golden.as_bytes())).unwrap(),
        record
    );
}

#[test]
fn a_record_of_a_newer_program_is_refused_and_says_so() {
    let newer = FORMAT + 1;
    let text = format!(r#"{{"format":{newer},"ancestors":[1]}}"#);
    let error = decode::<LayerRecord>(&entry(text.as_bytes())).unwrap_err();
    assert!(
        matches!(error, RecordError::Newer { found, .. } if found == newer),
        "{error}"
    );
    assert!(error.to_string().contains("upgrade"), "{error}");
}

#[test]
fn bytes_that_are_no_record_are_refused_and_name_their_key() {
    let error = decode::<LayerRecord>(&entry(b"{")).unwrap_err();
    assert!(error.to_string().contains("/storaged/volume/"), "{error}");
}
