//! Opens and closes the ways of attachments' hosts.

use serde_json::{Map, Value, json};

use super::{find, state};
use crate::api::volumes;
use crate::connections::{Choice, Connector, agent};
use crate::fault::Fault;
use crate::qos;
use crate::records::attachment::{AttachMode, Connection};
use crate::records::volume::{AttachStatus, Chap, VolumeStatus};
use crate::records::{Attachment, Tables, Volume};
use crate::request::Context;
use crate::service::Service;

/// The extra specification by which a type asks for a kind of connection.
const CONNECTION_SPEC: &str = "storaged:connection";
/// The longest connector, as JSON, in bytes: real ones are some hundred.
const CONNECTOR_BYTES_MAX: usize = 16 * 1024;

/// Opens the way for an attachment's host.
pub async fn connect(
    service: &Service,
    context: &Context,
    id: &str,
    connector: &Connector,
) -> Result<Attachment, Fault> {
    if json!(connector).to_string().len() > CONNECTOR_BYTES_MAX {
        return Err(Fault::bad_request(format!(
            "The connector has more than {CONNECTOR_BYTES_MAX} bytes."
        )));
    }
    let decided = service.records.edit(|edit| {
        let attachment = find(edit.tables, context, id)?;
        service.check_for("volume:attachment_update", context, &attachment.project_id)?;
        let volume = volumes::find(edit.tables, context, &attachment.volume_id)?.clone();
        if matches!(
            volume.status,
            VolumeStatus::Error | VolumeStatus::Downloading | VolumeStatus::Deleting
        ) {
            return Err(Fault::bad_request(format!(
                "Invalid volume: Volume {} status must be available or in-use to connect, and it is {}.",
                volume.id, volume.status
            )));
        }
        Ok((attachment.record.clone(), with_secret(edit, &volume)))
    });
    let (attachment, volume) = decided.await?;
    let recorded = attachment.kind().filter(|_| is_same_host(&attachment, connector));
    let info = open(service, &volume, connector, attachment.mode, (Some(id), recorded)).await?;
    let saved = service.records.edit(|edit| {
        let stored = find(edit.tables, context, id)?;
        let mut attachment = stored.record.clone();
        if attachment.status != AttachStatus::Attached {
            attachment.status = AttachStatus::Attaching;
        }
        let text = |key: &str| connector.get(key).and_then(Value::as_str).map(str::to_owned);
        attachment.host = text("host");
        attachment.mount_point = text("mountpoint");
        attachment.mode = Some(mode(attachment.mode, connector));
        attachment.connector = Some(connector.clone());
        attachment.connection = Some(Connection(info.clone()));
        state::connected(edit, &attachment);
        Ok::<_, Fault>(attachment)
    });
    match saved.await {
        Ok(attachment) => Ok(attachment),
        Err(fault) => {
            // It was deleted while the way was being opened: nobody will close it but us.
            let kind = info.get("driver_volume_type").and_then(Value::as_str);
            let is_used = is_used_by_others(&service.records.tables(), &volume.id, (connector, kind), id);
            if !is_used {
                service
                    .connections
                    .close(&service.storage, &volume, connector, kind)
                    .await?;
            }
            Err(fault)
        }
    }
}

/// Closes the way of an attachment's host, unless another attachment goes by it, and ends the attachment.
pub async fn disconnect(service: &Service, context: &Context, id: &str) -> Result<(), Fault> {
    let closing = {
        let tables = service.records.tables();
        let attachment = find(&tables, context, id)?;
        let volume = tables
            .volumes
            .get(&attachment.volume_id)
            .map(|volume| volume.record.clone());
        let kind = attachment.kind();
        let connector = attachment.connector.clone();
        let connector = connector
            .filter(|connector| !is_used_by_others(&tables, &attachment.volume_id, (connector, kind), id));
        volume.zip(connector).zip(Some(kind.map(str::to_owned)))
    };
    if let Some(((volume, connector), kind)) = closing {
        service
            .connections
            .close(&service.storage, &volume, &connector, kind.as_deref())
            .await?;
    }
    let removed = service.records.edit(|edit| {
        let attachment = find(edit.tables, context, id)?.clone();
        state::remove(edit, &attachment);
        Ok::<_, Fault>(())
    });
    removed.await
}

