//! `storagectl iscsi`: targets, their LUNs, who may log in, and where.

use admin_api::iscsi::{
    AddAccess, AddLun, CreateTarget, IscsiNameError, Lun, PortalList, SecretsState, TargetInfo, TargetList,
    normalise_name,
};
use admin_api::routes::{self, fill};
use anyhow::Result;
use serde::Serialize;

use crate::api::Api;
use crate::arguments::{AclCommand, IscsiCommand, LunCommand, MutualCommand, PortalCommand, TargetCommand};
use crate::clock::format_time;
use crate::confirm::confirm;
use crate::output::{Form, properties, table};

mod secret;

use secret::Secret;

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: IscsiCommand) -> Result<()> {
    match command {
        IscsiCommand::Target(command) => target(api, form, command).await,
        IscsiCommand::Lun(command) => lun(api, form, command).await,
        IscsiCommand::Acl(command) => acl(api, form, command).await,
        IscsiCommand::Mutual(command) => mutual(api, form, command).await,
        IscsiCommand::Portal(PortalCommand::List) => {
            form.show(&api.get(routes::ISCSI_PORTALS).await?, render_portals)
        }
    }
}

async fn target(api: &Api, form: Form, command: TargetCommand) -> Result<()> {
    match command {
        TargetCommand::Create { name } => {
            let made: TargetInfo = api.post(routes::ISCSI_TARGETS, &CreateTarget { name }).await?;
            form.show(&made, |made| {
                format!(
                    "target {} created; it has no LUN (storagectl iscsi lun add) and lets nobody in (storagectl iscsi \
                     acl add) yet",
                    made.name
                )
            })
        }
        TargetCommand::List => form.show(&api.get(routes::ISCSI_TARGETS).await?, render_targets),
        TargetCommand::Show { name } => form.show(&get(api, &name).await?, describe),
        TargetCommand::Delete { name, yes } => {
            let target = get(api, &name).await?;
            let danger = format!(
                "This deletes the iSCSI target {} with {} LUNs. The volumes stay, but hosts that use them lose them.",
                target.name,
                target.luns.len()
            );
            confirm(yes, &danger, &target.name)?;
            api.delete::<()>(&fill(routes::ISCSI_TARGET, &[&target.name]))
                .await?;
            form.say(&format!("target {} deleted", target.name))
        }
    }
}

async fn lun(api: &Api, form: Form, command: LunCommand) -> Result<()> {
    match command {
        LunCommand::Add {
            target,
            volume,
            number,
            read_only,
            block_size,
        } => {
            let target = normalise_name(&target)?;
            let request = AddLun {
                volume: volume.clone(),
                number,
                read_only,
                block_size,
            };
            let changed: TargetInfo = api.post(&fill(routes::ISCSI_LUNS, &[&target]), &request).await?;
            let added = changed.luns.iter().find(|lun| lun.volume == volume);
            let number = added.map_or_else(String::new, |lun| format!(" {}", lun.number));
            form.show(&changed, |_| {
                format!("volume {volume} is LUN{number} of target {target}")
            })
        }
        LunCommand::Remove { target, number, yes } => {
            let target = get(api, &target).await?;
            if let Some(lun) = target.luns.iter().find(|lun| lun.number == number) {
                let danger = format!(
                    "This removes LUN {number}, volume {}, of target {} with its reservations. The volume stays, but \
                     hosts that use it lose it.",
                    lun.volume, target.name
                );
                // Of a volume that is gone there is no name to type.
                let name = if lun.volume.is_empty() {
                    &target.name
                } else {
                    &lun.volume
                };
                confirm(yes, &danger, name)?;
            }
            // What is not there is refused by storaged, in words.
            let path = fill(routes::ISCSI_LUN, &[&target.name, &number.to_string()]);
            let changed: TargetInfo = api.delete(&path).await?;
            form.show(&changed, |changed| {
                format!("LUN {number} of target {} removed", changed.name)
            })
        }
        LunCommand::List { target: Some(target) } => form.show(&get(api, &target).await?, |target| {
            render_luns(std::slice::from_ref(target))
        }),
        LunCommand::List { target: None } => {
            let list: TargetList = api.get(routes::ISCSI_TARGETS).await?;
            form.show(&list, |list| render_luns(&list.targets))
        }
    }
}

