//! Pools: a redundancy policy over a set of disks, split into placement groups that are laid out once.

use std::collections::BTreeSet;

use admin_api::names::check_name;
use admin_api::pools::{COPIES_MAX, CreatePool, GROUPS_MAX};
use coordination::keys::{Counter, Key};
use coordination::layout::{first_slots, groups_max, spread};
use coordination::placement::Candidate;
use coordination::records::{
    FailureDomain, GroupRecord, NameRecord, NewerFields, PoolRecord, Redundancy, encode,
};
use coordination::{ClusterMap, Compare, Transaction};
use erasure::{Code, Profile, ProfileError};
use protocol::{DiskId, PgId, PoolId};

use crate::moment::wall_clock_ms;
use crate::volumes::{Decision, OperationError, Plan, Volumes, event};

/// Copies unless told otherwise.
const COPIES_DEFAULT: u32 = 3;
/// Placement groups for each disk, unless told otherwise: with as many copies on each, shares
/// differ by a few percent. The number never changes, so few disks get more, for disks to come.
const GROUPS_PER_DISK: u32 = 64;
/// The fewest and the most placement groups that are chosen without being told.
const GROUPS_DEFAULT: std::ops::RangeInclusive<u32> = 128..=512;

/// Placement groups that are written or deleted in one transaction, and disks that one is bound to.
/// Below the coordination store's limit, with room for the rest.
const STEPS_MAX: usize = 100;

impl Volumes {
    /// Makes a pool: first its record, closed to volumes, then its placement groups in several
    /// transactions, for they may be more than one takes; then it is opened. If that is cut short, a
    /// closed pool stays, to be deleted.
    pub async fn create_pool(&self, request: &CreatePool) -> Result<PoolId, OperationError> {
        check_name(&request.name)?;
        let shape = Shape::of(request)?;
        // Before a number is given out, which people see.
        Layout::plan(self.fresh_map().await?.as_ref(), request, &shape, PoolId(0))?;
        let pool = PoolId(self.identities().next_short(Counter::Pool).await?);
        let layout = Layout::plan(self.fresh_map().await?.as_ref(), request, &shape, pool)?;
        self.carry_out(|map| layout.plan_beginning(map)).await?;
        let mut laid_out = 0;
        while laid_out < layout.groups.len() {
            laid_out = self.carry_out(|map| layout.plan_groups(map, laid_out)).await?;
        }
        self.carry_out(|map| layout.plan_opening(map)).await?;
        Ok(pool)
    }

