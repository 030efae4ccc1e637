//! Whether an image may be believed: what it says it is against what is in it. Pure.
//!
//! Formats can name other files (backing files, data files, extents). An image that does so would be given the contents of
//! files of this machine, so it is refused, whatever it names.

use serde::Deserialize;
use serde_json::Value;

use super::Image;
use crate::storage::GIB;

/// What volumes may be made from unless an operator says otherwise, as Glance calls it.
pub const FORMATS_DEFAULT: &[&str] = &["raw", "qcow2"];
/// Everything that an operator may allow; and how `qemu-img` calls it.
pub const FORMATS: [(&str, &str); 7] = [
    ("raw", "raw"),
    ("iso", "raw"),
    ("qcow2", "qcow2"),
    ("vmdk", "vmdk"),
    ("vhd", "vpc"),
    ("vhdx", "vhdx"),
    ("vdi", "vdi"),
];
/// The kinds of VMDK that are one file with everything in it.
const VMDK_WHOLE: &[&str] = &["monolithicSparse", "streamOptimized"];
/// How other formats begin: a raw image that begins so was declared wrongly, and a guest could not boot from it.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"# Disk Descript", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vhd"),
];

/// How `qemu-img` calls a format; nothing if it is none of ours.
pub fn qemu_format(disk_format: &str) -> Option<&'static str> {
    let mut known = FORMATS.iter();
    known
        .find(|(name, _)| *name == disk_format)
        .map(|(_, qemu)| *qemu)
}

/// Refuses an image that no volume of so many GiB can be made from, by what Glance says of it. Also says why.
pub fn check_description(image: &Image, gib: u64, allowed: &[String]) -> Result<(), String> {
    let id = &image.id;
    if image.status != "active" {
        return Err(format!("Image {id} is not active: it is {}.", image.status));
    }
    let format = image.disk_format.as_deref().unwrap_or_default();
    if !allowed.iter().any(|allowed| allowed == format) || qemu_format(format).is_none() {
        return Err(format!(
            "Image {id} is unacceptable: disk_format {format:?} is not among {}.",
            allowed.join(", ")
        ));
    }
    let container = image.container_format.as_deref().unwrap_or_default();
    if container != "bare" {
        return Err(format!(
            "Image {id} is unacceptable: container_format {container:?} is not bare."
        ));
    }
    if image.rest.contains_key("cinder_encryption_key_id") {
        return Err(format!(
            "Image {id} is unacceptable: it is encrypted with a key of another storage."
        ));
    }
    let needed = image.size.unwrap_or(0).max(image.virtual_size.unwrap_or(0));
    if needed > gib.saturating_mul(GIB) {
        return Err(format!(
            "Size of specified image {}GB is larger than volume size {gib}GB.",
            needed.div_ceil(GIB)
        ));
    }
    if image.min_disk > gib {
        return Err(format!(
            "Volume size {gib}GB cannot be smaller than the image minDisk size {}GB.",
            image.min_disk
        ));
    }
    Ok(())
}

/// Refuses the beginning of a raw image that is that of another format.
pub fn check_raw_beginning(bytes: &[u8]) -> Result<(), String> {
    let other = BEGINNINGS.iter().find(|(magic, _)| bytes.starts_with(magic));
    match other {
        Some((_, format)) => Err(format!(
            "the image is declared as raw, and is {format}: declare it as what it is"
        )),
        None => Ok(()),
    }
}

/// The part of `qemu-img info --output=json` that matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    format: String,
    virtual_size: u64,
    #[serde(default)]
    backing_filename: Option<String>,
    #[serde(default)]
    full_backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    format_specific: Option<Specific>,
}

#[derive(Debug, Deserialize)]
struct Specific {
    #[serde(default)]
    data: Value,
}

/// Refuses a file that is not what it was declared as, names other files, is encrypted, or is larger than so many bytes when
/// it is a disk. Gives the disk's bytes.
pub fn check_info(told: &[u8], format: &str, bytes_max: u64) -> Result<u64, String> {
    let info: Info =
        serde_json::from_slice(told).map_err(|error| format!("qemu-img's answer cannot be read: {error}"))?;
    if info.format != format {
        return Err(format!(
            "the image is declared as {format}, and is {}",
            info.format
        ));
    }
    if info.backing_filename.is_some() || info.full_backing_filename.is_some() {
        return Err("the image has a backing file".to_owned());
    }
    let specific = info
        .format_specific
        .map(|specific| specific.data)
        .unwrap_or_default();
    let has = |key: &str| specific.get(key).is_some_and(|value| !value.is_null());
    if has("data-file") || has("data-file-raw") && specific["data-file-raw"] != Value::Bool(false) {
        return Err("the image has a data file".to_owned());
    }
    if info.encrypted || has("encrypt") {
        return Err("the image is encrypted".to_owned());
    }
    if format == "vmdk" {
        check_vmdk(&specific)?;
    }
    if info.virtual_size > bytes_max {
        return Err(format!(
            "the image is a disk of {} bytes, and the volume has {bytes_max}",
            info.virtual_size
        ));
    }
    Ok(info.virtual_size)
}

