//! The login of one connection at its target: the pure machine is fed, and the session is found or made.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tracing::info;

use crate::connection::ConnectionError;
use crate::connection::outbox::{encode, write_all};
use crate::connection::stream::{Digests, Pdu, PduReader};
use crate::login::parameters::Parameters;
use crate::login::{Answer, Demands, FULL_FEATURE, Login, Names, Refusal};
use crate::reservation::Nexus;
use crate::target::Home;
use crate::target::session::Session;
use crate::wire::request::{Kind, LoginRequest, Request, parse};
use crate::wire::response::{Numbers, Outgoing, login_refusal, login_response};
use crate::wire::text::Text;

/// How long a login may take.
pub(crate) const LOGIN_MAX: Duration = Duration::from_secs(15);

/// A connection that is let in.
pub(super) struct Entered {
    pub(super) session: Rc<Session>,
    pub(super) parameters: Parameters,
    /// The connection's name in its session.
    pub(super) connection: u16,
    /// Raised when this connection ends.
    pub(super) ended: watch::Receiver<bool>,
    /// The next `StatSN`.
    pub(super) status_number: u32,
}

/// Random bytes for one login.
pub(crate) fn entropy() -> Result<[u8; 33], Refusal> {
    let mut bytes = [0; 33];
    // Without randomness nobody can be told from somebody who listened before.
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Refusal::Unavailable)?;
    Ok(bytes)
}

/// Numbers of a login's responses.
pub(crate) fn numbers(request: &Request, status: u32) -> Numbers {
    Numbers {
        status,
        expected_command: request.command_number,
        command_max: request.command_number,
    }
}

/// Sends one response of a login.
pub(crate) async fn send<W: AsyncWrite + Unpin>(
    output: &mut W,
    mut response: Outgoing,
    numbers: Numbers,
    digests: Digests,
) -> std::io::Result<()> {
    response.stamp(numbers);
    let mut pieces = VecDeque::new();
    encode(response, digests, &mut pieces);
    write_all(output, &mut pieces).await
}

/// Reads a login request.
pub(crate) fn login_of(pdu: &Pdu) -> Result<(Request, LoginRequest), ConnectionError> {
    let request =
        parse(&pdu.header).map_err(|_| ConnectionError::Protocol("the first request is unknown"))?;
    match request.kind {
        Kind::Login(login) => Ok((request, login)),
        _ => Err(ConnectionError::Protocol("a request came before the login")),
    }
}

/// Carries out the login.
pub(super) async fn enter<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    home: &Rc<Home>,
    reader: &mut PduReader<R>,
    output: &mut W,
    first: Pdu,
    portal_group: u16,
) -> Result<Entered, ConnectionError> {
    let (request, login) = login_of(&first)?;
    // StatSN begins where the initiator says that it will.
    let mut status = request.expected_status;
    let begun = begin(home, &first, portal_group);
    let (initiator, mut machine) = match begun {
        Ok(begun) => begun,
        Err(refusal) => return refuse(output, &request, &login, status, refusal).await,
    };
    let mut pdu = first;
    loop {
        let (request, login) = login_of(&pdu)?;
        let answer = machine.take(&login, &pdu.data);
        match answer {
            Answer::Refuse(refusal) => return refuse(output, &request, &login, status, refusal).await,
            Answer::Continue => {
                let response = login_response(
                    request.task_tag,
                    false,
                    (login.stage, 0),
                    login.isid,
                    login.tsih,
                    Vec::new().into(),
                );
                send(output, response, numbers(&request, status), Digests::default()).await?;
            }
            Answer::Text {
                transit,
                stages,
                text,
            } => {
                let done = transit && stages.1 == FULL_FEATURE;
                let entered = if done {
                    let admitted = admit(
                        home,
                        &initiator,
                        portal_group,
                        &request,
                        &login,
                        machine.parameters(),
                    );
                    match admitted.await {
                        Ok(entered) => Some(entered),
                        Err(refusal) => return refuse(output, &request, &login, status, refusal).await,
                    }
                } else {
                    None
                };
                let tsih = entered.as_ref().map_or(login.tsih, |(session, _)| session.tsih);
                let response =
                    login_response(request.task_tag, transit, stages, login.isid, tsih, text.into());
                let mut told = numbers(&request, status);
                if let Some((session, _)) = &entered {
                    (told.expected_command, told.command_max) = session.numbers.borrow_mut().tell();
                }
                send(output, response, told, Digests::default()).await?;
                if let Some((session, ended)) = entered {
                    info!(initiator, isid = session.nexus.isid, "an initiator logged in");
                    return Ok(Entered {
                        session,
                        parameters: machine.parameters().clone(),
                        connection: login.connection,
                        ended,
                        status_number: status.wrapping_add(1),
                    });
                }
            }
        }
        status = status.wrapping_add(1);
        pdu = reader.read().await?;
    }
}

async fn refuse<W: AsyncWrite + Unpin>(
    output: &mut W,
    request: &Request,
    login: &LoginRequest,
    status: u32,
    refusal: Refusal,
) -> Result<Entered, ConnectionError> {
    let response = login_refusal(request.task_tag, login.isid, refusal.status(), Vec::new().into());
    send(output, response, numbers(request, status), Digests::default()).await?;
    Err(refusal.into())
}

/// Who wants in, and what is asked of it.
fn begin(home: &Home, first: &Pdu, portal_group: u16) -> Result<(String, Login), Refusal> {
    let text = Text::parse(&first.data).map_err(|_| Refusal::Initiator)?;
    let names = Names::of(&text)?;
    let target = home.target().ok_or(Refusal::NotFound)?;
    let access = target.lets_in(&names.initiator).ok_or(Refusal::Authorization)?;
    let demands = Demands {
        chap: access.chap.clone(),
        mutual: target.mutual.clone(),
        portal_group: Some(portal_group),
    };
    Ok((names.initiator, Login::new(demands, entropy()?)))
}

/// Finds or makes the session. One of the same names that is there already ends when a new one begins (RFC 7143 section
/// 6.3.5).
async fn admit(
    home: &Rc<Home>,
    initiator: &str,
    portal_group: u16,
    request: &Request,
    login: &LoginRequest,
    parameters: &Parameters,
) -> Result<(Rc<Session>, watch::Receiver<bool>), Refusal> {
    let nexus = Nexus {
        initiator: initiator.to_owned(),
        isid: data_encoding::HEXLOWER.encode(&login.isid),
        target: home.name.clone(),
        portal_group,
    };
    let session = if login.tsih == 0 {
        home.make_way(&nexus).await;
        let first = request.command_number;
        let made =
            home.begin_session(|tsih| Session::new(tsih, login.isid, nexus, parameters.clone(), first));
        made.ok_or(Refusal::TooMany)?
    } else {
        let sessions = home.sessions();
        let known = sessions
            .into_iter()
            .find(|session| session.tsih == login.tsih && session.nexus == nexus);
        known.ok_or(Refusal::NoSession)?
    };
    let ended = session.join(login.connection).ok_or(Refusal::TooMany)?;
    Ok((session, ended))
}
