//! `storagectl volume label`: what people write on a volume.

use std::collections::BTreeMap;

use admin_api::labels::ChangeLabels;
use admin_api::names::check_name;
use admin_api::routes::{self, fill};
use admin_api::volumes::VolumeAnswer;
use anyhow::{Context as _, Result, ensure};

use crate::api::Api;
use crate::output::Form;

/// Does what the command says.
pub(super) async fn perform(
    api: &Api,
    form: Form,
    name: &str,
    set: &[String],
    remove: &[String],
) -> Result<()> {
    check_name(name)?;
    let change = change(set, remove)?;
    let answer: VolumeAnswer = api.patch(&fill(routes::VOLUME_LABELS, &[name]), &change).await?;
    form.show(&answer, |answer| {
        let told = told(&answer.volume.labels);
        let told = if told.is_empty() { "none" } else { &told };
        format!("volume {name} labels: {told}")
    })
}

fn change(set: &[String], remove: &[String]) -> Result<ChangeLabels> {
    let mut labels = BTreeMap::new();
    for label in set {
        let (name, text) = label
            .split_once('=')
            .with_context(|| format!("{label:?} is no label: write NAME=TEXT"))?;
        labels.insert(name.to_owned(), Some(text.to_owned()));
    }
    for name in remove {
        let twice = labels.insert(name.clone(), None).is_some();
        ensure!(!twice, "the label {name} is both set and removed");
    }
    ensure!(
        !labels.is_empty(),
        "say which labels: NAME=TEXT, or --remove NAME"
    );
    Ok(ChangeLabels { labels })
}

/// What is said of labels, in one line; nothing if there are none.
pub(super) fn told(labels: &BTreeMap<String, String>) -> String {
    let told = labels.iter().map(|(name, text)| format!("{name}={text:?}"));
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    //! What is typed.
    use super::*;

    #[test]
    fn labels_are_set_and_removed_and_never_both() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let parsed = change(&words(&["owner=anna", "sum=a=b"]), &words(&["old"])).unwrap();
        assert_eq!(parsed.labels["owner"].as_deref(), Some("anna"));
        assert_eq!(parsed.labels["sum"].as_deref(), Some("a=b"));
        assert_eq!(parsed.labels["old"], None);
        for (set, remove) in [
            (&["owner"][..], &[][..]),
            (&[][..], &[][..]),
            (&["a=1"][..], &["a"][..]),
        ] {
            assert!(change(&words(set), &words(remove)).is_err(), "{set:?} {remove:?}");
        }
    }
}
