//! What the storage is and can do, as schedulers of OpenStack see it: operators look at it, and types ask for it by their
//! extra specifications.

use std::collections::BTreeMap;

use admin_api::pools::Pool;
use serde_json::{Map, Value, json};

use crate::config::Settings;
use crate::records::Tables;
use crate::records::service::Service as Switches;
use crate::request::body::boolean;
use crate::storage::GIB;

/// Who makes the storage.
pub const VENDOR: &str = "storaged";
/// How hosts reach it.
pub const PROTOCOL: &str = "iSCSI";
/// What scheduling of volumes is called as a service.
pub const VOLUME_BINARY: &str = "cinder-volume";
/// What making backups is called as a service.
pub const BACKUP_BINARY: &str = "cinder-backup";
/// The only scope of an extra specification that is compared with capabilities; others are somebody else's business.
const SCOPE: &str = "capabilities";

/// What the storage is called as a service's host.
pub fn backend(settings: &Settings) -> String {
    format!("{}@{}", settings.host, settings.backend_name)
}

/// Whether nothing new is to go to the storage, because an operator said so.
pub fn is_closed(settings: &Settings, tables: &Tables) -> bool {
    let key = Switches::key(VOLUME_BINARY, &backend(settings));
    let switches = tables.services.get(&key);
    switches.is_some_and(|switches| switches.disabled || switches.frozen)
}

/// Whether no backups are to be made, because an operator said so.
pub fn makes_no_backups(settings: &Settings, tables: &Tables) -> bool {
    let key = Switches::key(BACKUP_BINARY, &settings.host);
    let switches = tables.services.get(&key);
    switches.is_some_and(|switches| switches.disabled)
}

