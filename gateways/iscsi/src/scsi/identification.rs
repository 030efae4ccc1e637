//! Who a logical unit is: names that stay the same on every path and after every restart (SPC-4 clause 7.8.6).

use crate::scsi::fields::{ascii, length16};

/// The vendor, of at most 8 characters.
pub const VENDOR: &str = "STORAGED";
/// The product, of at most 16 characters.
pub const PRODUCT: &str = "VOLUME";

/// What a unit is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its serial number: printable ASCII, at most 20 characters.
    pub serial: String,
    /// An NAA name of the locally assigned kind: 3 in the highest four bits (SPC-4 clause 7.8.6.6.4).
    pub naa: u64,
    /// The target's name.
    pub target: String,
    /// The portal group's tag.
    pub portal_group: u16,
}

impl Identity {
    /// The identity of the volume with this serial number, which its cluster has only once. Sixty bits of a hash
    /// of it make its name: no registered company number is needed for a name that is assigned locally.
    pub fn new(serial: &str, target: &str, portal_group: u16) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, serial.as_bytes());
        let bits = hash
            .as_ref()
            .first_chunk()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self {
            serial: serial.to_owned(),
            naa: bits >> 4 | 3 << 60,
            target: target.to_owned(),
            portal_group,
        }
    }

    /// The body of the page: all designators.
    pub(super) fn designators(&self) -> Vec<u8> {
        let vendor = [ascii(VENDOR, 8), self.serial.as_bytes().to_vec()].concat();
        let group = [&[0, 0][..], &self.portal_group.to_be_bytes()].concat();
        let unit_name = padded(format!("naa.{:016x}", self.naa));
        let port_name = padded(format!("{},t,0x{:04x}", self.target, self.portal_group));
        [
            // Code set, association and type, each as in SPC-4 tables 458 to 460.
            designator(0x01, 0x03, &self.naa.to_be_bytes()),
            designator(0x02, 0x01, &vendor),
            designator(0x03, 0x08, unit_name.as_bytes()),
            // Of the port: iSCSI (5), and the association with a target port.
            designator(0x51, 0x94, &group),
            designator(0x51, 0x95, &group),
            designator(0x53, 0x98, port_name.as_bytes()),
        ]
        .concat()
    }
}

fn designator(code_set: u8, kind: u8, name: &[u8]) -> Vec<u8> {
    let [_, length] = length16(name.len());
    [&[code_set, kind, 0, length][..], name].concat()
}

/// A name string ends with a zero byte and fills whole words.
fn padded(mut name: String) -> String {
    // Names of targets have at most 223 characters (RFC 7143 section 4.2.7.1), so the length fits its byte.
    name.truncate(248);
    name.push('\0');
    while !name.len().is_multiple_of(4) {
        name.push('\0');
    }
    name
}
