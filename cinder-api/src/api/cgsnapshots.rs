//! `/cgsnapshots`: what group snapshots were called before 3.14. Here are only their paths, bodies and answers.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::group_snapshots::{self, Wanted};
use super::group_types::AskedAs;
use crate::door;
use crate::fault::Fault;
use crate::records::group::GroupSnapshot;
use crate::request::body::TEXT_MAX;
use crate::request::{Body, Context, Query};
use crate::routes::{Routes, get};
use crate::service::Shared;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/cgsnapshots", get(list).post(create))
        .route("/cgsnapshots/detail", get(list_detail))
        .route("/cgsnapshots/{id}", get(show).delete(delete))
}

fn summary(snapshot: &GroupSnapshot) -> Value {
    json!({"id": snapshot.id, "name": snapshot.name})
}

fn detail(snapshot: &GroupSnapshot) -> Value {
    json!({
        "id": snapshot.id,
        "consistencygroup_id": snapshot.group_id,
        "status": snapshot.status,
        "created_at": snapshot.created_at.to_string(),
        "name": snapshot.name,
        "description": snapshot.description,
    })
}

async fn list(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    let names = ("cgsnapshots", "cgsnapshots");
    group_snapshots::answer(
        &service,
        &context,
        &query,
        names,
        AskedAs::ConsistencyGroup,
        summary,
    )
    .await
}

async fn list_detail(State(service): Shared, context: Context, query: Query) -> Result<Json<Value>, Fault> {
    let names = ("cgsnapshots", "cgsnapshots/detail");
    group_snapshots::answer(
        &service,
        &context,
        &query,
        names,
        AskedAs::ConsistencyGroup,
        detail,
    )
    .await
}

async fn show(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let snapshot = group_snapshots::find(&tables, &context, &id)?;
    service.check_for("group:get_group_snapshot", &context, &snapshot.project_id)?;
    Ok(Json(json!({"cgsnapshot": detail(snapshot)})))
}

async fn create(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    let fields = body.object("cgsnapshot")?;
    let wanted = Wanted {
        group: fields.required_text("consistencygroup_id", 0..=TEXT_MAX)?,
        name: fields.short_text("name")?,
        description: fields.short_text("description")?,
    };
    let id = group_snapshots::make(&service, &context, &wanted, AskedAs::ConsistencyGroup).await?;
    let shown = json!({"cgsnapshot": {"id": id, "name": wanted.name}});
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

async fn delete(State(service): Shared, context: Context, Path(id): Path<String>) -> Result<Response, Fault> {
    group_snapshots::begin_deletion(&service, &context, &id, AskedAs::ConsistencyGroup).await?;
    Ok(door::accepted())
}
