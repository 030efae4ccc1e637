//! A new, empty, thin volume: a family of its own with one empty layer.

use std::collections::BTreeMap;

use admin_api::names::check_name;
use admin_api::sizes::SizeInput;
use admin_api::volumes::CreateVolume;
use coordination::keys::Key;
use coordination::records::{
    FamilyRecord, LayerRecord, NameRecord, NewerFields, PoolRecord, VolumeRecord, encode,
};
use coordination::{ClusterMap, Compare, Transaction, map::Versioned};
use protocol::limits::VolumeLimits;
use protocol::{FamilyId, LayerId, PoolId, VolumeId};

use super::{Decision, OperationError, Plan, Volumes, event};
use crate::moment::wall_clock_ms;

/// A size that was checked, and whether it had to be rounded.
pub(super) fn checked_size(size: &SizeInput) -> Result<(u64, Vec<String>), OperationError> {
    let size = size.volume_size()?;
    let mut notes = Vec::new();
    if size.rounded {
        notes.push(format!(
            "the size was rounded up to {} bytes, a multiple of 4 KiB",
            size.bytes
        ));
    }
    Ok((size.bytes, notes))
}

impl Volumes {
    /// Makes a volume. Also returns what the asker should know.
    pub async fn create(&self, request: &CreateVolume) -> Result<(VolumeId, Vec<String>), OperationError> {
        check_name(&request.name)?;
        let (size, notes) = checked_size(&request.size)?;
        let limits = super::limits::checked(&request.limits.unwrap_or_default())?;
        let fresh = Fresh {
            volume: self.new_volume().await?,
            family: self.new_family().await?,
            layer: self.new_layer().await?,
        };
        let volume = self
            .carry_out(|map| {
                plan(
                    map,
                    &fresh,
                    &request.name,
                    (size, limits),
                    request.pool.as_deref(),
                )
            })
            .await?;
        Ok((volume, notes))
    }
}

/// Identities that nobody has.
struct Fresh {
    volume: VolumeId,
    family: FamilyId,
    layer: LayerId,
}

fn plan(
    map: &ClusterMap,
    fresh: &Fresh,
    name: &str,
    (size, limits): (u64, VolumeLimits),
    pool: Option<&str>,
) -> Result<Decision<VolumeId>, OperationError> {
    refuse_taken(map, name)?;
    let (pool, pool_record) = choose_pool(map, pool)?;
    let now = wall_clock_ms();
    let record = VolumeRecord {
        name: name.to_owned(),
        family: fresh.family,
        head: fresh.layer,
        size,
        discard_to: None,
        origin: None,
        labels: BTreeMap::new(),
        limits,
        created_ms: now,
        newer: NewerFields::default(),
    };
    let layer = LayerRecord {
        parent: None,
        created_ms: now,
    };
    let pool_key = Key::Pool(pool).to_text();
    let transaction = Transaction::new()
        .when(Compare::Absent(Key::VolumeName(name.to_owned()).to_text()))
        // Not only that it is there: a pool that is being deleted has a newer record.
        .when(Compare::Modified(pool_key, pool_record.modified))
        .put(Key::Volume(fresh.volume).to_text(), encode(&record)?)
        .put(
            Key::VolumeName(name.to_owned()).to_text(),
            encode(&NameRecord { id: fresh.volume.0 })?,
        )
        .put(
            Key::Family(fresh.family).to_text(),
            encode(&FamilyRecord { pool })?,
        )
        .put(Key::Layer(fresh.family, fresh.layer).to_text(), encode(&layer)?);
    let message = format!(
        "volume {name} of {} was created in pool {}",
        admin_api::sizes::format_size(size),
        pool_record.record.name
    );
    Ok(Plan::decide(
        transaction,
        event("volume_created", name, message),
        fresh.volume,
    ))
}

/// Refuses a volume's name that is taken.
pub(super) fn refuse_taken(map: &ClusterMap, name: &str) -> Result<(), OperationError> {
    match map.volume_named(name) {
        Some(_) => Err(OperationError::AlreadyExists(format!(
            "there is a volume {name:?} already: use another name"
        ))),
        None => Ok(()),
    }
}

fn choose_pool<'a>(
    map: &'a ClusterMap,
    name: Option<&str>,
) -> Result<(PoolId, &'a Versioned<PoolRecord>), OperationError> {
    let (id, pool) = match name {
        Some(name) => {
            check_name(name)?;
            map.pool_named(name)
                .ok_or_else(|| OperationError::NotFound(format!("there is no pool {name:?}")))?
        }
        None => the_only_pool(map)?,
    };
    if pool.record.closing {
        let message = format!(
            "the pool {:?} is being deleted: use another one",
            pool.record.name
        );
        return Err(OperationError::Conflict(message));
    }
    Ok((id, pool))
}

fn the_only_pool(map: &ClusterMap) -> Result<(PoolId, &Versioned<PoolRecord>), OperationError> {
    let mut pools = map.pools();
    match (pools.next(), pools.next()) {
        (Some(pool), None) => Ok(pool),
        (None, _) => Err(OperationError::NotFound(
            "there is no pool yet: create one first (pool create)".to_owned(),
        )),
        (Some(_), Some(_)) => {
            let names: Vec<_> = map.pools().map(|(_, pool)| pool.record.name.as_str()).collect();
            let message = format!("say in which pool, for there are several: {}", names.join(", "));
            Err(OperationError::Invalid(message))
        }
    }
}
