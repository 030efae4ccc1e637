//! How much there may be of what concerns iSCSI, and whether a request keeps to it.

use std::collections::BTreeSet;

use super::{Credentials, Registration, Reservations, normalise_name};

/// The highest number of a LUN: what all initiators can address in one byte (SAM-5 clause 4.7.7.2).
pub const LUN_NUMBER_MAX: u16 = 255;
/// The most LUNs of a target. One record holds them all, and a gateway opens each.
pub const LUNS_MAX: usize = 256;
/// The most initiators of a target: a large hypervisor cluster twice over. One record holds them all.
pub const ACCESS_MAX: usize = 128;
/// The most addresses of one gateway: a few networks, in IPv4 and IPv6.
pub const ADDRESSES_MAX: usize = 16;
/// The most registrations with one LUN: 64 hosts with 4 paths each.
pub const REGISTRATIONS_MAX: usize = 256;
/// The block sizes of LUNs, in bytes.
pub const BLOCK_SIZES: [u32; 2] = [512, 4096];
/// The shortest secret, in bytes: 96 bits, as RFC 7143 section 9.2.1 wants.
pub const SECRET_BYTES_MIN: usize = 12;
/// The longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 255;
/// The longest name that goes with a secret, in bytes.
pub const USER_BYTES_MAX: usize = 255;
/// The longest that a question waits for a change, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;
/// A gateway that has not said for so long where it serves is forgotten, in milliseconds.
pub const PORTAL_LEASE_MS: u64 = 30_000;
/// So often a gateway says where it serves, in milliseconds: two such words may be lost.
pub const PORTAL_RENEWAL_MS: u64 = 10_000;
/// The types of persistent reservations (SPC-4 clause 6.15.3.3).
const RESERVATION_TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];
/// Digits of a session's identifier (RFC 7143 section 11.12.5): six bytes.
const ISID_DIGITS: usize = 12;

/// Why a name and a secret are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCredentials {
    /// The name's length.
    #[error("the CHAP name has {0} bytes: use 1 to {USER_BYTES_MAX}")]
    UserLength(usize),
    /// The name's characters.
    #[error("the CHAP name has characters that are not printable ASCII: use letters, digits and signs")]
    UserCharacters,
    /// The secret's length.
    #[error("the CHAP secret has {0} bytes: use {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}")]
    SecretLength(usize),
    /// The secret's characters.
    #[error("the CHAP secret has characters that are not printable ASCII: initiators could not be told it")]
    SecretCharacters,
}

impl Credentials {
    /// Whether they can be used for CHAP, by every initiator.
    pub fn check(&self) -> Result<(), BadCredentials> {
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if !(1..=USER_BYTES_MAX).contains(&self.user.len()) {
            return Err(BadCredentials::UserLength(self.user.len()));
        }
        if !printable(&self.user) {
            return Err(BadCredentials::UserCharacters);
        }
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&self.secret.len()) {
            return Err(BadCredentials::SecretLength(self.secret.len()));
        }
        if !printable(&self.secret) {
            return Err(BadCredentials::SecretCharacters);
        }
        Ok(())
    }
}

impl Reservations {
    /// What is wrong with a record that a gateway wants to be kept.
    pub fn check(&self) -> Result<(), String> {
        if self.registrations.len() > REGISTRATIONS_MAX {
            let count = self.registrations.len();
            return Err(format!(
                "{count} registrations are too many: at most {REGISTRATIONS_MAX} are kept"
            ));
        }
        let mut seen = BTreeSet::new();
        for Registration {
            initiator,
            isid,
            target,
            portal_group,
            ..
        } in &self.registrations
        {
            check_port(initiator, isid, target)?;
            if !seen.insert((initiator, isid, target, portal_group)) {
                return Err(format!("{initiator} is registered twice through one port"));
            }
        }
        match &self.reserved {
            None => {}
            Some(holder) if holder.scope_type == 0 => {
                check_port(&holder.initiator, &holder.isid, &holder.target)?;
            }
            Some(holder) => {
                return Err(format!(
                    "the older kind of reservation has no type {}",
                    holder.scope_type
                ));
            }
        }
        match &self.holder {
            None => Ok(()),
            Some(holder) if RESERVATION_TYPES.contains(&holder.scope_type) => {
                check_port(&holder.initiator, &holder.isid, &holder.target)
            }
            Some(holder) => Err(format!(
                "there is no type {} of persistent reservations",
                holder.scope_type
            )),
        }
    }
}

