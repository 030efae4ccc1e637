//! Connections without attachments, as older clients and os-brick ask for them.

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Act;
use crate::api::attachments::{connection, guard};
use crate::api::volumes::find_for;
use crate::connections::Connector;
use crate::fault::Fault;

pub(super) async fn initialize(act: &Act<'_>) -> Result<Response, Fault> {
    const RULE: &str = "volume_extension:volume_actions:initialize_connection";
    let connector = connector(act)?.ok_or_else(|| act.fields.required("connector"))?;
    let service = act.service;
    let decided = service.records.edit(|edit| {
        let volume = find_for(service, edit.tables, act.context, RULE, act.id)?.clone();
        Ok::<_, Fault>(connection::with_secret(edit, &volume))
    });
    let volume = decided.await?;
    let mut info = connection::open(service, &volume, &connector, None, (None, None)).await?;
    let kind = info.remove("driver_volume_type").unwrap_or_default();
    let enforce = info.remove("enforce_multipath").unwrap_or(json!(false));
    let answer = json!({"connection_info": {
        "driver_volume_type": kind,
        "data": info,
        "enforce_multipath": enforce,
    }});
    Ok(axum::Json(answer).into_response())
}

pub(super) async fn terminate(act: &Act<'_>) -> Result<(), Fault> {
    const RULE: &str = "volume_extension:volume_actions:terminate_connection";
    let connector = connector(act)?.unwrap_or_default();
    let service = act.service;
    service.records.fresh().await?;
    let (volume, attached) = {
        let tables = service.records.tables();
        let volume = find_for(service, &tables, act.context, RULE, act.id)?;
        let attached: Vec<_> = tables
            .attachments
            .of_parent(act.id)
            .map(|attached| attached.record.clone())
            .collect();
        (volume.record.clone(), attached)
    };
    for attachment in &attached {
        let is_meant = connector.is_empty()
            || attachment
                .connector
                .as_ref()
                .is_some_and(|known| known.get("initiator") == connector.get("initiator"));
        if is_meant {
            guard::check(service, act.context, attachment).await?;
        }
    }
    let closed = if connector.is_empty() {
        service.connections.withdraw(&service.storage, &volume).await
    } else {
        service
            .connections
            .close(&service.storage, &volume, &connector, None)
            .await
    };
    closed.map_err(Into::into)
}

fn connector(act: &Act<'_>) -> Result<Option<Connector>, Fault> {
    match act.fields.value("connector") {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map.clone())),
        Some(other) => Err(Fault::field("connector", other, "it is no object")),
    }
}
