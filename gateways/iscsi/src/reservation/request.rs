//! The parameters of PERSISTENT RESERVE OUT (SPC-4 clauses 6.16.3 and 6.16.4).

use crate::reservation::is_type;
use crate::scsi::fields::{u16_at, u32_at, u64_at};
use crate::scsi::sense::Sense;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A key is registered, changed or taken back.
    Register,
    /// The same, whatever the present key is.
    RegisterIgnoring,
    /// The unit is reserved with this type.
    Reserve(u8),
    /// No more.
    Release(u8),
    /// All registrations go.
    Clear,
    /// Others' registrations go, and the reservation with them.
    Preempt {
        /// The type that it is reserved with then.
        scope_type: u8,
        /// Whether their tasks go, too.
        abort: bool,
    },
    /// The reservation becomes somebody else's.
    RegisterAndMove,
}

/// Bytes of the parameters of all actions but one.
pub const PARAMETERS_LENGTH: usize = 24;
/// Bytes of the longest parameters: a name of 223 characters with all around it.
pub const PARAMETERS_MAX: usize = 512;

impl Action {
    /// Reads the service action, and the byte of scope and type.
    pub fn parse(action: u8, scope_type: u8) -> Result<Self, Sense> {
        let reserved = || {
            if scope_type >> 4 == 0 && is_type(scope_type & 0xf) {
                Ok(scope_type & 0xf)
            } else {
                Err(Sense::cdb(2))
            }
        };
        Ok(match action {
            0 => Self::Register,
            1 => Self::Reserve(reserved()?),
            2 => Self::Release(reserved()?),
            3 => Self::Clear,
            4 | 5 => Self::Preempt {
                scope_type: reserved()?,
                abort: action == 5,
            },
            6 => Self::RegisterIgnoring,
            7 => Self::RegisterAndMove,
            _ => return Err(Sense::cdb(1)),
        })
    }
}

/// What comes with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The key of whoever asks.
    pub key: u64,
    /// Another key.
    pub service_key: u64,
    /// Whether registrations outlive a loss of power.
    pub aptpl: bool,
    /// Where a reservation moves to.
    pub moved: Option<Moved>,
}

/// Where a reservation moves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whether the former holder's registration goes.
    pub unregister: bool,
    /// The relative identifier of the target's port, which is the portal group's tag.
    pub port: u16,
    /// The initiator's name.
    pub initiator: String,
    /// The initiator's part of the session's name: 12 hexadecimal digits.
    pub isid: String,
}

impl Parameters {
    /// Reads what came with an action.
    pub fn parse(action: Action, bytes: &[u8]) -> Result<Self, Sense> {
        if bytes.len() < PARAMETERS_LENGTH || bytes.len() > PARAMETERS_MAX {
            return Err(Sense::PARAMETER_LENGTH);
        }
        let (key, service_key) = (u64_at(bytes, 0), u64_at(bytes, 8));
        if action == Action::RegisterAndMove {
            return Ok(Self {
                key,
                service_key,
                aptpl: bytes[17] & 1 != 0,
                moved: Some(moved(bytes)?),
            });
        }
        if bytes.len() != PARAMETERS_LENGTH {
            return Err(Sense::PARAMETER_LENGTH);
        }
        // Paths other than the own one are not registered: neither those named nor all ports.
        if matches!(action, Action::Register | Action::RegisterIgnoring) && bytes[20] & 0x0c != 0 {
            return Err(Sense::parameter(20));
        }
        Ok(Self {
            key,
            service_key,
            aptpl: bytes[20] & 1 != 0,
            moved: None,
        })
    }
}

/// Reads a `TransportID` of iSCSI that names an initiator and a session (SPC-4 clause 7.6.4.7).
fn moved(bytes: &[u8]) -> Result<Moved, Sense> {
    let length = usize::try_from(u32_at(bytes, 20)).unwrap_or(usize::MAX);
    let transport = &bytes[PARAMETERS_LENGTH..];
    if transport.len() != length || length < 24 {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if transport[0] != 0x45 {
        return Err(Sense::parameter(24));
    }
    let name = transport.get(4..4 + usize::from(u16_at(transport, 2)));
    let name = name.ok_or(Sense::parameter(26))?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = std::str::from_utf8(&name[..end]).map_err(|_| Sense::parameter(28))?;
    let (initiator, isid) = name.split_once(",i,0x").ok_or(Sense::parameter(28))?;
    let is_isid = isid.len() == 12 && isid.bytes().all(|byte| byte.is_ascii_hexdigit());
    if initiator.is_empty() || !is_isid {
        return Err(Sense::parameter(28));
    }
    Ok(Moved {
        unregister: bytes[17] & 2 != 0,
        port: u16_at(bytes, 18),
        initiator: initiator.to_lowercase(),
        isid: isid.to_lowercase(),
    })
}
