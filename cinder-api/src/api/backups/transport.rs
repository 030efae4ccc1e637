//! `/backups/ID/export_record` and `/backups/import_record`: what the records say of a backup, for the day on which they are
//! lost. The bytes stay where they are.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{find_for, summary};
use crate::api::volumes::later;
use crate::fault::Fault;
use crate::quota;
use crate::records::backup::BackupStatus;
use crate::records::job::Task;
use crate::records::{Backup, Instant};
use crate::request::body::{INTEGER_MAX, TEXT_MAX, is_uuid};
use crate::request::{Body, Context};
use crate::service::Shared;
use crate::work;

/// What made the backup, in a word that begins as those of Cinder's own do: clients look for that.
const SERVICE: &str = "cinder.backup.drivers.storaged.v1";
/// The longest record, in bytes.
const RECORD_BYTES_MAX: usize = 65_536;

pub(super) async fn export(
    State(service): Shared,
    context: Context,
    Path(id): Path<String>,
) -> Result<Json<Value>, Fault> {
    service.records.fresh().await?;
    let tables = service.records.tables();
    let backup = find_for(&service, &tables, &context, "backup:backup-export", &id)?;
    if backup.status != BackupStatus::Available {
        return Err(Fault::bad_request(format!(
            "Invalid backup: Backup status must be available and not {}.",
            backup.status
        )));
    }
    let record = serde_json::to_vec(&backup.record).map_err(|error| Fault::internal(&error))?;
    Ok(Json(json!({"backup-record": {
        "backup_service": SERVICE,
        "backup_url": BASE64.encode(&record),
    }})))
}

pub(super) async fn import(State(service): Shared, context: Context, body: Body) -> Result<Response, Fault> {
    service.check("backup:backup-import", &context)?;
    body.only(&["backup-record"])?;
    let fields = body.object("backup-record")?;
    fields.only(&["backup_service", "backup_url"])?;
    let made_by = fields.required_text("backup_service", 1..=TEXT_MAX)?;
    let record = fields.required_text("backup_url", 1..=RECORD_BYTES_MAX)?;
    if made_by != SERVICE {
        return Err(Fault::bad_request(format!(
            "Invalid input received: backups of {made_by} cannot be read here."
        )));
    }
    service.backups()?;
    let project = context.project()?;
    let told = decode(&record)?;
    let backup = Backup {
        project_id: project.to_owned(),
        user_id: context.caller.user_id.clone(),
        status: BackupStatus::Creating,
        created_at: Instant::now(),
        updated_at: None,
        fail_reason: None,
        ..told
    };
    let imported = service.records.edit(|edit| {
        if edit.tables.backups.get(&backup.id).is_some() {
            return Err(Fault::bad_request(format!(
                "Invalid backup: Backup already exists in database: {}.",
                backup.id
            )));
        }
        let mut backup = backup.clone();
        // What it is the difference to may not have been imported, and is not needed to read it.
        let parent = backup.parent_id.as_deref();
        let parent = parent.and_then(|parent| edit.tables.backups.get(parent));
        let parent = parent.filter(|parent| parent.project_id == project);
        if let Some(parent) = parent {
            edit.touch(parent);
        }
        backup.parent_id = parent.map(|parent| parent.id.clone());
        quota::take(edit, project, &work::backup_amounts(backup.size))?;
        edit.insert(&backup);
        let task = Task::ImportBackup {
            backup: backup.id.clone(),
        };
        later(edit, &context, project, task);
        Ok::<_, Fault>(backup)
    });
    let backup = imported.await?;
    let shown = json!({"backup": summary(&context, &backup)});
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// Names in a record become names of files: they are identities, and nothing else.
fn decode(record: &str) -> Result<Backup, Fault> {
    let wrong = |why: &str| {
        Fault::bad_request(format!(
            "Invalid input received: Can't parse backup record: {why}."
        ))
    };
    let bytes = BASE64
        .decode(record.as_bytes())
        .map_err(|_| wrong("it is no base64"))?;
    let backup: Backup = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
    let identities = [&backup.id, &backup.stored_as, &backup.volume_id];
    let others = backup.rests_on.iter().chain(&backup.parent_id);
    if !identities.into_iter().chain(others).all(|id| is_uuid(id)) {
        return Err(wrong("an identity in it is no UUID"));
    }
    // It becomes a part of an address, and is looked at again when it does.
    if backup
        .container
        .as_ref()
        .is_some_and(|name| name.len() > TEXT_MAX)
    {
        return Err(wrong("its container has too long a name"));
    }
    if i64::try_from(backup.size).map_or(true, |size| !(1..=INTEGER_MAX).contains(&size)) {
        return Err(wrong("its size is none"));
    }
    Ok(backup)
}

#[cfg(test)]
mod tests {
    //! Records that somebody has changed by hand.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use super::*;

    fn encoded(changes: &[(&str, Value)]) -> String {
        let id = "11111111-2222-4333-8444-555555555555";
        let mut record = json!({
            "id": id, "project_id": "p", "user_id": "u", "volume_id": id, "size": 1, "status": "available",
            "availability_zone": "nova", "created_at": 1, "data_timestamp": 1, "stored_as": id, "source": {},
        });
        for (key, value) in changes {
            record[*key] = value.clone();
        }
        BASE64.encode(record.to_string().as_bytes())
    }

    #[test]
    fn a_record_cannot_name_a_file_elsewhere() {
        assert!(decode(&encoded(&[])).is_ok());
        for field in ["id", "stored_as", "volume_id", "parent_id"] {
            let record = encoded(&[(field, json!("../../etc/passwd"))]);
            assert_eq!(decode(&record).unwrap_err().status, 400, "{field}");
        }
        assert!(decode(&encoded(&[("rests_on", json!(["/etc"]))])).is_err());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for record in [
            "",
            "&",
            "bm9uZQ==",
            &encoded(&[("size", json!(0))]),
            &encoded(&[("size", json!(-1))]),
        ] {
            assert_eq!(decode(record).unwrap_err().status, 400, "{record}");
        }
    }
}