fn check_port(initiator: &str, isid: &str, target: &str) -> Result<(), String> {
    for name in [initiator, target] {
        let normal = normalise_name(name).map_err(|error| error.to_string())?;
        if normal != name {
            return Err(format!("{name:?} has capitals: names are kept in lower case"));
        }
    }
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if isid.is_empty() || (isid.len() == ISID_DIGITS && isid.bytes().all(is_digit)) {
        return Ok(());
    }
    Err(format!(
        "{isid:?} is no session's identifier: {ISID_DIGITS} small hexadecimal digits are needed, or none"
    ))
}

#[cfg(test)]
mod tests {
    //! What is kept can be used by every initiator and gateway.
    use super::super::Holder;
    use super::*;

    fn credentials(user: &str, secret: &str) -> Result<(), BadCredentials> {
        let (user, secret) = (user.to_owned(), secret.to_owned());
        Credentials { user, secret }.check()
    }

    #[test]
    fn secrets_are_as_long_as_the_standard_wants_and_can_be_typed() {
        assert_eq!(credentials("u", "123456789012"), Ok(()));
        assert_eq!(
            credentials("u", "12345678901"),
            Err(BadCredentials::SecretLength(11))
        );
        assert_eq!(
            credentials("u", &"x".repeat(256)),
            Err(BadCredentials::SecretLength(256))
        );
        assert_eq!(
            credentials("", "123456789012"),
            Err(BadCredentials::UserLength(0))
        );
        assert_eq!(
            credentials("u\n", "123456789012"),
            Err(BadCredentials::UserCharacters)
        );
        assert_eq!(
            credentials("u", "1234567890\u{e9}"),
            Err(BadCredentials::SecretCharacters)
        );
    }

    fn registration(isid: &str) -> Registration {
        Registration {
            initiator: "iqn.2026-11.org.example:host".to_owned(),
            isid: isid.to_owned(),
            target: "iqn.2026-11.org.example:disk".to_owned(),
            portal_group: 1,
            key: 7,
        }
    }

    #[test]
    fn registrations_are_few_distinct_and_well_formed() {
        let of = |registrations: Vec<Registration>| Reservations {
            registrations,
            ..Reservations::default()
        };
        assert_eq!(
            of(vec![registration(""), registration("0123456789ab")]).check(),
            Ok(())
        );
        for (wrong, part) in [
            (of(vec![registration("0123456789AB")]), "no session's identifier"),
            (of(vec![registration(""), registration("")]), "twice"),
            (of(vec![registration(""); REGISTRATIONS_MAX + 1]), "too many"),
        ] {
            let error = wrong.check().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let mut capital = registration("");
        capital.target = "iqn.2026-11.org.example:Disk".to_owned();
        assert!(of(vec![capital]).check().unwrap_err().contains("capitals"));
    }

    #[test]
    fn a_holder_has_a_type_that_there_is() {
        for scope_type in 0..=9 {
            let Registration {
                initiator,
                isid,
                target,
                portal_group,
                ..
            } = registration("");
            let holder = Some(Holder {
                initiator,
                isid,
                target,
                portal_group,
                scope_type,
            });
            let reservations = Reservations {
                holder,
                ..Reservations::default()
            };
            assert_eq!(
                reservations.check().is_ok(),
                [1, 3, 5, 6, 7, 8].contains(&scope_type),
                "{scope_type}"
            );
        }
    }
}
