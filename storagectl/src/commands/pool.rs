//! `storagectl pool`.

use admin_api::names::check_name;
use admin_api::pools::{CreatePool, FailureDomain, Pool, PoolList};
use admin_api::routes::{self, fill};
use admin_api::scrubs::StartScrub;
use admin_api::sizes::format_size;
use anyhow::Result;

use super::scrub;
use crate::api::Api;
use crate::arguments::PoolCommand;
use crate::confirm::confirm;
use crate::output::{Form, exact_size, known, properties, table};

/// Does what the command says.
pub(super) async fn perform(api: &Api, form: Form, command: PoolCommand) -> Result<()> {
    match command {
        PoolCommand::Create {
            name,
            copies,
            erasure,
            min_in_sync,
            groups,
            disks,
            failure_domain,
        } => {
            let pool: Pool = api
                .post(
                    routes::POOLS,
                    &CreatePool {
                        name,
                        copies,
                        erasure,
                        min_in_sync,
                        groups,
                        disks,
                        failure_domain: failure_domain.map(Into::into),
                    },
                )
                .await?;
            form.show(&pool, created)
        }
        PoolCommand::List => form.show(&api.get(routes::POOLS).await?, render_list),
        PoolCommand::Info { name } => {
            check_name(&name)?;
            form.show(&api.get(&fill(routes::POOL, &[&name])).await?, describe)
        }
        PoolCommand::Scrub { name, deep, wait } => {
            check_name(&name)?;
            let started = api
                .post(&fill(routes::POOL_SCRUB, &[&name]), &StartScrub { deep })
                .await?;
            scrub::started(api, form, started, wait).await
        }
        PoolCommand::Delete { name, yes } => {
            check_name(&name)?;
            confirm(yes, &format!("This deletes the pool {name}."), &name)?;
            api.delete::<()>(&fill(routes::POOL, &[&name])).await?;
            form.say(&format!("pool {name} deleted"))
        }
    }
}

fn render_list(list: &PoolList) -> String {
    let rows = list.pools.iter().map(|pool| {
        [
            pool.name.clone(),
            redundancy(pool),
            format!("{}/{}", pool.groups_healthy, pool.groups),
            numbers(&pool.disks),
            pool.volumes.to_string(),
            format_size(pool.provisioned),
            known(pool.available, format_size),
        ]
    });
    let columns = [
        "name",
        "redundancy",
        "groups healthy",
        "disks",
        "volumes",
        "provisioned",
        "available",
    ];
    table(
        columns,
        &["groups healthy", "volumes", "provisioned", "available"],
        rows,
    )
}

fn describe(pool: &Pool) -> String {
    properties(&[
        ("name", pool.name.clone()),
        ("id", pool.id.to_string()),
        ("kept", kept(pool)),
        (
            "writes wait below",
            format!("{} {} in sync", pool.min_in_sync, parts(pool)),
        ),
        (
            "groups healthy",
            format!("{} of {}", pool.groups_healthy, pool.groups),
        ),
        (
            if pool.erasure.is_some() {
                "shards are on distinct"
            } else {
                "copies are on distinct"
            },
            domain(pool.failure_domain).to_owned(),
        ),
        ("disks", numbers(&pool.disks)),
        ("volumes", pool.volumes.to_string()),
        ("provisioned", exact_size(pool.provisioned)),
        ("available", known(pool.available, exact_size)),
        ("total", known(pool.total, exact_size)),
        ("not known", pool.unknown.clone().unwrap_or_default()),
    ])
}

fn redundancy(pool: &Pool) -> String {
    pool.erasure.clone().unwrap_or_else(|| copies(pool))
}

fn created(pool: &Pool) -> String {
    let (name, disks) = (&pool.name, pool.disks.len());
    let noun = if disks == 1 { "disk" } else { "disks" };
    format!("pool {name} created: {} on {disks} {noun}", kept(pool))
}

fn copies(pool: &Pool) -> String {
    let copies = pool.copies;
    format!("{copies} {}", if copies == 1 { "copy" } else { "copies" })
}

/// How a pool keeps what is written to it.
fn kept(pool: &Pool) -> String {
    match &pool.erasure {
        Some(erasure) => format!(
            "rows of {erasure} shards, and {} of what is not in a row yet",
            copies(pool)
        ),
        None => copies(pool),
    }
}

fn parts(pool: &Pool) -> &'static str {
    if pool.erasure.is_some() {
        "shards"
    } else {
        "copies"
    }
}

fn domain(domain: FailureDomain) -> &'static str {
    match domain {
        FailureDomain::Disk => "disks",
        FailureDomain::Node => "nodes",
        FailureDomain::Zone => "zones",
    }
}

fn numbers(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    //! What a person sees of a pool.
    use super::*;

    #[test]
    fn a_pool_shows_its_copies_and_disks() {
        let pool = Pool {
            id: 1,
            name: "main".into(),
            copies: 3,
            erasure: None,
            min_in_sync: 2,
            failure_domain: FailureDomain::Node,
            groups: 64,
            groups_healthy: 63,
            disks: vec![1, 2, 3],
            volumes: 1,
            provisioned: 10 << 30,
            available: Some(100 << 30),
            total: Some(200 << 30),
            unknown: None,
            age_ms: 0,
        };
        assert!(describe(&pool).contains("63 of 64"));
        assert!(describe(&pool).contains("nodes"));
        assert_eq!(created(&pool), "pool main created: 3 copies on 3 disks");
        let single = Pool {
            copies: 1,
            disks: vec![1],
            ..pool.clone()
        };
        assert_eq!(created(&single), "pool main created: 1 copy on 1 disk");
        let rows = Pool {
            erasure: Some("4+2".into()),
            ..pool.clone()
        };
        assert!(describe(&rows).contains("rows of 4+2 shards, and 3 copies of what is not in a row yet"));
        let text = render_list(&PoolList {
            pools: vec![pool, rows],
        });
        for told in ["1,2,3", "63/64", "3 copies", "4+2"] {
            assert!(text.contains(told), "{text}");
        }
    }
}
