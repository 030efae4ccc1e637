//! `GET /volumes`, `/volumes/detail` and `/volumes/summary`.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::view;
use crate::fault::Fault;
use crate::records::{Stored, Tables, Volume};
use crate::request::filter::{Filter, filters};
use crate::request::listing::{self, Key, Page};
use crate::request::{Context, Query};
use crate::service::{Service, Shared};

/// What volumes can be sorted by.
const SORT_KEYS: &[&str] = &[
    "id",
    "status",
    "size",
    "availability_zone",
    "created_at",
    "updated_at",
    "name",
    "display_name",
    "host",
    "bootable",
    "volume_type_id",
    "project_id",
    "user_id",
    "attach_status",
    "migration_status",
];
/// Filters for everybody.
pub const FILTERS: &[&str] = &[
    "name",
    "status",
    "metadata",
    "bootable",
    "migration_status",
    "availability_zone",
    "group_id",
    "size",
    "created_at",
    "updated_at",
    "consumes_quota",
];

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "volumes", |_, volume| {
        view::summary(&context, volume)
    })
    .await
}

pub(super) async fn list_detail(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    let show = |tables: &Tables, volume: &Volume| view::detail(&service, tables, &context, volume);
    answer(&service, &context, &query, "volumes/detail", show).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    path: &str,
    show: impl Fn(&Tables, &Volume) -> Value,
) -> Result<Json<Value>, Fault> {
    service.check("volume:get_all", context)?;
    let page = Page::read(query, SORT_KEYS)?.counted(query, context.version.is(45))?;
    let filters = read_filters(context, query)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |volume: &Volume| fits(service, &tables, volume, &filters);
    let whose = whose(context, query)?;
    let selected = page.select(tables.volumes.of(whose.as_deref()), keep, key)?;
    let show = |volume: &Stored<Volume>| show(&tables, volume);
    Ok(Json(listing::answer(
        context,
        query,
        ("volumes", path),
        &selected,
        show,
    )))
}

/// Whose things are listed: those of a project, or everybody's.
pub(crate) fn whose(context: &Context, query: &Query) -> Result<Option<String>, Fault> {
    if context.caller.is_admin && query.says_yes("all_tenants") {
        return Ok(query.get("project_id").map(str::to_owned));
    }
    context.project().map(|project| Some(project.to_owned()))
}

pub(super) async fn totals(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    context.since(12)?;
    service.check("volume:get_all", &context)?;
    let filters = read_filters(&context, &query)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let whose = whose(&context, &query)?;
    let rows = tables.volumes.of(whose.as_deref());
    let mut count = 0_u64;
    let mut size = 0_u64;
    let mut metadata: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for volume in rows.filter(|volume| fits(&service, &tables, volume, &filters)) {
        count += 1;
        size += volume.size;
        for (key, value) in &volume.metadata {
            metadata.entry(key).or_default().insert(value);
        }
    }
    let mut shown = json!({"total_count": count, "total_size": size});
    if context.version.is(36) {
        shown["metadata"] = json!(metadata);
    }
    Ok(Json(json!({"volume-summary": shown})))
}

fn read_filters(context: &Context, query: &Query) -> Result<Vec<Filter>, Fault> {
    let filters = filters(context, query, FILTERS)?;
    let version = context.version;
    for filter in &filters {
        match filter.name.as_str() {
            "bootable"
                if version.is(2)
                    && !matches!(filter.value.to_lowercase().as_str(), "true" | "false" | "1" | "0") =>
            {
                return Err(Fault::bad_request(format!(
                    "Value of filter bootable is {}: it must be true or false.",
                    filter.value
                )));
            }
            "created_at" | "updated_at" if version.is(60) => filter.check_moments()?,
            _ => {}
        }
    }
    Ok(filters)
}

fn fits(service: &Service, tables: &Tables, volume: &Volume, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| match filter.name.as_str() {
        "name" | "display_name" => filter.fits_some(volume.name.as_deref()),
        "description" | "display_description" => filter.fits_some(volume.description.as_deref()),
        "status" => filter.fits(volume.status.shown()),
        "metadata" => filter.fits_metadata(&volume.metadata),
        "glance_metadata" => filter.fits_metadata(&volume.image_metadata),
        "bootable" => filter.fits_truth(volume.bootable),
        "multiattach" => filter.fits_truth(volume.multiattach),
        "consumes_quota" => filter.fits_truth(volume.consumes_quota),
        "migration_status" => filter.fits_some(volume.migration_status.as_deref()),
        "availability_zone" => filter.fits(&volume.availability_zone),
        "group_id" => filter.fits_some(volume.group_id.as_deref()),
        "size" => filter.value.parse() == Ok(volume.size),
        "created_at" => filter.fits_moment(Some(volume.created_at)),
        "updated_at" => filter.fits_moment(volume.updated_at),
        "id" => filter.fits(&volume.id),
        "project_id" => filter.fits(&volume.project_id),
        "user_id" => filter.fits(&volume.user_id),
        "snapshot_id" => filter.fits_some(volume.snapshot_id.as_deref()),
        "source_volid" => filter.fits_some(volume.source_id.as_deref()),
        "attach_status" => filter.fits(volume.attach_status.as_str()),
        "volume_type_id" => filter.fits(&volume.type_id),
        "volume_type" => tables
            .types
            .get(&volume.type_id)
            .is_some_and(|kind| filter.fits(&kind.name)),
        "host" => view::host(service, volume)
            .is_some_and(|host| filter.fits(&host) || host.starts_with(&format!("{}#", filter.value))),
        // Only administrators come here with other names, and no volume has what they ask for.
        _ => false,
    })
}

fn key<'a>(volume: &'a Volume, name: &str) -> Key<'a> {
    match name {
        "id" => volume.id.as_str().into(),
        "status" => volume.status.shown().into(),
        "size" => Key::Number(volume.size),
        "availability_zone" => volume.availability_zone.as_str().into(),
        "created_at" => Key::Moment(volume.created_at),
        "updated_at" => volume.updated_at.map_or(Key::None, Key::Moment),
        "name" | "display_name" => volume.name.as_deref().into(),
        "host" => volume.pool.as_deref().into(),
        "bootable" => Key::Number(u64::from(volume.bootable)),
        "volume_type_id" => volume.type_id.as_str().into(),
        "project_id" => volume.project_id.as_str().into(),
        "user_id" => volume.user_id.as_str().into(),
        "attach_status" => volume.attach_status.as_str().into(),
        "migration_status" => volume.migration_status.as_deref().into(),
        _ => Key::None,
    }
}
