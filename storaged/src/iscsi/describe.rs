//! Records of iSCSI in the words of the admin API: with secrets for gateways, without for people.

use admin_api::iscsi::{
    Access, AccessInfo, Configuration, Holder, Lun, Portal, Registration, Reservations, Target, TargetInfo,
};
use coordination::ClusterMap;
use coordination::map::Versioned;
use coordination::records::{
    AccessRecord, HolderRecord, LunRecord, RegistrationRecord, ReservationsRecord, TargetRecord,
};
use tracing::warn;

use super::secrets::Secrets;

/// All that a gateway must know, with secrets. Whoever should show one that cannot be opened is not let in.
pub fn configuration(map: &ClusterMap, secrets: &Secrets) -> Configuration {
    let portals = portals(map);
    let targets = map.iscsi().targets().map(|(name, target)| Target {
        name: name.to_owned(),
        luns: luns(map, &target.record),
        access: let_in(name, &target.record, secrets),
        mutual: target
            .record
            .mutual
            .as_ref()
            .and_then(|own| secrets.open(name, None, own)),
        portals: portals.clone(),
        created_ms: target.record.created_ms,
    });
    Configuration {
        revision: map.iscsi().revision().0,
        targets: targets.collect(),
        portals: portals.clone(),
    }
}

/// All targets, without secrets.
pub fn targets(map: &ClusterMap, secrets: &Secrets) -> Vec<TargetInfo> {
    let targets = map.iscsi().targets();
    targets
        .map(|(name, target)| target_info(map, name, &target.record, secrets))
        .collect()
}

/// One target, without secrets.
pub fn target(map: &ClusterMap, name: &str, secrets: &Secrets) -> Option<TargetInfo> {
    let target = map.iscsi().target(name)?;
    Some(target_info(map, name, &target.record, secrets))
}

/// Where gateways serve.
pub fn portals(map: &ClusterMap) -> Vec<Portal> {
    let mut portals = Vec::new();
    for (node, group, portal) in map.iscsi().portals() {
        let name = map.node_name(node);
        // Written by a program that knows larger tags, which this one could not tell a gateway.
        let Ok(group) = u16::try_from(group) else { continue };
        portals.extend(portal.record.addresses.iter().map(|address| Portal {
            node: name.clone(),
            address: address.clone(),
            group,
        }));
    }
    portals
}

/// What is registered with a LUN.
pub fn reservations(kept: Option<&Versioned<ReservationsRecord>>) -> Reservations {
    let Some(Versioned { record, modified, .. }) = kept else {
        return Reservations::default();
    };
    Reservations {
        revision: modified.0,
        generation: record.generation,
        registrations: record.registrations.iter().map(registration).collect(),
        holder: record.holder.as_ref().map(holder),
        aptpl: record.aptpl,
        reserved: record.reserved.as_ref().map(holder),
        resets: record.resets,
    }
}

fn holder(record: &HolderRecord) -> Holder {
    Holder {
        initiator: record.initiator.clone(),
        isid: record.isid.clone(),
        target: record.target.clone(),
        portal_group: record.portal_group,
        scope_type: record.scope_type,
    }
}

/// What is kept of that.
pub(super) fn kept(said: &Reservations) -> ReservationsRecord {
    let registrations = said.registrations.iter().map(|registration| RegistrationRecord {
        initiator: registration.initiator.clone(),
        isid: registration.isid.clone(),
        target: registration.target.clone(),
        portal_group: registration.portal_group,
        key: registration.key,
    });
    ReservationsRecord {
        generation: said.generation,
        registrations: registrations.collect(),
        holder: said.holder.as_ref().map(kept_holder),
        aptpl: said.aptpl,
        reserved: said.reserved.as_ref().map(kept_holder),
        resets: said.resets,
    }
}

fn kept_holder(holder: &Holder) -> HolderRecord {
    HolderRecord {
        initiator: holder.initiator.clone(),
        isid: holder.isid.clone(),
        target: holder.target.clone(),
        portal_group: holder.portal_group,
        scope_type: holder.scope_type,
    }
}

fn registration(record: &RegistrationRecord) -> Registration {
    Registration {
        initiator: record.initiator.clone(),
        isid: record.isid.clone(),
        target: record.target.clone(),
        portal_group: record.portal_group,
        key: record.key,
    }
}

fn target_info(map: &ClusterMap, name: &str, record: &TargetRecord, secrets: &Secrets) -> TargetInfo {
    let access = record.access.iter().map(|access| AccessInfo {
        initiator: access.initiator.clone(),
        chap_user: access.chap.as_ref().map(|chap| chap.user.clone()),
    });
    TargetInfo {
        name: name.to_owned(),
        luns: luns(map, record),
        access: access.collect(),
        mutual_user: record.mutual.as_ref().map(|mutual| mutual.user.clone()),
        secrets: secrets.state(name, record),
        portals: portals(map),
        created_ms: record.created_ms,
    }
}

fn luns(map: &ClusterMap, record: &TargetRecord) -> Vec<Lun> {
    let named = |lun: &LunRecord| Lun {
        number: lun.number,
        volume: map
            .volume(lun.volume)
            .map_or_else(String::new, |(_, volume)| volume.record.name.clone()),
        volume_id: lun.volume.0,
        read_only: lun.read_only,
        block_size: lun.block_size,
    };
    record.luns.iter().map(named).collect()
}

/// Who may log in, with what they must show. A secret that does not open must not become none.
fn let_in(target: &str, record: &TargetRecord, secrets: &Secrets) -> Vec<Access> {
    let opened = |access: &AccessRecord| {
        let initiator = access.initiator.clone();
        let kept = access.chap.as_ref();
        let chap = kept.and_then(|kept| secrets.open(target, Some(&initiator), kept));
        if kept.is_some() && chap.is_none() {
            warn!(
                target_name = target,
                initiator, "its secret is not sealed for this cluster, so it is not let in: set it anew"
            );
            return None;
        }
        Some(Access { initiator, chap })
    };
    record.access.iter().filter_map(opened).collect()
}
