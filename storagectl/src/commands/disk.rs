//! `storagectl disk`, as far as a running storaged is asked.

use admin_api::disks::{AddDisk, ChangeDisk, Disk, DiskList, DiskState, GiveUp, GivenUp};
use admin_api::routes::{self, fill};
use admin_api::scrubs::StartScrub;
use admin_api::sizes::{SizeInput, format_size};
use anyhow::Result;

use super::{drain, scrub};
use crate::api::Api;
use crate::arguments::DiskCommand;
use crate::confirm::confirm;
use crate::output::{Form, exact_size, known, properties, share, table};

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: DiskCommand) -> Result<()> {
    match command {
        DiskCommand::Add {
            path,
            capacity,
            weight,
        } => {
            let request = AddDisk {
                path,
                capacity: capacity.map(SizeInput::Text),
                weight,
            };
            let disk: Disk = api.post(routes::DISKS, &request).await?;
            form.show(&disk, |disk| format!("disk {} added: {}", disk.id, disk.path))
        }
        DiskCommand::List => form.show(&api.get(routes::DISKS).await?, render_list),
        DiskCommand::Info { disk } => form.show(
            &api.get(&fill(routes::DISK, &[&disk.to_string()])).await?,
            describe,
        ),
        DiskCommand::Weight { disk, weight } => {
            let path = fill(routes::DISK, &[&disk.to_string()]);
            let change = ChangeDisk {
                weight: Some(weight),
                ..ChangeDisk::default()
            };
            let disk: Disk = api.patch(&path, &change).await?;
            form.show(&disk, |disk| {
                format!("disk {} has the weight {}", disk.id, disk.weight)
            })
        }
        DiskCommand::Drain { disk, undo, wait } => {
            let path = fill(routes::DISK, &[&disk.to_string()]);
            let change = ChangeDisk {
                drain: Some(!undo),
                ..ChangeDisk::default()
            };
            let mut known: Disk = api.patch(&path, &change).await?;
            if wait {
                known = drain::wait(api, &path, &format!("disk {disk}"), |disk: &Disk| disk.groups).await?;
            }
            form.show(&known, |disk| {
                drain::told(&format!("disk {}", disk.id), disk.draining, disk.groups)
            })
        }
        DiskCommand::GiveUp { disk, keep, yes } => {
            let known: Disk = api.get(&fill(routes::DISK, &[&disk.to_string()])).await?;
            let lost = keep.map_or_else(String::new, |keep| {
                format!(" Where it had the last copy, all that was written since disk {keep} left is LOST.")
            });
            let question = format!(
                "This gives up disk {disk} ({} on node {}): its placement groups go on without it.{lost}",
                known.path, known.node
            );
            confirm(yes, &question, &known.path)?;
            let path = fill(routes::DISK_GIVE_UP, &[&disk.to_string()]);
            let done: GivenUp = api.post(&path, &GiveUp { keep }).await?;
            form.show(&done, |done| {
                format!(
                    "disk {disk} is given up: {} placement groups go on without it, {} with an older copy",
                    done.without, done.rolled_back
                )
            })
        }
        DiskCommand::Remove { disk, yes } => {
            let path = fill(routes::DISK, &[&disk.to_string()]);
            let known: Disk = api.get(&path).await?;
            let question = format!(
                "This takes disk {disk} ({} on node {}) out of the cluster for good.",
                known.path, known.node
            );
            confirm(yes, &question, &known.path)?;
            api.delete::<()>(&path).await?;
            form.say(&format!(
                "disk {disk} removed; its directory {} is left as it is",
                known.path
            ))
        }
        DiskCommand::Trust { disk } => {
            let path = fill(routes::DISK, &[&disk.to_string()]);
            let change = ChangeDisk {
                trust: true,
                ..ChangeDisk::default()
            };
            let disk: Disk = api.patch(&path, &change).await?;
            form.show(&disk, |disk| format!("disk {} is trusted again", disk.id))
        }
        DiskCommand::Scrub { disk, deep, wait } => {
            let path = fill(routes::DISK_SCRUB, &[&disk.to_string()]);
            let started = api.post(&path, &StartScrub { deep }).await?;
            scrub::started(api, form, started, wait).await
        }
        // Done before anybody connects: see `offline`.
        DiskCommand::Inspect { directory } => super::offline::inspect(&directory, form),
        DiskCommand::Check { directory } => super::offline::check(&directory, form),
    }
}