/// What a host needs to reach a volume: what the kind of connection says, and what every kind has. `known` is the attachment,
/// and the kind that it has already.
pub async fn open(
    service: &Service,
    volume: &Volume,
    connector: &Connector,
    asked: Option<AttachMode>,
    (attachment, recorded): (Option<&str>, Option<&str>),
) -> Result<Map<String, Value>, Fault> {
    let wished = wished(service, volume);
    let choice = Choice {
        recorded,
        wished: wished.as_deref(),
    };
    let mut info = service
        .connections
        .open(&service.storage, volume, connector, choice)
        .await?;
    let tables = service.records.tables();
    let kind = tables.types.get(&volume.type_id);
    let qos = qos::told_of(&tables, &volume.type_id, volume.size);
    let access = if volume.read_only == Some(true) {
        AttachMode::ReadOnly
    } else {
        mode(asked, connector)
    };
    let mut set = |key: &str, value: Value| info.insert(key.to_owned(), value);
    set("access_mode", json!(access));
    set("encrypted", json!(volume.encryption_key_id.is_some()));
    set("qos_specs", json!(qos));
    set(
        "cacheable",
        json!(kind.is_some_and(|kind| kind.says_yes("cacheable"))),
    );
    set(
        "enforce_multipath",
        json!(
            connector
                .get("enforce_multipath")
                .and_then(Value::as_bool)
                .unwrap_or(false)
        ),
    );
    if let Some(id) = attachment {
        set("attachment_id", json!(id));
    }
    Ok(info)
}

/// The kind of connection that the volume's type asks for, or else the configuration.
fn wished(service: &Service, volume: &Volume) -> Option<String> {
    let tables = service.records.tables();
    let said = tables
        .types
        .get(&volume.type_id)
        .and_then(|kind| kind.extra_specs.get(CONNECTION_SPEC));
    let default = service.settings.local.as_ref().filter(|local| local.is_default);
    let wished = said.cloned().or_else(|| default.map(|_| agent::LOCAL.to_owned()));
    // A guest's socket is for one guest: several on one host would need several.
    wished.filter(|wished| wished != agent::VHOST_USER || !volume.multiattach)
}

fn is_same_host(attachment: &Attachment, connector: &Connector) -> bool {
    let host = connector.get("host").and_then(Value::as_str);
    attachment.host.as_deref() == host
}

/// The volume with a secret for its hosts, which it keeps from then on.
pub fn with_secret(edit: &mut crate::records::Edit<'_>, stored: &crate::records::Stored<Volume>) -> Volume {
    if stored.chap.is_some() {
        return stored.record.clone();
    }
    let mut volume = stored.record.clone();
    volume.chap = Some(Chap::generate());
    edit.replace(stored, &volume);
    volume
}

fn mode(asked: Option<AttachMode>, connector: &Connector) -> AttachMode {
    let said = connector
        .get("mode")
        .and_then(Value::as_str)
        .and_then(AttachMode::parse);
    asked.or(said).unwrap_or(AttachMode::ReadWrite)
}

/// Whether another attachment of the volume is that of the same host, by the same kind of connection.
pub fn is_used_by_others(
    tables: &Tables,
    volume: &str,
    (connector, kind): (&Connector, Option<&str>),
    except: &str,
) -> bool {
    let host = |connector: &Connector| {
        connector
            .get("initiator")
            .or_else(|| connector.get("host"))
            .cloned()
    };
    let mut others = tables
        .attachments
        .of_parent(volume)
        .filter(|other| other.id != except && other.kind() == kind);
    others.any(|other| {
        other
            .connector
            .as_ref()
            .is_some_and(|other| host(other) == host(connector))
    })
}