/// A changed target, and the secret that was made for it: it is shown once.
#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    target: TargetInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    chap_secret: Option<String>,
}

async fn acl(api: &Api, form: Form, command: AclCommand) -> Result<()> {
    match command {
        AclCommand::Add {
            target,
            initiator,
            chap,
            secret,
        } => {
            let target = normalise_name(&target)?;
            let initiator = normalise_name(&initiator)?;
            let secret = Secret::obtain(&secret, chap, &initiator)?;
            let chap = secret.as_ref().map(|secret| secret.credentials.clone());
            let request = AddAccess {
                initiator: initiator.clone(),
                chap,
            };
            let path = fill(routes::ISCSI_ACCESS, &[&target]);
            let changed: TargetInfo = api.post(&path, &request).await?;
            let sentence = match &request.chap {
                Some(chap) => format!(
                    "{initiator} may log in to target {target} with CHAP as {}",
                    chap.user
                ),
                None => format!(
                    "{initiator} may log in to target {target}. Everybody who knows this name may: with \
                     --chap-generate a secret is needed too"
                ),
            };
            show_changed(form, changed, secret, &sentence)
        }
        AclCommand::Remove {
            target,
            initiator,
            yes,
        } => {
            let (target, initiator) = (normalise_name(&target)?, normalise_name(&initiator)?);
            let danger = format!("{initiator} will lose all disks of target {target}.");
            confirm(yes, &danger, &initiator)?;
            let path = fill(routes::ISCSI_INITIATOR, &[&target, &initiator]);
            let changed: TargetInfo = api.delete(&path).await?;
            form.show(&changed, |_| {
                format!("{initiator} may log in to target {target} no more")
            })
        }
        AclCommand::List { target } => form.show(&get(api, &target).await?, render_access),
    }
}

async fn mutual(api: &Api, form: Form, command: MutualCommand) -> Result<()> {
    match command {
        MutualCommand::Set { target, secret } => {
            let target = normalise_name(&target)?;
            let secret = Secret::obtain(&secret, true, &target)?;
            let Some(secret) = secret else { return Ok(()) };
            let path = fill(routes::ISCSI_MUTUAL, &[&target]);
            let changed: TargetInfo = api.put(&path, &secret.credentials).await?;
            let sentence = format!(
                "target {target} shows hosts who it is as {}",
                secret.credentials.user
            );
            show_changed(form, changed, Some(secret), &sentence)
        }
        MutualCommand::Clear { target } => {
            let target = normalise_name(&target)?;
            let changed: TargetInfo = api.delete(&fill(routes::ISCSI_MUTUAL, &[&target])).await?;
            form.show(&changed, |_| {
                format!("target {target} shows hosts no more who it is")
            })
        }
    }
}

fn show_changed(form: Form, target: TargetInfo, secret: Option<Secret>, sentence: &str) -> Result<()> {
    let made = secret.filter(|secret| secret.was_made);
    let changed = Changed {
        target,
        chap_secret: made.map(|secret| secret.credentials.secret),
    };
    form.show(&changed, |changed| match &changed.chap_secret {
        Some(secret) => {
            format!("{sentence}. The secret is not shown again by this program:\n\n  {secret}\n")
        }
        None => sentence.to_owned(),
    })
}

async fn get(api: &Api, name: &str) -> Result<TargetInfo> {
    let name = normalise_name(name).map_err(|error: IscsiNameError| anyhow::Error::new(error))?;
    Ok(api.get(&fill(routes::ISCSI_TARGET, &[&name])).await?)
}

fn render_targets(list: &TargetList) -> String {
    let rows = list.targets.iter().map(|target| {
        [
            target.name.clone(),
            target.luns.len().to_string(),
            target.access.len().to_string(),
            if target.mutual_user.is_some() { "yes" } else { "no" }.to_owned(),
        ]
    });
    table(
        ["name", "luns", "initiators", "mutual chap"],
        &["luns", "initiators"],
        rows,
    )
}