    /// Deletes a pool that no volume is in, and no layer that waits to be reclaimed.
    pub async fn delete_pool(&self, name: &str) -> Result<(), OperationError> {
        check_name(name)?;
        // First nobody may put a volume into it, then it can be seen whether one is there.
        self.carry_out(|map| plan_closing(map, name, true)).await?;
        loop {
            match self.carry_out(|map| plan_deletion(map, name)).await {
                Ok(false) => {}
                Ok(true) => return Ok(()),
                Err(error @ OperationError::InUse(_)) => {
                    self.carry_out(|map| plan_closing(map, name, false)).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What of a request can be judged without the map.
struct Shape {
    redundancy: Redundancy,
    min_in_sync: u8,
    disks: Option<Vec<DiskId>>,
    /// Chosen by the disks if it is not said.
    failure_domain: Option<FailureDomain>,
}

impl Shape {
    fn of(request: &CreatePool) -> Result<Self, OperationError> {
        let redundancy = redundancy(request)?;
        let min_in_sync = match request.min_in_sync {
            None => redundancy.min_in_sync_default(),
            Some(asked) => redundancy
                .min_in_sync(asked)
                .map_err(|error| OperationError::Invalid(error.to_string()))?,
        };
        if request
            .groups
            .is_some_and(|groups| groups == 0 || groups > GROUPS_MAX)
        {
            return Err(OperationError::Invalid(format!(
                "a pool has 1 to {GROUPS_MAX} placement groups"
            )));
        }
        let disks = request
            .disks
            .as_ref()
            .map(|disks| disks.iter().copied().map(DiskId).collect());
        Ok(Self {
            redundancy,
            min_in_sync,
            disks,
            failure_domain: request.failure_domain.map(|domain| match domain {
                admin_api::pools::FailureDomain::Disk => FailureDomain::Disk,
                admin_api::pools::FailureDomain::Node => FailureDomain::Node,
                admin_api::pools::FailureDomain::Zone => FailureDomain::Zone,
            }),
        })
    }
}

/// How a pool is to keep data: in copies, or encoded.
fn redundancy(request: &CreatePool) -> Result<Redundancy, OperationError> {
    let invalid = OperationError::Invalid;
    let Some(erasure) = &request.erasure else {
        let copies = request.copies.unwrap_or(COPIES_DEFAULT);
        return u8::try_from(copies)
            .ok()
            .filter(|_| (1..=COPIES_MAX).contains(&copies))
            .map(|copies| Redundancy::Replicated { copies })
            .ok_or_else(|| invalid(format!("a pool keeps 1 to {COPIES_MAX} copies, not {copies}")));
    };
    if request.copies.is_some() {
        return Err(invalid(format!(
            "a pool keeps either copies or rows of {erasure} shards: ask for one of them"
        )));
    }
    let profile: Profile = erasure
        .parse()
        .map_err(|error: ProfileError| invalid(error.to_string()))?;
    // What every node needs can at least be seen here.
    Code::new(profile).map_err(|error| invalid(error.to_string()))?;
    Ok(Redundancy::Encoded { profile })
}

/// A pool that is to be made.
struct Layout {
    id: PoolId,
    record: PoolRecord,
    groups: Vec<GroupRecord>,
    disks: usize,
}

impl Layout {
    fn plan(
        map: &ClusterMap,
        request: &CreatePool,
        shape: &Shape,
        id: PoolId,
    ) -> Result<Self, OperationError> {
        refuse_taken(map, &request.name)?;
        let candidates = candidates(map, shape)?;
        let failure_domain = spread(shape.redundancy, shape.failure_domain, &candidates)
            .map_err(|error| OperationError::NotEnoughDisks(error.to_string()))?;
        let groups = groups(request.groups, shape.redundancy, candidates.len())?;
        let record = PoolRecord {
            name: request.name.clone(),
            redundancy: shape.redundancy,
            min_in_sync: shape.min_in_sync,
            groups,
            failure_domain,
            disks: shape.disks.clone(),
            closing: true,
            created_ms: wall_clock_ms(),
            newer: NewerFields::default(),
        };
        let group = |number| {
            let pg = PgId { pool: id, number };
            GroupRecord {
                slots: first_slots(pg, shape.redundancy, failure_domain, &candidates),
            }
        };
        let groups = (0..groups).map(group).collect();
        Ok(Self {
            id,
            record,
            groups,
            disks: candidates.len(),
        })
    }

    fn plan_beginning(&self, map: &ClusterMap) -> Result<Decision<()>, OperationError> {
        let name = &self.record.name;
        refuse_taken(map, name)?;
        let name_key = Key::PoolName(name.clone()).to_text();
        let pointer = NameRecord {
            id: u64::from(self.id.0),
        };
        let transaction = Transaction::new()
            .when(Compare::Absent(name_key.clone()))
            .put(name_key, encode(&pointer)?)
            .put(Key::Pool(self.id).to_text(), encode(&self.record)?);
        Ok(Plan::decide_quietly(transaction, ()))
    }

    /// The groups from `first` on, as many as a transaction takes; answers which comes next.
    fn plan_groups(&self, map: &ClusterMap, first: usize) -> Result<Decision<usize>, OperationError> {
        let mut transaction = Transaction::new().when(self.unchanged(map)?);
        let mut disks = BTreeSet::new();
        let mut next = first;
        for (number, group) in (0_u32..).zip(&self.groups).skip(first).take(STEPS_MAX) {
            let more = group.slots.iter().map(|slot| slot.disk);
            let with_more: BTreeSet<DiskId> = disks.iter().copied().chain(more).collect();
            if with_more.len() > STEPS_MAX {
                break;
            }
            disks = with_more;
            let pg = PgId {
                pool: self.id,
                number,
            };
            transaction = transaction.put(Key::Group(pg).to_text(), encode(group)?);
            next += 1;
        }
        for disk in disks {
            transaction = transaction.when(still_there(map, disk)?);
        }
        Ok(Plan::decide_quietly(transaction, next))
    }

    fn plan_opening(&self, map: &ClusterMap) -> Result<Decision<()>, OperationError> {
        let name = &self.record.name;
        let record = PoolRecord {
            closing: false,
            ..self.record.clone()
        };
        let transaction = Transaction::new()
            .when(self.unchanged(map)?)
            .put(Key::Pool(self.id).to_text(), encode(&record)?);
        let kept = match record.redundancy {
            Redundancy::Replicated { copies } => {
                format!("{} of each block", counted(usize::from(copies), "copy", "copies"))
            }
            Redundancy::Encoded { profile } => format!("rows of {profile} shards"),
        };
        let message = format!(
            "pool {name} was created: {kept} on {}, in {} placement groups",
            counted(self.disks, "disk", "disks"),
            record.groups
        );
        let created = event("pool_created", name.clone(), message);
        Ok(Plan::decide(transaction, created, ()))
    }

    /// The condition that the pool is as it was begun.
    fn unchanged(&self, map: &ClusterMap) -> Result<Compare, OperationError> {
        match map.pool(self.id) {
            Some(pool) if pool.record == self.record => {
                Ok(Compare::Modified(Key::Pool(self.id).to_text(), pool.modified))
            }
            _ => Err(OperationError::Conflict(format!(
                "pool {} was deleted while it was being made",
                self.record.name
            ))),
        }
    }
}

/// The condition that a disk is as the map shows it, where it may be used: a disk that is to be removed loses
/// its weight first.
fn still_there(map: &ClusterMap, id: DiskId) -> Result<Compare, OperationError> {
    match map.disks().get(&id) {
        Some(disk) if disk.record.weight > 0 && !disk.record.draining => {
            Ok(Compare::Modified(Key::Disk(id).to_text(), disk.modified))
        }
        _ => Err(OperationError::Conflict(format!(
            "{id} was taken out of use while the pool was being made: delete the pool and make it anew"
        ))),
    }
}

fn refuse_taken(map: &ClusterMap, name: &str) -> Result<(), OperationError> {
    if map.pool_named(name).is_none() {
        return Ok(());
    }
    let message = format!("there is a pool {name:?} already: use another name");
    Err(OperationError::AlreadyExists(message))
}

/// Into how many groups a pool is split: as it is asked for, if there may be so many, or by the number of disks.
fn groups(asked: Option<u32>, redundancy: Redundancy, disks: usize) -> Result<u32, OperationError> {
    let most = groups_max(redundancy);
    match asked {
        Some(groups) if groups > most => Err(OperationError::Invalid(format!(
            "a pool of {} shards has at most {most} placement groups",
            redundancy.width()
        ))),
        Some(groups) => Ok(groups),
        None => {
            let disks = u32::try_from(disks).unwrap_or(u32::MAX);
            let groups = disks
                .saturating_mul(GROUPS_PER_DISK)
                .clamp(*GROUPS_DEFAULT.start(), *GROUPS_DEFAULT.end());
            Ok(groups.next_power_of_two().min(most))
        }
    }
}

fn candidates(map: &ClusterMap, shape: &Shape) -> Result<Vec<Candidate>, OperationError> {
    for id in shape.disks.iter().flatten() {
        if !map.disks().contains_key(id) {
            return Err(OperationError::NotFound(format!("there is no disk {}", id.0)));
        }
    }
    Ok(map.candidates(shape.disks.as_deref()))
}

fn plan_closing(map: &ClusterMap, name: &str, closing: bool) -> Result<Decision<()>, OperationError> {
    let (id, pool) = find(map, name)?;
    if pool.record.closing == closing {
        return Ok(Decision::Unchanged(()));
    }
    let key = Key::Pool(id).to_text();
    let record = PoolRecord {
        closing,
        ..pool.record.clone()
    };
    let transaction = Transaction::new()
        .when(Compare::Modified(key.clone(), pool.modified))
        .put(key, encode(&record)?);
    let message = if closing {
        format!("pool {name} takes no new volumes: it is to be deleted")
    } else {
        format!("pool {name} takes new volumes again: it was not deleted")
    };
    Ok(Plan::decide(
        transaction,
        event("pool_closing", name, message),
        (),
    ))
}

/// Answers whether the pool is gone, or only some of its many placement groups.
fn plan_deletion(map: &ClusterMap, name: &str) -> Result<Decision<bool>, OperationError> {
    let (id, pool) = find(map, name)?;
    let (mut volumes, mut families) = (0, 0);
    for (_, family) in map.families().filter(|(_, family)| family.pool() == Some(id)) {
        volumes += family.volumes().len();
        families += 1;
    }
    if families > 0 {
        let message = match volumes {
            0 => format!(
                "pool {name:?} still holds space of deleted volumes: wait until the reclaim tasks are done"
            ),
            count => format!(
                "pool {name:?} holds {}: delete them first",
                counted(count, "volume", "volumes")
            ),
        };
        return Err(OperationError::InUse(message));
    }
    let key = Key::Pool(id).to_text();
    let mut transaction = Transaction::new().when(Compare::Modified(key.clone(), pool.modified));
    let groups: Vec<PgId> = map.groups(id).map(|group| group.pg).take(STEPS_MAX + 1).collect();
    for pg in groups.iter().take(STEPS_MAX) {
        transaction = transaction.delete(Key::Group(*pg).to_text());
    }
    if groups.len() > STEPS_MAX {
        return Ok(Plan::decide_quietly(transaction, false));
    }
    let transaction = transaction
        .delete(key)
        .delete(Key::PoolName(name.to_owned()).to_text());
    let message = format!("pool {name} was deleted");
    Ok(Plan::decide(
        transaction,
        event("pool_deleted", name, message),
        true,
    ))
}

fn find<'a>(
    map: &'a ClusterMap,
    name: &str,
) -> Result<(PoolId, &'a coordination::map::Versioned<PoolRecord>), OperationError> {
    map.pool_named(name)
        .ok_or_else(|| OperationError::NotFound(format!("there is no pool {name:?}")))
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
