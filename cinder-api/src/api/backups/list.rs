//! `GET /backups` and `/backups/detail`.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::{detail, summary};
use crate::api::volumes;
use crate::fault::Fault;
use crate::records::{Backup, Stored, Tables};
use crate::request::filter::{Filter, filters};
use crate::request::listing::{self, Key, Page};
use crate::request::{Context, Query};
use crate::service::{Service, Shared};

/// What backups can be sorted by.
const SORT_KEYS: &[&str] = &[
    "id",
    "status",
    "created_at",
    "updated_at",
    "name",
    "display_name",
    "volume_id",
    "size",
    "data_timestamp",
    "project_id",
];
/// Filters for everybody.
pub const FILTERS: &[&str] = &["name", "status", "volume_id"];

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "backups", |_, backup| {
        summary(&context, backup)
    })
    .await
}

pub(super) async fn list_detail(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    let show = |tables: &Tables, backup: &Backup| detail(&service, tables, &context, backup);
    answer(&service, &context, &query, "backups/detail", show).await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    path: &str,
    show: impl Fn(&Tables, &Backup) -> Value,
) -> Result<Json<Value>, Fault> {
    service.check("backup:get_all", context)?;
    let page = Page::read(query, SORT_KEYS)?.counted(query, context.version.is(45))?;
    let filters = filters(context, query, FILTERS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |backup: &Backup| filters.iter().all(|filter| fits(backup, filter));
    let whose = volumes::whose(context, query)?;
    let selected = page.select(tables.backups.of(whose.as_deref()), keep, key)?;
    let show = |backup: &Stored<Backup>| show(&tables, backup);
    Ok(Json(listing::answer(
        context,
        query,
        ("backups", path),
        &selected,
        show,
    )))
}

fn fits(backup: &Backup, filter: &Filter) -> bool {
    match filter.name.as_str() {
        "id" => filter.fits(&backup.id),
        "name" | "display_name" => filter.fits_some(backup.name.as_deref()),
        "status" => filter.fits(backup.status.as_str()),
        "volume_id" => filter.fits(&backup.volume_id),
        "snapshot_id" => filter.fits_some(backup.snapshot_id.as_deref()),
        "metadata" => filter.fits_metadata(&backup.metadata),
        "project_id" => filter.fits(&backup.project_id),
        "user_id" => filter.fits(&backup.user_id),
        "size" => filter.value.parse() == Ok(backup.size),
        _ => false,
    }
}

fn key<'a>(backup: &'a Backup, name: &str) -> Key<'a> {
    match name {
        "id" => backup.id.as_str().into(),
        "status" => backup.status.as_str().into(),
        "created_at" => Key::Moment(backup.created_at),
        "updated_at" => backup.updated_at.map_or(Key::None, Key::Moment),
        "name" | "display_name" => backup.name.as_deref().into(),
        "volume_id" => backup.volume_id.as_str().into(),
        "size" => Key::Number(backup.size),
        "data_timestamp" => Key::Moment(backup.data_timestamp),
        "project_id" => backup.project_id.as_str().into(),
        _ => Key::None,
    }
}