/// What every pool has in common.
pub fn common(settings: &Settings) -> Map<String, Value> {
    let values = json!({
        "volume_backend_name": settings.backend_name,
        "vendor_name": VENDOR,
        "driver_version": env!("CARGO_PKG_VERSION"),
        "storage_protocol": PROTOCOL,
        "reserved_percentage": 0,
        "max_over_subscription_ratio": "20.0",
        "thin_provisioning_support": true,
        "thick_provisioning_support": false,
        "thin_provisioning": true,
        "QoS_support": true,
        "multiattach": true,
        "cacheable": true,
        "online_extend_support": true,
        "consistent_group_snapshot_enabled": true,
        "replication_enabled": false,
        "backend_state": "up",
    });
    match values {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What a pool is and can do.
pub fn of_pool(settings: &Settings, pool: &Pool) -> Map<String, Value> {
    let mut values = common(settings);
    let mut set = |name: &str, value: Value| {
        values.insert(name.to_owned(), value);
    };
    set("pool_name", json!(pool.name));
    set("total_capacity_gb", capacity(pool.total));
    set("free_capacity_gb", capacity(pool.available));
    set("provisioned_capacity_gb", gib(pool.provisioned));
    set("total_volumes", json!(pool.volumes));
    values
}

/// Bytes in GiB, in hundredths.
fn gib(bytes: u64) -> Value {
    let hundredths = u128::from(bytes) * 100 / u128::from(GIB);
    // Beyond 2^53 hundredths, which are 80 exabytes, a digit is lost.
    #[expect(clippy::cast_precision_loss)]
    let value = hundredths as f64 / 100.0;
    json!(value)
}

fn capacity(bytes: Option<u64>) -> Value {
    bytes.map_or_else(|| json!("unknown"), gib)
}

/// Whether capabilities are what a type's extra specifications ask for.
pub fn fit(capabilities: &Map<String, Value>, specs: &BTreeMap<String, String>) -> bool {
    specs.iter().all(|(key, wanted)| {
        let name = match key.split_once(':') {
            None => key.as_str(),
            Some((SCOPE, name)) => name,
            Some(_) => return true,
        };
        match capabilities.get(name) {
            // Protocols are known by names in any case of letters.
            Some(Value::String(protocol)) if name == "storage_protocol" => {
                is_wanted(&json!(protocol.to_lowercase()), &wanted.to_lowercase())
            }
            Some(value) => is_wanted(value, wanted),
            None => false,
        }
    })
}

/// Whether a value is what is asked for: a text to be equal to, or an operator and what it compares with.
fn is_wanted(value: &Value, wanted: &str) -> bool {
    let mut words = wanted.split_whitespace();
    let operator = words.next().unwrap_or_default();
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if operator == "<or>" {
        let choices = wanted.split("<or>").map(str::trim);
        return choices
            .filter(|choice| !choice.is_empty())
            .any(|choice| choice == text);
    }
    let operand = words.next();
    let (Some(operand), true) = (operand, OPERATORS.contains(&operator)) else {
        return match value {
            Value::Bool(truth) => boolean(wanted) == Some(*truth),
            _ => text == wanted,
        };
    };
    let numbers = || Some((text.parse::<f64>().ok()?, operand.parse::<f64>().ok()?));
    let compare = |holds: fn(f64, f64) -> bool| numbers().is_some_and(|(one, other)| holds(one, other));
    match operator {
        "<is>" => boolean(&text).unwrap_or(false) == boolean(operand).unwrap_or(false),
        "<in>" => text.contains(operand),
        "s==" => text == operand,
        "s!=" => text != operand,
        "s<" => text.as_str() < operand,
        "s<=" => text.as_str() <= operand,
        "s>" => text.as_str() > operand,
        "s>=" => text.as_str() >= operand,
        "==" => compare(|one, other| one.total_cmp(&other).is_eq()),
        "!=" => compare(|one, other| one.total_cmp(&other).is_ne()),
        "<=" => compare(|one, other| one <= other),
        // "=" is an old word for "at least".
        _ => compare(|one, other| one >= other),
    }
}

/// The words that compare.
const OPERATORS: &[&str] = &[
    "=", "<in>", "<is>", "==", "!=", ">=", "<=", "s==", "s!=", "s<", "s<=", "s>", "s>=",
];

#[cfg(test)]
mod tests {
    //! What types can ask for.
    use super::*;

    fn fits(key: &str, wanted: &str) -> bool {
        let capabilities = json!({
            "vendor_name": "storaged",
            "storage_protocol": "iSCSI",
            "multiattach": true,
            "replication_enabled": false,
            "free_capacity_gb": 12.5,
            "total_capacity_gb": "unknown",
        });
        let specs = BTreeMap::from([(key.to_owned(), wanted.to_owned())]);
        fit(capabilities.as_object().unwrap(), &specs)
    }

    #[test]
    fn texts_and_truths_are_compared() {
        assert!(fits("vendor_name", "storaged"));
        assert!(!fits("vendor_name", "other"));
        assert!(fits("storage_protocol", "iscsi"));
        assert!(fits("storage_protocol", "<or> FC <or> iSCSI"));
        assert!(!fits("storage_protocol", "<or> FC <or> NFS"));
        assert!(fits("multiattach", "<is> True"));
        assert!(fits("multiattach", "true"));
        assert!(!fits("replication_enabled", "<is> True"));
        assert!(fits("capabilities:vendor_name", "s== storaged"));
        assert!(fits("vendor_name", "<in> stor"));
    }

    #[test]
    fn what_nobody_has_does_not_fit_unless_it_is_somebody_elses_business() {
        assert!(!fits("colour", "blue"));
        assert!(fits("vendor:colour", "blue"));
        assert!(!fits("capabilities:colour", "blue"));
    }

    #[test]
    fn numbers_are_compared_and_what_is_unknown_is_no_number() {
        assert!(fits("free_capacity_gb", ">= 10"));
        assert!(!fits("free_capacity_gb", ">= 13"));
        assert!(fits("free_capacity_gb", "= 12"));
        assert!(fits("free_capacity_gb", "== 12.5"));
        assert!(!fits("total_capacity_gb", ">= 0"));
    }
}
