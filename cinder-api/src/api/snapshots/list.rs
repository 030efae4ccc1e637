//! `GET /snapshots` and `/snapshots/detail`.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::{detail, summary};
use crate::api::volumes;
use crate::fault::Fault;
use crate::records::{Snapshot, Stored};
use crate::request::filter::{Filter, filters};
use crate::request::listing::{self, Key, Page};
use crate::request::{Context, Query};
use crate::service::{Service, Shared};

/// What snapshots can be sorted by.
const SORT_KEYS: &[&str] = &[
    "id",
    "status",
    "created_at",
    "updated_at",
    "name",
    "display_name",
    "volume_id",
    "volume_size",
    "size",
    "project_id",
];
/// Filters for everybody.
pub const FILTERS: &[&str] = &[
    "name",
    "status",
    "volume_id",
    "metadata",
    "availability_zone",
    "consumes_quota",
];

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "snapshots", |snapshot| {
        summary(&context, snapshot)
    })
    .await
}

pub(super) async fn list_detail(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    answer(&service, &context, &query, "snapshots/detail", |snapshot| {
        detail(&context, snapshot)
    })
    .await
}

async fn answer(
    service: &Service,
    context: &Context,
    query: &Query,
    path: &str,
    show: impl Fn(&Snapshot) -> Value,
) -> Result<Json<Value>, Fault> {
    service.check("volume:get_all_snapshots", context)?;
    let page = Page::read(query, SORT_KEYS)?.counted(query, context.version.is(45))?;
    let filters = filters(context, query, FILTERS)?;
    service.records.fresh().await?;
    let tables = service.records.tables();
    let zone = &service.settings.availability_zone;
    let keep = |snapshot: &Snapshot| fits(snapshot, zone, &filters);
    let whose = volumes::whose(context, query)?;
    let selected = page.select(tables.snapshots.of(whose.as_deref()), keep, key)?;
    let show = |snapshot: &Stored<Snapshot>| show(snapshot);
    Ok(Json(listing::answer(
        context,
        query,
        ("snapshots", path),
        &selected,
        show,
    )))
}

fn fits(snapshot: &Snapshot, zone: &str, filters: &[Filter]) -> bool {
    filters.iter().all(|filter| match filter.name.as_str() {
        "id" => filter.fits(&snapshot.id),
        "name" | "display_name" => filter.fits_some(snapshot.name.as_deref()),
        "description" | "display_description" => filter.fits_some(snapshot.description.as_deref()),
        "status" => filter.fits(snapshot.status.as_str()),
        "volume_id" => filter.fits(&snapshot.volume_id),
        "metadata" => filter.fits_metadata(&snapshot.metadata),
        "availability_zone" => filter.fits(zone),
        "consumes_quota" => filter.fits_truth(snapshot.consumes_quota),
        "group_snapshot_id" => filter.fits_some(snapshot.group_snapshot_id.as_deref()),
        "project_id" => filter.fits(&snapshot.project_id),
        "user_id" => filter.fits(&snapshot.user_id),
        "volume_size" | "size" => filter.value.parse() == Ok(snapshot.size),
        _ => false,
    })
}

fn key<'a>(snapshot: &'a Snapshot, name: &str) -> Key<'a> {
    match name {
        "id" => snapshot.id.as_str().into(),
        "status" => snapshot.status.as_str().into(),
        "created_at" => Key::Moment(snapshot.created_at),
        "updated_at" => snapshot.updated_at.map_or(Key::None, Key::Moment),
        "name" | "display_name" => snapshot.name.as_deref().into(),
        "volume_id" => snapshot.volume_id.as_str().into(),
        "volume_size" | "size" => Key::Number(snapshot.size),
        "project_id" => snapshot.project_id.as_str().into(),
        _ => Key::None,
    }
}
