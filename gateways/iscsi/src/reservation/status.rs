//! The answers to PERSISTENT RESERVE IN (SPC-4 clause 6.15).

use crate::reservation::{is_held_by_all, is_holder, nexus_of};
use crate::scsi::fields::{length16, length32};
use crate::scsi::sense::Sense;
use admin_api::iscsi::{Registration, Reservations};

/// The answer to one service action.
pub fn answer(record: &Reservations, action: u8) -> Result<Vec<u8>, Sense> {
    let body: Vec<u8> = match action {
        0 => record
            .registrations
            .iter()
            .flat_map(|known| known.key.to_be_bytes())
            .collect(),
        1 => reservation(record),
        2 => return Ok(capabilities(record)),
        3 => record
            .registrations
            .iter()
            .flat_map(|known| full(record, known))
            .collect(),
        _ => return Err(Sense::cdb(1)),
    };
    Ok([&record.generation.to_be_bytes()[..], &length32(body.len()), &body].concat())
}

fn reservation(record: &Reservations) -> Vec<u8> {
    let Some(holder) = &record.holder else {
        return Vec::new();
    };
    let mut body = vec![0; 16];
    let key = record.registrations.iter().find(|known| {
        let nexus = nexus_of(known);
        !is_held_by_all(holder.scope_type) && nexus.initiator == holder.initiator && is_holder(record, &nexus)
    });
    body[..8].copy_from_slice(&key.map_or(0, |known| known.key).to_be_bytes());
    body[13] = holder.scope_type;
    body
}

fn capabilities(record: &Reservations) -> Vec<u8> {
    // PTPL_C: registrations are kept; the types are told, and all are there. ALLOW COMMANDS says 1: TEST UNIT READY
    // is let through.
    let mut bytes = vec![0, 8, 0x01, 0x90, 0xea, 0x01, 0, 0];
    if record.aptpl {
        bytes[3] |= 0x01;
    }
    bytes
}

fn full(record: &Reservations, known: &Registration) -> Vec<u8> {
    let nexus = nexus_of(known);
    let mut name = format!("{},i,0x{}\0", known.initiator, known.isid).into_bytes();
    name.resize(name.len().next_multiple_of(4).max(20), 0);
    let transport = [&[0x45, 0][..], &length16(name.len()), &name].concat();
    let mut bytes = vec![0; 24];
    bytes[..8].copy_from_slice(&known.key.to_be_bytes());
    if is_holder(record, &nexus) {
        bytes[12] = 1;
        bytes[13] = record.holder.as_ref().map_or(0, |holder| holder.scope_type);
    }
    bytes[18..20].copy_from_slice(&known.portal_group.to_be_bytes());
    bytes[20..24].copy_from_slice(&length32(transport.len()));
    bytes.extend_from_slice(&transport);
    bytes
}
