//! `POST /groups/action`: a group from another one, or from a group's snapshot.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{find, volumes_of};
use crate::api::group_types::AskedAs;
use crate::api::{group_snapshots, volumes};
use crate::fault::Fault;
use crate::keys::{self, Made, Need};
use crate::quota::{self, Amounts};
use crate::records::group::{Group, GroupStatus};
use crate::records::job::Task;
use crate::records::volume::{AttachStatus, VolumeStatus};
use crate::records::{Edit, Instant, Stored, Tables, Volume};
use crate::request::{Body, Context};
use crate::service::{Service, Shared};

/// The version in which groups can be made from others.
const SINCE: u8 = 14;

pub(super) async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    context.since(SINCE)?;
    service.check("group:create", &context)?;
    body.only(&["create-from-src"])?;
    let fields = body.object("create-from-src")?;
    fields.only(&["group_snapshot_id", "source_group_id", "name", "description"])?;
    let wanted = Wanted {
        name: fields.short_text("name")?,
        description: fields.short_text("description")?,
        snapshot: fields.uuid("group_snapshot_id")?,
        source: fields.uuid("source_group_id")?,
    };
    if wanted.snapshot.is_some() == wanted.source.is_some() {
        return Err(Fault::bad_request(
            "Either 'group_snapshot_id' or 'source_group_id' must be provided to create group from source, not both.",
        ));
    }
    let id = make(&service, &context, &wanted, AskedAs::Group).await?;
    let shown = json!({"group": {"id": id, "name": wanted.name}});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// What a group is to be made from: one of both.
pub(in crate::api) struct Wanted {
    pub(in crate::api) name: Option<String>,
    pub(in crate::api) description: Option<String>,
    pub(in crate::api) snapshot: Option<String>,
    pub(in crate::api) source: Option<String>,
}

/// Promises a group from another one or from a group snapshot; gives its identity.
pub(in crate::api) async fn make(
    service: &Service,
    context: &Context,
    wanted: &Wanted,
    asked_as: AskedAs,
) -> Result<String, Fault> {
    let needs = {
        service.records.fresh().await?;
        let tables = service.records.tables();
        let (from, originals) = originals(&tables, context, wanted)?;
        asked_as.check(&tables, &from.type_id)?;
        let keys = originals
            .iter()
            .filter_map(|original| original.volume.encryption_key_id.clone());
        keys.map(Need::Copy).collect()
    };
    let made = keys::make(service, context, needs).await?;
    let id = uuid::Uuid::new_v4().to_string();
    let promised = service
        .records
        .edit(|edit| promise(edit, context, (wanted, &made), &id));
    let promised = promised.await;
    if promised.is_err() {
        keys::unmake(service, context, &made).await;
    }
    promised.map(|()| id)
}

/// A volume that is to be copied, and from which of its snapshots.
struct Original<'a> {
    volume: &'a Volume,
    snapshot: Option<&'a str>,
}

/// The group that a new one is to be like, and what its volumes are made from.
fn originals<'a>(
    tables: &'a Tables,
    context: &Context,
    wanted: &Wanted,
) -> Result<(&'a Arc<Stored<Group>>, Vec<Original<'a>>), Fault> {
    let (group, originals): (_, Vec<Original<'_>>) = if let Some(snapshot) = &wanted.snapshot {
        let snapshot = group_snapshots::find(tables, context, snapshot)?;
        if snapshot.status != GroupStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid group snapshot: it is {}.",
                snapshot.status
            )));
        }
        let parts = tables.snapshots.of_project(&snapshot.project_id);
        let parts = parts.filter(|part| part.group_snapshot_id.as_ref() == Some(&snapshot.id));
        let originals = parts.filter_map(|part| {
            Some(Original {
                volume: &tables.volumes.get(&part.volume_id)?.record,
                snapshot: Some(part.id.as_str()),
            })
        });
        let originals = originals.collect();
        (find(tables, context, &snapshot.group_id)?, originals)
    } else {
        let group = find(tables, context, wanted.source.as_deref().unwrap_or_default())?;
        if group.status != GroupStatus::Available {
            return Err(Fault::bad_request(format!(
                "Invalid group: it is {}.",
                group.status
            )));
        }
        let originals = volumes_of(tables, group).map(|volume| Original {
            volume: &volume.record,
            snapshot: None,
        });
        let originals = originals.collect();
        (group, originals)
    };
    if originals.is_empty() {
        return Err(Fault::bad_request("Invalid group: it has no volumes."));
    }
    Ok((group, originals))
}

fn promise(
    edit: &mut Edit<'_>,
    context: &Context,
    (wanted, made): (&Wanted, &[Made]),
    id: &str,
) -> Result<(), Fault> {
    let tables = edit.tables;
    let (from, originals) = originals(tables, context, wanted)?;
    match &wanted.snapshot {
        Some(snapshot) => edit.touch(group_snapshots::find(tables, context, snapshot)?),
        None => edit.touch(from),
    }
    let group = Group {
        id: id.to_owned(),
        project_id: context.project()?.to_owned(),
        user_id: context.caller.user_id.clone(),
        name: wanted.name.clone(),
        description: wanted.description.clone(),
        status: GroupStatus::Creating,
        group_snapshot_id: wanted.snapshot.clone(),
        source_group_id: wanted.source.clone(),
        created_at: Instant::now(),
        updated_at: None,
        ..from.record.clone()
    };
    quota::take(edit, &group.project_id, &Amounts::plain(quota::GROUPS, 1))?;
    for original in originals {
        let need = original.volume.encryption_key_id.clone().map(Need::Copy);
        let copy_made = made.iter().find(|made| Some(&made.need) == need.as_ref());
        let key = keys::fits(need.as_ref(), copy_made)?;
        copy(edit, &group, &original, key)?;
    }
    edit.insert(&group);
    let task = Task::CreateGroup { group: id.to_owned() };
    volumes::later(edit, context, &group.project_id, task);
    Ok(())
}

/// A volume of the new group. The group's job makes it, with the others.
fn copy(
    edit: &mut Edit<'_>,
    group: &Group,
    &Original {
        volume: original,
        snapshot,
    }: &Original<'_>,
    key: Option<String>,
) -> Result<(), Fault> {
    let id = uuid::Uuid::new_v4().to_string();
    let tables = edit.tables;
    quota::take(
        edit,
        &group.project_id,
        &Amounts::volume(&original.type_id, original.size),
    )?;
    if let Some(kind) = tables.types.get(&original.type_id) {
        edit.rely(kind);
    }
    edit.insert(&Volume {
        project_id: group.project_id.clone(),
        user_id: group.user_id.clone(),
        status: VolumeStatus::Creating,
        previous_status: None,
        attach_status: AttachStatus::Detached,
        migration_status: None,
        created_at: Instant::now(),
        updated_at: None,
        snapshot_id: snapshot.map(str::to_owned),
        source_id: snapshot.is_none().then(|| original.id.clone()),
        group_id: Some(group.id.clone()),
        pool: None,
        storage_name: format!("volume-{id}"),
        chap: None,
        encryption_key_id: key,
        read_only: None,
        id,
        ..original.clone()
    });
    Ok(())
}
