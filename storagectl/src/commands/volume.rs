//! `storagectl volume`.

mod label;
mod limit;
mod retype;

use admin_api::ErrorKind;
use admin_api::names::{Reference, check_name};
use admin_api::routes::{self, fill};
use admin_api::scrubs::{CheckVolume, ScrubStarted};
use admin_api::sizes::{SizeInput, format_size, parse_size};
use admin_api::snapshots::{CloneSnapshot, CreateSnapshot, Snapshot};
use admin_api::tasks::Deleted;
use admin_api::volumes::{
    CreateVolume, RenameVolume, ResizeVolume, RollbackVolume, Space, TakeOverVolume, Tree, Volume,
    VolumeAnswer, VolumeList,
};
use anyhow::{Result, ensure};

use super::{scrub, task};
use crate::api::{Api, ApiError};
use crate::arguments::VolumeCommand;
use crate::clock::format_time;
use crate::confirm::confirm;
use crate::output::{Form, exact_size, properties, table, with_notes};
use crate::tree;

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: VolumeCommand) -> Result<()> {
    match command {
        VolumeCommand::Create {
            name,
            size,
            pool,
            limits,
        } => {
            let limits = Some(limits.limits()?);
            let request = CreateVolume {
                name,
                size: SizeInput::Text(size),
                pool,
                limits: limits.filter(|limits| !limits.is_empty()),
            };
            answer(form, &api.post(routes::VOLUMES, &request).await?, "created")
        }
        VolumeCommand::List { pool } => list(api, form, pool).await,
        VolumeCommand::Info { name } => {
            check_name(&name)?;
            let path = format!("{}?space=true", fill(routes::VOLUME, &[&name]));
            form.show(&api.get(&path).await?, describe)
        }
        VolumeCommand::Rename { name, new_name } => {
            check_name(&name)?;
            let path = fill(routes::VOLUME_RENAME, &[&name]);
            answer(
                form,
                &api.post(&path, &RenameVolume { name: new_name }).await?,
                "renamed",
            )
        }
        VolumeCommand::Grow { name, size } => {
            let size = match size.strip_prefix('+') {
                Some(more) => SizeInput::Bytes(get(api, &name).await?.size.saturating_add(parse_size(more)?)),
                None => SizeInput::Text(size),
            };
            resize(api, form, &name, size, false).await
        }
        VolumeCommand::Label { name, set, remove } => label::perform(api, form, &name, &set, &remove).await,
        VolumeCommand::Limit { name, none, limits } => limit::perform(api, form, &name, none, &limits).await,
        VolumeCommand::Shrink { name, size, yes } => shrink(api, form, &name, size, yes).await,
        VolumeCommand::Delete {
            name,
            with_snapshots,
            wait,
            yes,
        } => {
            check_name(&name)?;
            confirm(
                yes,
                &format!("This deletes the volume {name} and all data in it."),
                &name,
            )?;
            let path = fill(routes::VOLUME, &[&name]);
            let deleted = api
                .delete(&format!("{path}?with_snapshots={with_snapshots}"))
                .await;
            let deleted: Deleted = deleted.map_err(with_hint)?;
            task::after_deletion(api, form, &format!("volume {name}"), deleted, wait).await
        }
        VolumeCommand::Snapshot { volume, snapshot } => {
            check_name(&volume)?;
            let path = fill(routes::VOLUME_SNAPSHOTS, &[&volume]);
            let made: Snapshot = api.post(&path, &CreateSnapshot { name: snapshot }).await?;
            form.show(&made, |made| {
                format!("snapshot {}@{} created", made.volume, made.name)
            })
        }
        VolumeCommand::Clone { snapshot, name } => {
            let path = super::snapshot::path(routes::SNAPSHOT_CLONE, &snapshot);
            answer(form, &api.post(&path, &CloneSnapshot { name }).await?, "created")
        }
        VolumeCommand::Rollback { snapshot, yes } => rollback(api, form, snapshot, yes).await,
        VolumeCommand::Retype {
            name,
            pool,
            rate,
            detach,
        } => retype::perform(api, form, &name, pool, rate.as_deref(), detach).await,
        VolumeCommand::TakeOver { name, yes } => take_over(api, form, &name, yes).await,
        VolumeCommand::Check { name, deep, snapshot } => {
            check_name(&name)?;
            let request = CheckVolume { deep, snapshot };
            let started: ScrubStarted = api.post(&fill(routes::VOLUME_CHECK, &[&name]), &request).await?;
            scrub::report(api, form, started.task).await
        }
        VolumeCommand::Tree { name } => {
            check_name(&name)?;
            let family: Tree = api.get(&fill(routes::VOLUME_TREE, &[&name])).await?;
            form.show(&family, tree::draw)
        }
    }
}

