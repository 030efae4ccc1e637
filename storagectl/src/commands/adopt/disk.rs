//! Which disks a QEMU has, and which of them is meant.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::qmp::Monitor;
use crate::output::{exact_size, table};

/// A disk as QEMU tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    /// The node that the device has its data from.
    pub(super) node: String,
    /// By what else it is known: the drive, the device.
    names: Vec<String>,
    /// Its size, in bytes.
    pub(super) size: u64,
    /// Where its data is: a path, or what QEMU says instead.
    pub(super) place: String,
}

impl Disk {
    fn is_called(&self, name: &str) -> bool {
        self.node == name || self.names.iter().any(|known| known == name)
    }
}

/// The disk of that name; without a name, the only one.
pub(super) async fn find(monitor: &mut Monitor, name: Option<&str>) -> Result<Disk> {
    let devices = monitor.ask("query-block", json!({})).await?;
    let mut disks = of_devices(&devices);
    // A QEMU without devices, as qemu-storage-daemon, has its nodes only.
    if disks.is_empty() {
        let nodes = monitor.ask("query-named-block-nodes", json!({"flat": true}));
        disks = of_nodes(&nodes.await?);
    }
    choose(disks, name)
}

fn of_devices(devices: &Value) -> Vec<Disk> {
    let devices = devices.as_array().into_iter().flatten();
    devices
        .filter_map(|device| {
            let drive = device["device"].as_str().filter(|drive| !drive.is_empty());
            let mut disk = of_node(&device["inserted"])?;
            disk.names.extend(drive.map(str::to_owned));
            disk.names.extend(device["qdev"].as_str().map(device_of));
            Some(disk)
        })
        .collect()
}

fn of_nodes(nodes: &Value) -> Vec<Disk> {
    nodes
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(of_node)
        .collect()
}

fn of_node(node: &Value) -> Option<Disk> {
    let image = &node["image"];
    Some(Disk {
        node: node["node-name"].as_str()?.to_owned(),
        names: Vec::new(),
        size: image["virtual-size"].as_u64()?,
        place: image["filename"].as_str().unwrap_or("(unknown)").to_owned(),
    })
}

/// The name that a device was given: /machine/peripheral/NAME/virtio-backend.
fn device_of(path: &str) -> String {
    let given = path.strip_prefix("/machine/peripheral/");
    let given = given.and_then(|rest| rest.split('/').next());
    given.unwrap_or(path).to_owned()
}

fn choose(disks: Vec<Disk>, name: Option<&str>) -> Result<Disk> {
    let all = disks.clone();
    let mut meant = disks
        .into_iter()
        .filter(|disk| name.is_none_or(|name| disk.is_called(name)));
    match (meant.next(), meant.next(), name) {
        (Some(disk), None, _) => Ok(disk),
        (None, _, None) => bail!("this QEMU has no disks"),
        (_, _, Some(name)) => bail!("there is no one disk {name:?}; there are\n{}", render(&all)),
        (Some(_), Some(_), None) => bail!("name the disk with --disk; there are\n{}", render(&all)),
    }
}

fn render(disks: &[Disk]) -> String {
    let rows = disks.iter().map(|disk| {
        let mut names = disk.names.clone();
        names.push(disk.node.clone());
        [names.join(", "), exact_size(disk.size), disk.place.clone()]
    });
    table(["names", "size", "where"], &[], rows)
}

#[cfg(test)]
mod tests {
    //! A disk is found by each of its names, and never by guessing.
    use super::*;

    fn devices() -> Vec<Disk> {
        of_devices(&json!([
            {"device": "", "qdev": "/machine/peripheral/virtio0/virtio-backend",
             "inserted": {"node-name": "one", "image": {"virtual-size": 4096, "filename": "/a.qcow2"}}},
            {"device": "drive1", "qdev": "/machine/unattached/device[3]",
             "inserted": {"node-name": "#block123", "image": {"virtual-size": 8192, "filename": "/b.raw"}}},
            {"device": "ide1-cd0", "qdev": "/machine/unattached/device[9]"},
        ]))
    }

    #[test]
    fn a_disk_is_found_by_each_of_its_names() {
        for (name, node) in [
            ("virtio0", "one"),
            ("one", "one"),
            ("drive1", "#block123"),
            ("#block123", "#block123"),
        ] {
            assert_eq!(choose(devices(), Some(name)).unwrap().node, node);
        }
        assert_eq!(choose(devices()[..1].to_vec(), None).unwrap().node, "one");
    }

    #[test]
    fn what_is_not_clear_is_asked_back_with_all_there_are() {
        for name in [None, Some("ide1-cd0"), Some("")] {
            let error = choose(devices(), name).unwrap_err().to_string();
            assert!(error.contains("virtio0") && error.contains("/b.raw"), "{error}");
        }
        assert!(choose(Vec::new(), None).is_err());
    }
}