fn render_list(list: &DiskList) -> String {
    let rows = list.disks.iter().map(|disk| {
        [
            disk.id.to_string(),
            shown_state(disk).to_owned(),
            disk.node.to_string(),
            disk.weight.to_string(),
            disk.groups.to_string(),
            known(disk.capacity, format_size),
            known(disk.used, format_size),
            share(disk.used, disk.capacity),
            disk.path.clone(),
        ]
    });
    let columns = [
        "disk", "state", "node", "weight", "groups", "capacity", "used", "full", "path",
    ];
    let table = table(
        columns,
        &["disk", "node", "weight", "groups", "capacity", "used", "full"],
        rows,
    );
    let reasons = list
        .disks
        .iter()
        .filter_map(|disk| Some(format!("disk {}: {}", disk.id, disk.reason.as_ref()?)));
    let up = |disk: &&Disk| disk.reason.is_none();
    let unknown = list
        .disks
        .iter()
        .filter(up)
        .filter_map(|disk| Some(format!("disk {}: {}", disk.id, disk.unknown.as_ref()?)));
    std::iter::once(table)
        .chain(reasons)
        .chain(unknown)
        .collect::<Vec<_>>()
        .join("\n")
}

fn describe(disk: &Disk) -> String {
    properties(&[
        ("disk", disk.id.to_string()),
        ("state", shown_state(disk).to_owned()),
        ("reason", disk.reason.clone().unwrap_or_default()),
        ("node", disk.node.to_string()),
        ("path", disk.path.clone()),
        ("weight", disk.weight.to_string()),
        ("placement groups", disk.groups.to_string()),
        ("capacity", known(disk.capacity, exact_size)),
        (
            "used",
            known(disk.used, |used| {
                format!("{}, {}", exact_size(used), share(Some(used), disk.capacity))
            }),
        ),
        ("free", known(disk.free, exact_size)),
        (
            "log",
            known(disk.log_used.zip(disk.log_size), |(used, size)| {
                format!("{} of {}", format_size(used), format_size(size))
            }),
        ),
        ("medium", known(disk.medium.clone(), |medium| medium)),
        ("not known", disk.unknown.clone().unwrap_or_default()),
    ])
}

/// A disk that serves and is being emptied says so.
fn shown_state(disk: &Disk) -> &'static str {
    match (disk.state, disk.draining) {
        (DiskState::Up, true) => "draining",
        (other, _) => state(other),
    }
}

fn state(state: DiskState) -> &'static str {
    match state {
        DiskState::Up => "up",
        DiskState::Starting => "starting",
        DiskState::Down => "down",
        DiskState::Poisoned => "poisoned",
    }
}

#[cfg(test)]
mod tests {
    //! A disk that is not well says why, in the list too.
    use super::*;

    fn sick() -> Disk {
        Disk {
            id: 2,
            node: 1,
            path: "/srv/disk-2".into(),
            state: DiskState::Poisoned,
            reason: Some("a flush failed: replace it".into()),
            weight: 100,
            draining: false,
            groups: 64,
            capacity: Some(1000),
            used: Some(250),
            free: Some(750),
            log_used: Some(0),
            log_size: Some(1 << 30),
            medium: Some("io_uring".into()),
            unknown: None,
            age_ms: 0,
        }
    }

    #[test]
    fn what_nobody_knows_is_a_dash_and_a_sentence_and_no_zero() {
        let silent = Disk {
            state: DiskState::Up,
            reason: None,
            capacity: None,
            used: None,
            free: None,
            log_used: None,
            log_size: None,
            medium: None,
            unknown: Some("node-1 does not tell: it did not answer".into()),
            ..sick()
        };
        let text = describe(&silent);
        assert!(
            text.contains("did not answer") && !text.contains("0 bytes"),
            "{text}"
        );
        let text = render_list(&DiskList { disks: vec![silent] });
        assert!(text.contains(" - ") && !text.contains(" 0 %"), "{text}");
        assert!(
            text.ends_with("disk 2: node-1 does not tell: it did not answer"),
            "{text}"
        );
    }

    #[test]
    fn the_reason_of_a_sick_disk_is_in_the_list() {
        let text = render_list(&DiskList { disks: vec![sick()] });
        assert!(text.contains("poisoned") && text.contains("25 %"), "{text}");
        assert!(text.ends_with("disk 2: a flush failed: replace it"), "{text}");
    }
}
