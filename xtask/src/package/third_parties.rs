//! Whose libraries are in programs, and under which licences, as cargo knows it.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::crates;

/// A line for each library of others that any of the programs is linked with.
pub(super) fn list(programs: impl Iterator<Item = &'static str>) -> Result<String> {
    let mut linked = BTreeSet::new();
    for program in programs {
        linked.extend(crates::linked(program)?);
    }
    let metadata = crates::metadata()?;
    let others = metadata.packages.iter().filter(|package| {
        package.source.is_some() && linked.contains(&(package.name.clone(), package.version.clone()))
    });
    let lines: BTreeSet<String> = others
        .map(|package| {
            format!(
                "{} {}: {} ({})\n",
                package.name,
                package.version,
                package.license.as_deref().unwrap_or("see its sources"),
                package.repository.as_deref().unwrap_or("no address"),
            )
        })
        .collect();
    Ok(lines.into_iter().collect())
}
