//! What a type looks like in answers: to whom more, to whom less.

use serde_json::{Value, json};

use super::specs::Specs;
use crate::records::VolumeType;
use crate::request::Context;
use crate::service::Service;

/// The specifications that everybody sees: they say what a volume of the type can do, not what it lies on.
pub(super) const VISIBLE_SPECS: &[&str] =
    &["RESKEY:availability_zones", "multiattach", "replication_enabled"];

/// A type in full.
pub(super) fn full(service: &Service, context: &Context, kind: &VolumeType) -> Value {
    let mut shown = changed(service, context, kind);
    if service
        .check("volume_extension:access_types_qos_specs_id", context)
        .is_ok()
    {
        shown["qos_specs_id"] = json!(kind.qos_id);
    }
    with_access(service, context, kind, shown)
}

/// A type as it is shown to who has just made it.
pub(super) fn made(service: &Service, context: &Context, kind: &VolumeType) -> Value {
    with_access(service, context, kind, changed(service, context, kind))
}

/// A type as it is shown to who has just changed it.
pub(super) fn changed(service: &Service, context: &Context, kind: &VolumeType) -> Value {
    let mut shown = json!({
        "id": kind.id,
        "name": kind.name,
        "is_public": kind.is_public,
        "description": kind.description,
    });
    if service
        .check("volume_extension:access_types_extra_specs", context)
        .is_ok()
    {
        shown["extra_specs"] = json!(specs(service, context, kind));
    }
    shown
}

fn with_access(service: &Service, context: &Context, kind: &VolumeType, mut shown: Value) -> Value {
    if service
        .check("volume_extension:volume_type_access", context)
        .is_ok()
    {
        shown["os-volume-type-access:is_public"] = json!(kind.is_public);
    }
    shown
}

/// Whether a caller sees all specifications.
pub(super) fn sees_all(service: &Service, context: &Context) -> bool {
    service
        .check("volume_extension:types_extra_specs:read_sensitive", context)
        .is_ok()
}

/// The specifications that a caller sees.
pub(super) fn specs(service: &Service, context: &Context, kind: &VolumeType) -> Specs {
    let mut specs = kind.extra_specs.clone();
    if !sees_all(service, context) {
        specs.retain(|key, _| VISIBLE_SPECS.contains(&key.as_str()));
    }
    specs
}