fn describe(target: &TargetInfo) -> String {
    let portals: Vec<String> = target
        .portals
        .iter()
        .map(|portal| portal.address.clone())
        .collect();
    let head = properties(&[
        ("name", target.name.clone()),
        ("created", format!("{} UTC", format_time(target.created_ms))),
        ("mutual chap", target.mutual_user.clone().unwrap_or_default()),
        (
            "secrets",
            target
                .secrets
                .map(describe_secrets)
                .unwrap_or_default()
                .to_owned(),
        ),
        (
            "served at",
            if portals.is_empty() {
                "nowhere: no storaged-iscsi runs".to_owned()
            } else {
                portals.join(", ")
            },
        ),
    ]);
    let luns = render_luns(std::slice::from_ref(target));
    let access = if target.access.is_empty() {
        "nobody may log in: storagectl iscsi acl add".to_owned()
    } else {
        render_access(target)
    };
    format!("{head}\n\n{luns}\n\n{access}")
}

fn describe_secrets(state: SecretsState) -> &'static str {
    match state {
        SecretsState::Sealed => "sealed in the coordination store",
        SecretsState::Clear => "in the clear in the coordination store",
        SecretsState::Lost => {
            "of another cluster: whoever should show one is not let in, set them anew (storagectl iscsi acl add, mutual set)"
        }
    }
}

fn render_luns(targets: &[TargetInfo]) -> String {
    let luns = targets
        .iter()
        .flat_map(|target| target.luns.iter().map(move |lun| (target, lun)));
    let rows = luns.map(|(target, lun)| {
        [
            target.name.clone(),
            lun.number.to_string(),
            volume(lun),
            if lun.read_only { "read only" } else { "read, write" }.to_owned(),
            lun.block_size.to_string(),
        ]
    });
    table(
        ["target", "lun", "volume", "access", "block size"],
        &["lun", "block size"],
        rows,
    )
}

fn volume(lun: &Lun) -> String {
    if lun.volume.is_empty() {
        format!("(volume {} is gone)", lun.volume_id)
    } else {
        lun.volume.clone()
    }
}

fn render_access(target: &TargetInfo) -> String {
    let rows = target.access.iter().map(|access| {
        [
            access.initiator.clone(),
            access
                .chap_user
                .clone()
                .unwrap_or_else(|| "none: its name is enough".to_owned()),
        ]
    });
    table(["initiator", "chap user"], &[], rows)
}

fn render_portals(list: &PortalList) -> String {
    let rows = list.portals.iter().map(|portal| {
        [
            portal.node.clone(),
            portal.address.clone(),
            portal.group.to_string(),
        ]
    });
    table(["node", "address", "group"], &["group"], rows)
}

#[cfg(test)]
mod tests {
    //! What a person sees of targets.
    use admin_api::iscsi::{AccessInfo, Portal};

    use super::*;

    fn target() -> TargetInfo {
        TargetInfo {
            name: "iqn.2026-11.org.example:disks".to_owned(),
            luns: vec![
                Lun {
                    number: 0,
                    volume: "vm-1".to_owned(),
                    volume_id: 7,
                    read_only: false,
                    block_size: 512,
                },
                Lun {
                    number: 1,
                    volume: String::new(),
                    volume_id: 8,
                    read_only: true,
                    block_size: 4096,
                },
            ],
            access: vec![AccessInfo {
                initiator: "iqn.1993-08.org.debian:01:a".to_owned(),
                chap_user: None,
            }],
            mutual_user: None,
            secrets: None,
            portals: vec![Portal {
                node: "n1".to_owned(),
                address: "10.0.0.1:3260".to_owned(),
                group: 1,
            }],
            created_ms: 0,
        }
    }

    #[test]
    fn a_target_shows_its_luns_who_may_log_in_and_where() {
        let text = describe(&target());
        for told in [
            "10.0.0.1:3260",
            "vm-1",
            "(volume 8 is gone)",
            "its name is enough",
        ] {
            assert!(text.contains(told), "{text}");
        }
        let empty = TargetInfo {
            access: Vec::new(),
            portals: Vec::new(),
            secrets: Some(SecretsState::Lost),
            ..target()
        };
        let text = describe(&empty);
        assert!(text.contains("set them anew"), "{text}");
        assert!(
            text.contains("nowhere") && text.contains("nobody may log in"),
            "{text}"
        );
    }
}