fn check_vmdk(specific: &Value) -> Result<(), String> {
    let kind = specific["create-type"].as_str().unwrap_or_default();
    let extents = specific["extents"].as_array().map_or(0, Vec::len);
    if !VMDK_WHOLE.contains(&kind) || extents > 1 {
        return Err(format!(
            "the image is a VMDK of kind {kind:?}, which names other files"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Images that lie.
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
    use serde_json::json;

    use super::*;

    fn info(changes: &[(&str, Value)]) -> Vec<u8> {
        let mut told = json!({
            "format": "qcow2", "virtual-size": 1024, "filename": "x", "dirty-flag": false,
            "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "corrupt": false}},
        });
        for (key, value) in changes {
            told[*key] = value.clone();
        }
        told.to_string().into_bytes()
    }

    fn specific(data: &Value) -> Vec<u8> {
        info(&[("format-specific", json!({"type": "x", "data": data}))])
    }

    #[test]
    fn an_image_that_is_what_it_says_is_taken() {
        assert_eq!(check_info(&info(&[]), "qcow2", 1024), Ok(1024));
        assert_eq!(
            check_info(&specific(&json!({"data-file-raw": false})), "qcow2", 1024),
            Ok(1024)
        );
        let whole = json!({"create-type": "streamOptimized", "extents": [{"filename": "x"}]});
        let vmdk = info(&[
            ("format", json!("vmdk")),
            ("format-specific", json!({"type": "vmdk", "data": whole})),
        ]);
        assert_eq!(check_info(&vmdk, "vmdk", 1024), Ok(1024));
    }

    #[test]
    fn an_image_that_names_other_files_or_lies_is_refused() {
        let monolithic = json!({"create-type": "monolithicFlat", "extents": [{"filename": "/etc/passwd"}]});
        let lies = [
            (info(&[("format", json!("raw"))]), "format"),
            (info(&[("backing-filename", json!("/etc/passwd"))]), "backing"),
            (
                info(&[("full-backing-filename", json!("/etc/passwd"))]),
                "full backing",
            ),
            (info(&[("encrypted", json!(true))]), "encrypted"),
            (info(&[("virtual-size", json!(1025))]), "too large"),
            (specific(&json!({"data-file": "/etc/passwd"})), "data file"),
            (specific(&json!({"data-file-raw": true})), "raw data file"),
            (specific(&json!({"encrypt": {"format": "luks"}})), "luks"),
            (b"{}".to_vec(), "nothing"),
            (b"x".to_vec(), "no JSON"),
        ];
        for (told, what) in lies {
            assert!(check_info(&told, "qcow2", 1024).is_err(), "{what}");
        }
        let vmdk = info(&[
            ("format", json!("vmdk")),
            ("format-specific", json!({"type": "vmdk", "data": monolithic})),
        ]);
        assert!(check_info(&vmdk, "vmdk", 1024).is_err());
        let other = json!({"create-type": "twoGbMaxExtentSparse", "extents": [{}, {}]});
        let vmdk = info(&[
            ("format", json!("vmdk")),
            ("format-specific", json!({"type": "vmdk", "data": other})),
        ]);
        assert!(check_info(&vmdk, "vmdk", 1024).is_err());
    }

    #[test]
    fn a_raw_image_that_begins_as_another_format_is_refused() {
        assert!(check_raw_beginning(b"QFI\xfb\0\0\0\x03").is_err());
        assert!(check_raw_beginning(b"# Disk DescriptorFile\n").is_err());
        assert!(check_raw_beginning(b"\xeb\x63\x90").is_ok());
        assert!(check_raw_beginning(b"").is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_fetched() {
        let allowed: Vec<String> = FORMATS_DEFAULT.iter().map(|name| (*name).to_owned()).collect();
        let good = json!({
            "id": "x", "status": "active", "disk_format": "qcow2", "container_format": "bare", "size": GIB, "min_disk": 1,
        });
        let check = |key: &str, value: Value| {
            let mut told = good.clone();
            told[key] = value;
            let image: Image = serde_json::from_value(told).unwrap();
            check_description(&image, 1, &allowed)
        };
        assert_eq!(check("name", json!("x")), Ok(()));
        for (key, value) in [
            ("status", json!("queued")),
            ("disk_format", json!("vmdk")),
            ("disk_format", Value::Null),
            ("container_format", json!("ovf")),
            ("size", json!(GIB + 1)),
            ("virtual_size", json!(GIB + 1)),
            ("min_disk", json!(2)),
            ("cinder_encryption_key_id", json!("x")),
        ] {
            assert!(check(key, value.clone()).is_err(), "{key} {value}");
        }
    }
}
