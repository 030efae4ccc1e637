//! Disks and nodes that are being emptied: waiting for it, and what is said of it.

use std::time::Duration;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::api::Api;
use crate::progress;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(500);

/// Waits until nothing is left at `path`, with a bar.
pub(super) async fn wait<T: DeserializeOwned>(
    api: &Api,
    path: &str,
    subject: &str,
    groups: impl Fn(&T) -> u32,
) -> Result<T> {
    let mut bar = None;
    loop {
        let known: T = api.get(path).await?;
        let left = u64::from(groups(&known));
        let bar = bar.get_or_insert_with(|| progress::bar(subject, left, "placement groups"));
        // Groups that come to it while it is emptied make it longer.
        let all = bar.length().unwrap_or(left).max(left);
        bar.set_length(all);
        bar.set_position(all - left);
        if left == 0 {
            bar.finish_and_clear();
            return Ok(known);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What is said of it.
pub(super) fn told(subject: &str, draining: bool, groups: u32) -> String {
    match (draining, groups) {
        (false, _) => format!("{subject} takes data"),
        (true, 0) => format!("{subject} is empty"),
        (true, _) => format!(
            "{subject} is being emptied, {groups} placement groups are left: storagectl status tells how far it is"
        ),
    }
}

#[cfg(test)]
mod tests {
    //! What a person reads.
    use super::*;

    #[test]
    fn whoever_is_emptied_says_how_much_is_left() {
        assert_eq!(told("disk 3", false, 4), "disk 3 takes data");
        assert_eq!(told("disk 3", true, 0), "disk 3 is empty");
        assert!(told("node 2", true, 7).contains("7 placement groups are left"));
    }
}
