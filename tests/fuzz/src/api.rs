//! The admin API: names, sizes, references and the JSON of every request.

use std::collections::BTreeMap;

use admin_api::names::{Reference, check_name};
use admin_api::sizes::{SizeInput, format_size, parse_size};
use admin_api::{
    disks, events, iscsi, join_tokens, labels, limits, nodes, pools, scrubs, snapshots, vhost, volumes,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One input, read as everything that it could be.
pub(crate) fn run(input: &[u8]) {
    json::<volumes::CreateVolume>(input, |request| size(&request.size));
    json::<volumes::ResizeVolume>(input, |request| size(&request.size));
    json::<volumes::RenameVolume>(input, |_| ());
    json::<volumes::RollbackVolume>(input, |_| ());
    json::<volumes::Tree>(input, |_| ());
    json::<snapshots::CreateSnapshot>(input, |_| ());
    json::<snapshots::CreateGroupSnapshot>(input, |_| ());
    json::<snapshots::CloneSnapshot>(input, |_| ());
    json::<pools::CreatePool>(input, |_| ());
    json::<disks::AddDisk>(input, |_| ());
    json::<disks::ChangeDisk>(input, |_| ());
    json::<disks::GiveUp>(input, |_| ());
    json::<events::EventPage>(input, |_| ());
    json::<volumes::RetypeVolume>(input, |_| ());
    json::<volumes::TakeOverVolume>(input, |_| ());
    json::<labels::ChangeLabels>(input, changed_labels);
    json::<limits::VolumeLimits>(input, |limits| {
        let _ = limits.check();
    });
    json::<join_tokens::MakeJoinToken>(input, |_| ());
    json::<nodes::ChangeNode>(input, |_| ());
    json::<scrubs::StartScrub>(input, |_| ());
    json::<scrubs::CheckVolume>(input, |_| ());
    json::<vhost::Drain>(input, |_| ());
    json::<vhost::Hold>(input, |_| ());
    json::<vhost::Resume>(input, |_| ());
    of_iscsi(input);
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text, "a reference reads back");
    }
    if check_name(text).is_ok() {
        assert!(
            !text.contains(['/', '@', '\0', ' ']) && !text.starts_with(['-', '.']),
            "a name is harmless"
        );
    }
    if let Ok(bytes) = parse_size(text) {
        assert!(
            parse_size(&format_size(bytes)).is_ok(),
            "a size that we print reads back"
        );
    }
    size(&SizeInput::from(text));
}

/// What gateways and operators say of iSCSI.
fn of_iscsi(input: &[u8]) {
    json::<iscsi::CreateTarget>(input, |_| ());
    json::<iscsi::AddLun>(input, |_| ());
    json::<iscsi::AddAccess>(input, |request| {
        let _ = request.chap.as_ref().map(iscsi::Credentials::check);
    });
    json::<iscsi::AnnouncePortals>(input, |_| ());
    json::<iscsi::Reservations>(input, |reservations| {
        let _ = reservations.check();
    });
}

/// What a volume has after the change is within the bounds.
fn changed_labels(change: &labels::ChangeLabels) {
    if let Ok(labels) = change.apply(&BTreeMap::new()) {
        let length: usize = labels.iter().map(|(name, text)| name.len() + text.len()).sum();
        assert!(
            labels.len() <= labels::LABELS_MAX && length <= labels::LABELS_LENGTH_MAX,
            "a volume's labels have bounds"
        );
    }
}

/// What is accepted writes itself so that it reads back the same.
fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(input: &[u8], also: impl Fn(&T)) {
    let Ok(request) = serde_json::from_slice::<T>(input) else {
        return;
    };
    let text = serde_json::to_vec(&request).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&request));
    also(&request);
}

fn size(input: &SizeInput) {
    if let Ok(size) = input.volume_size() {
        assert!(
            size.bytes > 0 && size.bytes.is_multiple_of(4096),
            "a volume's size is whole blocks"
        );
    }
}
