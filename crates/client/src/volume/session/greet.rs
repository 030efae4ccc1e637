//! The first words to `storaged`, and the questions that need no session: which volumes there are, and what one is.

use std::io;
use std::time::Duration;

use protocol::codec::Message;
use protocol::session::{ExportEntry, SessionReply, SessionRequest, VolumeView};
use tokio::time::timeout;

use super::super::{OpenError, credentials};
use crate::transport::{self, Address, Credentials, Link};

/// How long `storaged` may take to answer a greeting.
pub(crate) const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// A `storaged` that greeted back.
pub(crate) struct Greeted {
    pub(crate) link: Link,
    pub(crate) address: Address,
    pub(crate) credentials: Option<Credentials>,
}

/// The first `storaged` that greets back.
pub(crate) async fn greet(program: &str, storaged: &[Address]) -> Result<Greeted, OpenError> {
    let mut last = OpenError::NoAddress;
    for address in storaged {
        let attempt = async {
            let mut link = Link::new(transport::connect(address, None).await?);
            let hello = SessionRequest::Hello {
                program: program.to_owned(),
                pid: std::process::id(),
                yields: true,
                moves: true,
            };
            link.outbox.push_session_request(0, &hello);
            match converse(&mut link).await? {
                SessionReply::Ok => Ok((link, None)),
                SessionReply::Credentials(view) => Ok((link, credentials::usable(&view))),
                _ => Err(out_of_turn()),
            }
        };
        let result = timeout(GREETING_LIMIT, attempt).await;
        match result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((link, credentials)) => {
                return Ok(Greeted {
                    link,
                    address: address.clone(),
                    credentials,
                });
            }
            Err(source) => {
                last = OpenError::Unreachable {
                    address: address.to_string(),
                    source,
                }
            }
        }
    }
    Err(last)
}

pub(crate) async fn converse(link: &mut Link) -> io::Result<SessionReply> {
    match link.converse().await? {
        (_, Message::SessionReply(reply)) => Ok(reply),
        _ => Err(out_of_turn()),
    }
}

pub(crate) fn out_of_turn() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "storaged answered something that was not asked",
    )
}

/// What may be opened, for gateways that list exports.
pub(in crate::volume) async fn list(
    program: &str,
    storaged: &[Address],
) -> Result<Vec<ExportEntry>, OpenError> {
    let Greeted {
        mut link, address, ..
    } = greet(program, storaged).await?;
    link.outbox.push_session_request(1, &SessionRequest::List);
    let unreachable = |source| OpenError::Unreachable {
        address: address.to_string(),
        source,
    };
    match converse(&mut link).await.map_err(unreachable)? {
        SessionReply::Volumes { volumes } => Ok(volumes),
        SessionReply::Refused { kind, message } => Err(OpenError::Refused { kind, message }),
        SessionReply::Ok
        | SessionReply::Credentials(_)
        | SessionReply::Opened(_)
        | SessionReply::Shared(_) => Err(unreachable(out_of_turn())),
    }
}

/// What a volume is, whoever has it open.
pub(in crate::volume) async fn look(
    program: &str,
    storaged: &[Address],
    volume: &str,
) -> Result<VolumeView, OpenError> {
    let Greeted {
        mut link, address, ..
    } = greet(program, storaged).await?;
    let volume = volume.to_owned();
    link.outbox
        .push_session_request(1, &SessionRequest::Look { volume });
    let unreachable = |source| OpenError::Unreachable {
        address: address.to_string(),
        source,
    };
    match converse(&mut link).await.map_err(unreachable)? {
        SessionReply::Opened(view) => Ok(*view),
        SessionReply::Refused { kind, message } => Err(OpenError::Refused { kind, message }),
        SessionReply::Ok
        | SessionReply::Credentials(_)
        | SessionReply::Volumes { .. }
        | SessionReply::Shared(_) => Err(unreachable(out_of_turn())),
    }
}
