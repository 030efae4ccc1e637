//! What a volume looks like in answers, version by version.

use serde_json::{Map, Value, json};

use crate::api::group_types;
use crate::records::volume::AttachStatus;
use crate::records::{Attachment, Instant, Tables, Volume};
use crate::request::Context;
use crate::service::Service;

/// A volume in short.
pub fn summary(context: &Context, volume: &Volume) -> Value {
    json!({
        "id": volume.id,
        "name": volume.name,
        "links": context.links(&format!("volumes/{}", volume.id)),
    })
}

/// A volume in full.
pub fn detail(service: &Service, tables: &Tables, context: &Context, volume: &Volume) -> Value {
    let mut shown = base(service, tables, context, volume);
    let mut set = |key: &str, value: Value| {
        shown.insert(key.to_owned(), value);
    };
    let caller = &context.caller;
    if !volume.image_metadata.is_empty() {
        set("volume_image_metadata", json!(volume.image_metadata));
    }
    if service.allows(
        "volume_extension:volume_tenant_attribute",
        caller,
        &volume.project_id,
    ) {
        set("os-vol-tenant-attr:tenant_id", json!(volume.project_id));
    }
    if service.allows(
        "volume_extension:volume_host_attribute",
        caller,
        &volume.project_id,
    ) {
        set("os-vol-host-attr:host", json!(host(service, volume)));
    }
    if service.allows(
        "volume_extension:volume_mig_status_attribute",
        caller,
        &volume.project_id,
    ) {
        set("os-vol-mig-status-attr:migstat", json!(volume.migration_status));
        set("os-vol-mig-status-attr:name_id", Value::Null);
    }
    Value::Object(shown)
}

/// A volume as it is shown to whoever has just made or changed it: without what only whoever looks at it is shown.
pub(super) fn created(service: &Service, tables: &Tables, context: &Context, volume: &Volume) -> Value {
    Value::Object(base(service, tables, context, volume))
}

/// Where a volume lies, as administrators see it; nothing until that was decided.
pub(super) fn host(service: &Service, volume: &Volume) -> Option<String> {
    let pool = volume.pool.as_ref()?;
    let settings = &service.settings;
    Some(format!("{}@{}#{pool}", settings.host, settings.backend_name))
}

fn base(_service: &Service, tables: &Tables, context: &Context, volume: &Volume) -> Map<String, Value> {
    let version = context.version;
    let kind = tables.types.get(&volume.type_id).map(|kind| kind.name.as_str());
    let mut metadata = json!(volume.metadata);
    if let Some(read_only) = volume.read_only {
        metadata["readonly"] = json!(if read_only { "True" } else { "False" });
    }
    let shown = json!({
        "id": volume.id,
        "status": volume.status.shown(),
        "size": volume.size,
        "availability_zone": volume.availability_zone,
        "created_at": volume.created_at.to_string(),
        "updated_at": volume.updated_at.as_ref().map(Instant::to_string),
        "name": volume.name,
        "description": volume.description,
        "volume_type": kind,
        "snapshot_id": volume.snapshot_id,
        "source_volid": volume.source_id,
        "metadata": metadata,
        "links": context.links(&format!("volumes/{}", volume.id)),
        "user_id": volume.user_id,
        "bootable": if volume.bootable { "true" } else { "false" },
        "encrypted": volume.encryption_key_id.is_some(),
        "replication_status": Value::Null,
        "consistencygroup_id": consistency_group(tables, volume),
        "multiattach": volume.multiattach,
        "attachments": attachments(tables, context, volume),
    });
    let Value::Object(mut shown) = shown else {
        return Map::new();
    };
    let mut set = |key: &str, value: Value| {
        shown.insert(key.to_owned(), value);
    };
    let is_admin = context.caller.is_admin;
    if is_admin {
        set("migration_status", json!(volume.migration_status));
    }
    if version.is(13) {
        set("group_id", json!(volume.group_id));
    }
    if version.is(21) && is_admin {
        set("provider_id", Value::Null);
    }
    if version.is(48) {
        // Each volume has a target of its own: nobody else is on it whom a lock would have to keep out.
        set("shared_targets", json!(false));
        set("service_uuid", json!(crate::api::services::SERVICE_UUID));
    }
    if version.is(61) && is_admin {
        set("cluster_name", Value::Null);
    }
    if version.is(63) {
        set("volume_type_id", json!(volume.type_id));
    }
    if version.is(64)
        && let Some(key) = &volume.encryption_key_id
    {
        set("encryption_key_id", json!(key));
    }
    if version.is(65) {
        set("consumes_quota", json!(volume.consumes_quota));
    }
    shown
}

/// The volume's group, if that is one by its older name.
fn consistency_group<'a>(tables: &Tables, volume: &'a Volume) -> Option<&'a String> {
    let id = volume.group_id.as_ref()?;
    let group = tables.groups.get(id)?;
    group_types::is_reserved(tables, &group.type_id).then_some(id)
}

fn attachments(tables: &Tables, context: &Context, volume: &Volume) -> Value {
    let may_see_hosts = context.caller.is_admin || context.caller.is_service;
    let attached = tables.attachments.of_parent(&volume.id);
    let attached = attached.filter(|attachment| attachment.status == AttachStatus::Attached);
    let show = |attachment: &Attachment| {
        json!({
            "id": volume.id,
            "attachment_id": attachment.id,
            "volume_id": volume.id,
            "server_id": attachment.instance_id,
            "host_name": attachment.host.as_ref().filter(|_| may_see_hosts),
            "device": attachment.mount_point,
            "attached_at": attachment.attached_at.as_ref().map(Instant::to_string),
        })
    };
    attached.map(|attachment| show(attachment)).collect()
}
