//! What quality-of-service specifications come to for one volume: the limits that the storage keeps to, and what a
//! hypervisor is told. Pure.
//!
//! The arithmetic by size is Cinder's: with `KEY_per_gb` the limit is that times the volume's GiB, at least `KEY_per_gb_min`,
//! and at most `KEY_max`, which then is a ceiling and no burst.

use std::collections::BTreeMap;

use admin_api::limits::{LIMIT_MAX, VolumeLimits};
use serde_json::{Map, Value, json};

use crate::records::qos::QosSpecs;
use crate::records::{Stored, Tables};

/// What may be limited: each also with `_max`, `_per_gb` and `_per_gb_min`.
const LIMITS: [&str; 6] = [
    "read_iops_sec",
    "read_bytes_sec",
    "write_iops_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "total_bytes_sec",
];
/// How many bytes count as one operation.
const SIZE: &str = "size_iops_sec";

/// The specifications of a type.
fn of_type<'a>(tables: &'a Tables, type_id: &str) -> Option<&'a Stored<QosSpecs>> {
    let id = tables.types.get(type_id)?.qos_id.as_ref()?;
    tables.qos.get(id).map(AsRef::as_ref)
}

/// What the storage is to keep to for a volume of a type and of so many GiB. An error says which specification is none that
/// it could.
pub fn limits_of(tables: &Tables, type_id: &str, gib: u64) -> Result<VolumeLimits, String> {
    match of_type(tables, type_id).filter(|qos| qos.consumer.is_for_back_end()) {
        Some(qos) => limits(&qos.specs, gib),
        None => Ok(VolumeLimits::default()),
    }
}

/// What a hypervisor is told of a volume of a type and of so many GiB; nothing if it is to keep to nothing.
pub fn told_of(tables: &Tables, type_id: &str, gib: u64) -> Option<Map<String, Value>> {
    let qos = of_type(tables, type_id).filter(|qos| qos.consumer.is_for_front_end())?;
    Some(told(&qos.specs, gib))
}

/// Refuses what the storage could not keep to, whatever a volume's size is.
pub fn check(qos: &QosSpecs) -> Result<(), String> {
    if qos.consumer.is_for_back_end() {
        limits(&qos.specs, 1)?;
    }
    Ok(())
}

/// A limit by size.
fn by_size(per_gib: u64, gib: u64, least: Option<u64>, most: Option<u64>) -> u64 {
    let value = per_gib.saturating_mul(gib).max(least.unwrap_or(0));
    value.min(most.unwrap_or(u64::MAX))
}

/// The limits that specifications come to. What they do not know they leave to others.
fn limits(specs: &BTreeMap<String, String>, gib: u64) -> Result<VolumeLimits, String> {
    let number = |key: &str| -> Result<Option<u64>, String> {
        let Some(text) = specs.get(key) else {
            return Ok(None);
        };
        let number = text.trim().parse::<u64>().ok();
        let number = number.filter(|number| *number <= LIMIT_MAX);
        let wrong = || format!("{key} is {text:?}, and must be a whole number from 0 to {LIMIT_MAX}");
        number.map(Some).ok_or_else(wrong)
    };
    let mut limits = VolumeLimits::default();
    let mut set = |key: &str, value: Option<u64>| {
        if let Some(limit) = limits.by_name(key) {
            // Of zero libvirt thinks the same.
            *limit = value.filter(|value| *value > 0);
        }
    };
    for key in LIMITS {
        let most_key = format!("{key}_max");
        let (fixed, most) = (number(key)?, number(&most_key)?);
        let least = number(&format!("{key}_per_gb_min"))?;
        if let Some(per_gib) = number(&format!("{key}_per_gb"))? {
            let limit = by_size(per_gib, gib, least, most);
            set(key, Some(limit.min(LIMIT_MAX)));
        } else {
            set(key, fixed);
            set(&most_key, most);
        }
    }
    set(SIZE, number(SIZE)?);
    limits.check().map_err(|error| error.to_string())?;
    Ok(limits)
}