/// The API says that something else would have to be allowed; this says how.
fn with_hint(error: ApiError) -> anyhow::Error {
    let has_snapshots = matches!(&error, ApiError::Refused(body) if body.kind == ErrorKind::HasSnapshots);
    let error = anyhow::Error::from(error);
    if has_snapshots {
        error.context("not deleted; --with-snapshots deletes them too")
    } else {
        error
    }
}

/// The volume of this name.
pub(super) async fn get(api: &Api, name: &str) -> Result<Volume> {
    check_name(name)?;
    Ok(api.get(&fill(routes::VOLUME, &[name])).await?)
}

async fn list(api: &Api, form: Form, pool: Option<String>) -> Result<()> {
    let mut path = routes::VOLUMES.to_owned();
    if let Some(pool) = pool {
        check_name(&pool)?;
        path = format!("{path}?pool={pool}");
    }
    form.show(&api.get(&path).await?, render_list)
}

async fn shrink(api: &Api, form: Form, name: &str, size: String, yes: bool) -> Result<()> {
    let present = get(api, name).await?.size;
    let wanted = SizeInput::Text(size);
    let bytes = wanted.volume_size()?.bytes;
    ensure!(
        bytes < present,
        "{name} has {}: to make it larger, say grow",
        exact_size(present)
    );
    let lost = format_size(present - bytes);
    confirm(
        yes,
        &format!("This cuts off the last {lost} of the volume {name}, and the data there."),
        name,
    )?;
    resize(api, form, name, wanted, true).await
}

async fn resize(api: &Api, form: Form, name: &str, size: SizeInput, allow_shrink: bool) -> Result<()> {
    check_name(name)?;
    let path = fill(routes::VOLUME_RESIZE, &[name]);
    answer(
        form,
        &api.post(&path, &ResizeVolume { size, allow_shrink }).await?,
        "resized",
    )
}

async fn rollback(api: &Api, form: Form, snapshot: Reference, yes: bool) -> Result<()> {
    let danger = format!(
        "This puts {} back to {snapshot}: all that was written since is lost.",
        snapshot.volume
    );
    confirm(yes, &danger, &snapshot.volume)?;
    let path = fill(routes::VOLUME_ROLLBACK, &[&snapshot.volume]);
    let request = RollbackVolume {
        snapshot: snapshot.snapshot.unwrap_or_default(),
    };
    answer(form, &api.post(&path, &request).await?, "rolled back")
}

async fn take_over(api: &Api, form: Form, name: &str, yes: bool) -> Result<()> {
    let owner = get(api, name).await?.owner;
    if let Some(owner) = &owner {
        let danger = format!(
            "This takes the volume {name} from {}: the guest there loses it at once, also if it is alive.",
            owner.client
        );
        confirm(yes, &danger, name)?;
    }
    let path = fill(routes::VOLUME_TAKE_OVER, &[name]);
    // Only from the one that was shown; where there is none, this is refused.
    let request = TakeOverVolume {
        generation: Some(owner.map_or(0, |owner| owner.generation)),
    };
    answer(form, &api.post(&path, &request).await?, "taken over")
}

fn answer(form: Form, answer: &VolumeAnswer, what: &str) -> Result<()> {
    form.show(answer, |answer| {
        let Volume { name, size, .. } = &answer.volume;
        let background = answer
            .task
            .map(|task| format!("space comes back in the background (task {task})"));
        let notes: Vec<String> = answer.notes.iter().cloned().chain(background).collect();
        with_notes(format!("volume {name} {what}, {}", exact_size(*size)), &notes)
    })
}

