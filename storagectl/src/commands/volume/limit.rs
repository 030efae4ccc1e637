//! `storagectl volume limit`: says how much of a volume may be asked for in a second, and how that is told.

use admin_api::limits::VolumeLimits;
use admin_api::names::check_name;
use admin_api::routes::{self, fill};
use admin_api::sizes::format_size;
use admin_api::volumes::VolumeAnswer;
use anyhow::{Result, ensure};

use crate::api::Api;
use crate::arguments::LimitArguments;
use crate::output::Form;

/// Does what the command says.
pub(super) async fn perform(
    api: &Api,
    form: Form,
    name: &str,
    none: bool,
    limits: &LimitArguments,
) -> Result<()> {
    check_name(name)?;
    let limits = limits.limits()?;
    ensure!(
        none == limits.is_empty(),
        "say which limits {name} is to have, or --none: what is not said is not limited any more"
    );
    let answer: VolumeAnswer = api.put(&fill(routes::VOLUME_LIMITS, &[name]), &limits).await?;
    form.show(&answer, |answer| {
        let told = told(&answer.volume.limits);
        let told = if told.is_empty() { "none" } else { &told };
        format!("volume {name} limits: {told}")
    })
}

/// What is said of limits, in one line; nothing if there are none.
pub(super) fn told(limits: &VolumeLimits) -> String {
    let rates = limits.rates().into_iter().filter_map(|(name, limit, burst)| {
        let shown = |amount: u64| {
            if name.contains("bytes") {
                format_size(amount)
            } else {
                amount.to_string()
            }
        };
        let what = match name {
            "total_iops_sec" => "operations",
            "read_iops_sec" => "reads",
            "write_iops_sec" => "writes",
            "total_bytes_sec" => "in all",
            "read_bytes_sec" => "read",
            _ => "written",
        };
        let burst = burst.map(|burst| format!(" (at once {})", shown(burst)));
        let limit = shown(limit?);
        Some(format!("{limit} {what}/s{}", burst.unwrap_or_default()))
    });
    let size = limits
        .size_iops_sec
        .map(|size| format!("an operation counts for each {}", format_size(size)));
    rates.chain(size).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    //! What a person reads.
    use super::*;

    #[test]
    fn limits_are_told_in_one_line_and_none_in_no_word() {
        let limits = VolumeLimits {
            total_iops_sec: Some(500),
            total_iops_sec_max: Some(2000),
            write_bytes_sec: Some(100 << 20),
            size_iops_sec: Some(16 << 10),
            ..VolumeLimits::default()
        };
        assert_eq!(
            told(&limits),
            "500 operations/s (at once 2000), 100 MiB written/s, an operation counts for each 16 KiB"
        );
        assert_eq!(told(&VolumeLimits::default()), "");
    }
}