/// What a hypervisor is told: the specifications as they are, but those by size as what they come to. Where that cannot be
/// computed they stay, and the hypervisor says what it thinks of them.
fn told(specs: &BTreeMap<String, String>, gib: u64) -> Map<String, Value> {
    let texts = specs.iter().map(|(key, text)| (key.clone(), json!(text)));
    let mut told: Map<String, Value> = texts.collect();
    for key in LIMITS {
        let [per_gib, least, most] = ["_per_gb", "_per_gb_min", "_max"].map(|end| format!("{key}{end}"));
        let number = |key: &str| match specs.get(key) {
            None => Some(None),
            Some(text) => text.trim().parse::<u64>().ok().map(Some),
        };
        if let (Some(Some(per)), Some(at_least), Some(at_most)) =
            (number(&per_gib), number(&least), number(&most))
        {
            for gone in [per_gib, least, most] {
                told.remove(&gone);
            }
            told.insert(key.to_owned(), json!(by_size(per, gib, at_least, at_most)));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    //! What specifications come to, by Cinder's arithmetic, and what is refused.
    use super::*;

    fn specs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn fixed_limits_and_bursts_are_taken_over_and_what_is_unknown_is_left() {
        let specs = specs(&[
            ("total_iops_sec", "500"),
            ("total_iops_sec_max", "2000"),
            ("read_bytes_sec", " 1048576 "),
            ("write_iops_sec", "0"),
            ("size_iops_sec", "16384"),
            ("total_iops_sec_max_length", "60"),
            ("maxIOPS", "lots"),
        ]);
        let expected = VolumeLimits {
            total_iops_sec: Some(500),
            total_iops_sec_max: Some(2000),
            read_bytes_sec: Some(1 << 20),
            size_iops_sec: Some(16384),
            ..VolumeLimits::default()
        };
        assert_eq!(limits(&specs, 7), Ok(expected));
        let told = told(&specs, 7);
        assert_eq!(told["maxIOPS"], "lots");
        assert_eq!(told["total_iops_sec_max"], "2000");
    }

    #[test]
    fn limits_by_size_have_a_floor_and_a_ceiling() {
        let specs = specs(&[
            ("total_iops_sec_per_gb", "30"),
            ("total_iops_sec_per_gb_min", "100"),
            ("total_iops_sec_max", "1000"),
            ("read_bytes_sec_per_gb", "1024"),
            // Overruled.
            ("read_bytes_sec", "5"),
        ]);
        for (gib, iops) in [(1, 100), (10, 300), (100, 1000)] {
            let limits = limits(&specs, gib).unwrap();
            assert_eq!(limits.total_iops_sec, Some(iops), "{gib}");
            assert_eq!(limits.total_iops_sec_max, None, "a ceiling is no burst");
            assert_eq!(limits.read_bytes_sec, Some(1024 * gib));
            let told = told(&specs, gib);
            let expected = json!({"total_iops_sec": iops, "read_bytes_sec": 1024 * gib});
            assert_eq!(Value::Object(told), expected);
        }
    }

    #[test]
    fn what_is_no_limit_is_refused_in_words_and_told_to_hypervisors_as_it_is() {
        for (key, value) in [
            ("total_iops_sec", "many"),
            ("read_iops_sec", "-1"),
            ("write_bytes_sec", "1.5"),
            ("total_bytes_sec_per_gb", ""),
            ("total_bytes_sec_per_gb_min", "x"),
            ("size_iops_sec", "99999999999999999999"),
        ] {
            let specs = specs(&[(key, value)]);
            let why = limits(&specs, 1).unwrap_err();
            assert!(why.starts_with(key), "{why}");
            assert_eq!(told(&specs, 3)[key], value);
        }
        let burst = limits(&specs(&[("total_iops_sec_max", "5")]), 1).unwrap_err();
        assert!(burst.contains("total_iops_sec"), "{burst}");
    }
}