fn render_list(list: &VolumeList) -> String {
    let rows = list.volumes.iter().map(|volume| {
        [
            volume.name.clone(),
            format_size(volume.size),
            volume.pool.clone(),
            volume.snapshots.to_string(),
            volume
                .owner
                .as_ref()
                .map_or_else(|| "-".into(), |owner| owner.client.clone()),
            format_time(volume.created_ms),
        ]
    });
    table(
        ["name", "size", "pool", "snapshots", "open by", "created"],
        &["size", "snapshots"],
        rows,
    )
}

fn describe(volume: &Volume) -> String {
    let origin = volume
        .origin
        .as_ref()
        .map(|origin| format!("{}@{}", origin.volume, origin.snapshot));
    let owner = volume.owner.as_ref();
    let text = properties(&[
        ("name", volume.name.clone()),
        ("id", volume.id.to_string()),
        ("serial", volume.serial.clone()),
        ("size", exact_size(volume.size)),
        ("takes", volume.space.as_ref().map(takes).unwrap_or_default()),
        ("pool", volume.pool.clone()),
        ("limits", limit::told(&volume.limits)),
        ("labels", label::told(&volume.labels)),
        (
            "moves",
            volume
                .moving
                .as_ref()
                .map(|_| retype::told(volume))
                .unwrap_or_default(),
        ),
        ("created", format_time(volume.created_ms)),
        ("snapshots", volume.snapshots.to_string()),
        ("cloned from", origin.unwrap_or_default()),
        ("family", volume.family.to_string()),
        (
            "open by",
            owner.map_or_else(|| "nobody".into(), |owner| owner.client.clone()),
        ),
        (
            "generation",
            owner
                .map(|owner| owner.generation.to_string())
                .unwrap_or_default(),
        ),
    ]);
    let unknown = volume.space.as_ref().map(|space| space.unknown.as_slice());
    with_notes(text, unknown.unwrap_or_default())
}

/// In one line, what a volume takes.
fn takes(space: &Space) -> String {
    let all = format_size(space.own + space.shared);
    match space.shared {
        0 => format!("{all} on all disks"),
        shared => format!(
            "{all} on all disks, {} of them shared with snapshots or clones",
            format_size(shared)
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! What a person sees of a volume.
    use super::*;
    use admin_api::limits::VolumeLimits;
    use admin_api::volumes::{Origin, Owner};

    pub(super) fn volume() -> Volume {
        Volume {
            id: 7,
            name: "db".into(),
            pool: "main".into(),
            moving: None,
            size: 10 << 30,
            labels: std::collections::BTreeMap::new(),
            limits: VolumeLimits::default(),
            family: 3,
            created_ms: 0,
            snapshots: 2,
            origin: Some(Origin {
                volume: "golden".into(),
                snapshot: "v1".into(),
            }),
            owner: Some(Owner {
                client: "vhost-blk 4711".into(),
                generation: 42,
            }),
            serial: "sd-7".into(),
            space: Some(Space {
                own: 3 << 30,
                shared: 6 << 30,
                unknown: vec!["node-3 does not tell".into()],
            }),
        }
    }

    #[test]
    fn the_list_has_one_line_for_each_volume() {
        let text = render_list(&VolumeList {
            volumes: vec![volume()],
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("NAME  "), "{text}");
        assert!(
            lines[1].starts_with("db ") && lines[1].contains("10 GiB") && lines[1].contains("vhost-blk 4711"),
            "{text}"
        );
    }

    #[test]
    fn a_volume_that_nobody_has_open_says_so_and_hides_its_generation() {
        let text = describe(&Volume {
            owner: None,
            origin: None,
            ..volume()
        });
        assert!(
            text.contains("open by      nobody") || text.contains("nobody"),
            "{text}"
        );
        assert!(
            !text.contains("generation") && !text.contains("cloned from"),
            "{text}"
        );
        assert!(describe(&volume()).contains("golden@v1"));
    }

    #[test]
    fn what_a_volume_takes_is_told_and_what_is_left_out_of_it() {
        let text = describe(&volume());
        assert!(
            text.contains("9.0 GiB on all disks, 6.0 GiB of them shared")
                || text.contains("9 GiB on all disks, 6 GiB of them shared"),
            "{text}"
        );
        assert!(text.contains("node-3 does not tell"), "{text}");
        let alone = Space {
            own: 64 << 10,
            ..Space::default()
        };
        assert_eq!(takes(&alone), "64 KiB on all disks");
    }
}
