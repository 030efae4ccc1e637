//! The admin API: names, sizes, references and the JSON of every request.

use admin_api::names::{Reference, check_name};
use admin_api::sizes::{SizeInput, format_size, parse_size};
use admin_api::{disks, events, pools, snapshots, volumes};
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
    json::<events::EventPage>(input, |_| ());
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
