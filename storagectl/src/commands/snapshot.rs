//! `storagectl snapshot`.

use admin_api::names::{Reference, check_name};
use admin_api::routes::{self, fill};
use admin_api::sizes::format_size;
use admin_api::snapshots::{CreateGroupSnapshot, Snapshot, SnapshotList};
use admin_api::tasks::Deleted;
use anyhow::Result;

use super::task;
use crate::api::Api;
use crate::arguments::SnapshotCommand;
use crate::clock::format_time;
use crate::confirm::confirm;
use crate::output::{Form, exact_size, properties, table};

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Create { name, volumes } => {
            let made: SnapshotList = api
                .post(routes::GROUP_SNAPSHOTS, &CreateGroupSnapshot { volumes, name })
                .await?;
            form.show(&made, |made| {
                let names = made
                    .snapshots
                    .iter()
                    .map(|made| format!("snapshot {}@{} created", made.volume, made.name));
                names.collect::<Vec<_>>().join("\n")
            })
        }
        SnapshotCommand::List { volume } => {
            let path = match &volume {
                Some(volume) => {
                    check_name(volume)?;
                    fill(routes::VOLUME_SNAPSHOTS, &[volume])
                }
                None => routes::SNAPSHOTS.to_owned(),
            };
            form.show(&api.get(&path).await?, render_list)
        }
        SnapshotCommand::Info { snapshot } => form.show(
            &api.get(&path(routes::VOLUME_SNAPSHOT, &snapshot)).await?,
            describe,
        ),
        SnapshotCommand::Delete { snapshot, wait, yes } => {
            let name = snapshot.to_string();
            confirm(yes, &format!("This deletes the snapshot {name}."), &name)?;
            let deleted: Deleted = api.delete(&path(routes::VOLUME_SNAPSHOT, &snapshot)).await?;
            task::after_deletion(api, form, &format!("snapshot {name}"), deleted, wait).await
        }
    }
}

/// A path about a snapshot.
pub(super) fn path(pattern: &str, snapshot: &Reference) -> String {
    fill(
        pattern,
        &[&snapshot.volume, snapshot.snapshot.as_deref().unwrap_or_default()],
    )
}

fn render_list(list: &SnapshotList) -> String {
    let rows = list.snapshots.iter().map(|snapshot| {
        [
            format!("{}@{}", snapshot.volume, snapshot.name),
            format_size(snapshot.size),
            format_time(snapshot.created_ms),
        ]
    });
    table(["snapshot", "size", "created"], &["size"], rows)
}

fn describe(snapshot: &Snapshot) -> String {
    properties(&[
        ("snapshot", format!("{}@{}", snapshot.volume, snapshot.name)),
        ("id", snapshot.id.to_string()),
        ("size", exact_size(snapshot.size)),
        ("created", format_time(snapshot.created_ms)),
    ])
}

#[cfg(test)]
mod tests {
    //! A snapshot is shown by the name that one types to use it.
    use super::*;

    #[test]
    fn a_snapshot_is_listed_as_it_is_typed() {
        let snapshot = Snapshot {
            id: 1,
            volume: "db".into(),
            name: "monday".into(),
            size: 4096,
            created_ms: 0,
        };
        assert!(describe(&snapshot).contains("db@monday"));
        assert!(
            render_list(&SnapshotList {
                snapshots: vec![snapshot]
            })
            .contains("\ndb@monday")
        );
    }
}
