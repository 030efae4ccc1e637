//! `GET /types`.

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::view;
use crate::fault::Fault;
use crate::records::{Stored, VolumeType};
use crate::request::filter::{Filter, dictionary, filters};
use crate::request::listing::{self, Key, Page};
use crate::request::{Context, Query};
use crate::service::Shared;

/// What types can be sorted by.
const SORT_KEYS: &[&str] = &[
    "id",
    "name",
    "created_at",
    "updated_at",
    "is_public",
    "description",
];
/// Filters for everybody.
pub const FILTERS: &[&str] = &["is_public", "extra_specs"];

/// Which types are wanted, by who may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// All.
    All,
    /// Those that the caller's project may use.
    Mine,
    /// Those that are not public.
    Private,
}

pub(super) async fn list(
    State(service): Shared,
    context: Context,
    query: Query,
) -> Result<Json<Value>, Fault> {
    service.check("volume_extension:type_get_all", &context)?;
    let page = Page::read(&query, SORT_KEYS)?;
    let mut filters = filters(&context, &query, FILTERS)?;
    let scope = scope(&context, &query)?;
    filters.retain(|filter| filter.name != "is_public");
    if !context.version.is(52) && !context.caller.is_admin {
        filters.retain(|filter| filter.name != "extra_specs");
    }
    let sees_all = view::sees_all(&service, &context);
    service.records.fresh().await?;
    let tables = service.records.tables();
    let keep = |kind: &VolumeType| {
        let project = context.caller.project_id.as_deref().unwrap_or_default();
        let is_in_scope = match scope {
            Scope::All => true,
            Scope::Mine => kind.is_for(project),
            Scope::Private => !kind.is_public,
        };
        is_in_scope && filters.iter().all(|filter| fits(kind, filter, sees_all))
    };
    let selected = page.select(tables.types.iter(), keep, key)?;
    let show = |kind: &Stored<VolumeType>| view::full(&service, &context, kind);
    let mut answer = listing::answer(&context, &query, ("volume_types", "types"), &selected, show);
    // Clients look for the next page under a name that no other listing has.
    if let Some(map) = answer.as_object_mut()
        && let Some(links) = map.remove("volume_types_links")
    {
        map.insert("volume_type_links".to_owned(), links);
    }
    Ok(Json(answer))
}

/// Administrators say which; everybody else sees what he may use.
fn scope(context: &Context, query: &Query) -> Result<Scope, Fault> {
    let said = query.get("is_public").filter(|_| context.caller.is_admin);
    match said {
        Some(text) if text.eq_ignore_ascii_case("none") => Ok(Scope::All),
        Some(_) => match query.boolean("is_public")? {
            Some(false) => Ok(Scope::Private),
            _ => Ok(Scope::Mine),
        },
        None => Ok(Scope::Mine),
    }
}

fn fits(kind: &VolumeType, filter: &Filter, sees_all: bool) -> bool {
    match filter.name.as_str() {
        "id" => filter.fits(&kind.id),
        "name" => filter.fits(&kind.name),
        "description" => filter.fits_some(kind.description.as_deref()),
        "qos_specs_id" => filter.fits_some(kind.qos_id.as_deref()),
        "extra_specs" => {
            let Some(wanted) = dictionary(&filter.value) else {
                return false;
            };
            let may_ask = |key: &String| sees_all || view::VISIBLE_SPECS.contains(&key.as_str());
            wanted.keys().all(may_ask) && filter.fits_metadata(&kind.extra_specs)
        }
        _ => false,
    }
}

fn key<'a>(kind: &'a VolumeType, name: &str) -> Key<'a> {
    match name {
        "id" => kind.id.as_str().into(),
        "name" => kind.name.as_str().into(),
        "description" => kind.description.as_deref().into(),
        "is_public" => Key::Number(u64::from(kind.is_public)),
        "updated_at" => kind.updated_at.map_or(Key::None, Key::Moment),
        _ => Key::Moment(kind.created_at),
    }
}
