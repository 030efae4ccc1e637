//! Discovery sessions: which targets an initiator may use, and where (RFC 7143 section 4.3 and appendix C).

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::entry::{LOGIN_MAX, entropy, login_of, numbers, send};
use crate::connection::stream::{Pdu, PduReader};
use crate::connection::{ConnectionError, stream::ReadError};
use crate::login::{Answer, Demands, FULL_FEATURE, Login, Names, Refusal};
use crate::portal::Door;
use crate::wire::header::NO_TAG;
use crate::wire::request::{Kind, Request, parse};
use crate::wire::response::{
    Numbers, Outgoing, login_refusal, login_response, logout_response, nop_in, reject, text_response,
};
use crate::wire::text::Text;

/// Requests of one discovery session. Initiators send two or three.
const REQUESTS_MAX: u32 = 64;
/// Reject: the request is not one that a discovery session has.
const PROTOCOL_ERROR: u8 = 0x04;

struct Discovery {
    stream: PduReader<TcpStream>,
    status: u32,
    initiator: String,
    send_max: usize,
    /// What of an answer was too long for one response.
    rest: Bytes,
}

/// Serves one session.
pub(super) async fn serve(
    door: &Door,
    stream: PduReader<TcpStream>,
    first: Pdu,
) -> Result<(), ConnectionError> {
    let (request, _) = login_of(&first)?;
    let text = Text::parse(&first.data).map_err(|_| Refusal::Initiator)?;
    let mut discovery = Discovery {
        stream,
        status: request.expected_status,
        initiator: Names::of(&text)?.initiator,
        send_max: 0,
        rest: Bytes::new(),
    };
    discovery.enter(first).await?;
    for _ in 0..REQUESTS_MAX {
        let pdu = discovery.read().await?;
        let Ok(request) = parse(&pdu.header) else {
            discovery.send(reject(PROTOCOL_ERROR, &pdu.header), &pdu).await?;
            continue;
        };
        let leaves = matches!(request.kind, Kind::Logout { .. });
        let answer = discovery.answer(door, &request, &pdu);
        discovery.send(answer, &pdu).await?;
        if leaves {
            return Ok(());
        }
    }
    Err(ConnectionError::Protocol("a discovery session did not end"))
}

impl Discovery {
    async fn read(&mut self) -> Result<Pdu, ConnectionError> {
        let read: Result<Pdu, ReadError> = timeout(LOGIN_MAX, self.stream.read())
            .await
            .map_err(|_| ConnectionError::Silent)?;
        Ok(read?)
    }

    async fn enter(&mut self, first: Pdu) -> Result<(), ConnectionError> {
        let mut machine = Login::new(Demands::default(), entropy()?);
        let mut pdu = first;
        loop {
            let (request, login) = login_of(&pdu)?;
            let (tag, isid) = (request.task_tag, login.isid);
            let (response, done) = match machine.take(&login, &pdu.data) {
                Answer::Refuse(refusal) => {
                    let response = login_refusal(tag, isid, refusal.status(), Bytes::new());
                    self.stamped(response, numbers(&request, self.status)).await?;
                    return Err(refusal.into());
                }
                Answer::Continue => (
                    login_response(tag, false, (login.stage, 0), isid, 0, Bytes::new()),
                    false,
                ),
                Answer::Text {
                    transit,
                    stages,
                    text,
                } => {
                    let done = transit && stages.1 == FULL_FEATURE;
                    (
                        login_response(tag, transit, stages, isid, u16::from(done), text.into()),
                        done,
                    )
                }
            };
            self.stamped(response, numbers(&request, self.status)).await?;
            self.status = self.status.wrapping_add(1);
            if done {
                let parameters = machine.parameters();
                self.send_max = usize::try_from(parameters.send_max).unwrap_or(usize::MAX);
                self.stream.expect(crate::connection::stream::Digests {
                    header: parameters.header_digest,
                    data: parameters.data_digest,
                });
                return Ok(());
            }
            pdu = self.read().await?;
        }
    }

    async fn stamped(&mut self, response: Outgoing, numbers: Numbers) -> std::io::Result<()> {
        let digests = self.stream.digests();
        send(self.stream.get_mut(), response, numbers, digests).await
    }

    /// Sends an answer to a request; the next command's number is told.
    async fn send(&mut self, response: Outgoing, pdu: &Pdu) -> Result<(), ConnectionError> {
        let number = pdu.header.u32(24);
        let next = if pdu.header.is_immediate() {
            number
        } else {
            number.wrapping_add(1)
        };
        let numbers = Numbers {
            status: self.status,
            expected_command: next,
            command_max: next,
        };
        self.stamped(response, numbers).await?;
        self.status = self.status.wrapping_add(1);
        Ok(())
    }

    fn answer(&mut self, door: &Door, request: &Request, pdu: &Pdu) -> Outgoing {
        let tag = request.task_tag;
        match request.kind {
            Kind::Logout { .. } => logout_response(tag, 0),
            Kind::NopOut { .. } if tag != NO_TAG => nop_in(tag, request.lun, pdu.data.clone()),
            Kind::Text {
                continues: false,
                target_tag,
            } => {
                if target_tag == NO_TAG {
                    let Ok(text) = Text::parse(&pdu.data) else {
                        return reject(PROTOCOL_ERROR, &pdu.header);
                    };
                    self.rest = Bytes::from(self.targets(door, &text).encode());
                }
                let piece = self.rest.split_to(self.rest.len().min(self.send_max));
                let last = self.rest.is_empty();
                text_response(tag, last, if last { NO_TAG } else { 1 }, piece)
            }
            _ => reject(PROTOCOL_ERROR, &pdu.header),
        }
    }

    /// The targets that the initiator may use, each with its portals; by default the one that it came in by.
    fn targets(&self, door: &Door, text: &Text) -> Text {
        let mut answer = Text::default();
        let Some(wanted) = text.get("SendTargets") else {
            return answer;
        };
        let own = self.stream.get_ref().local_addr();
        let configuration = door.configured.borrow();
        let allowed = configuration
            .targets
            .iter()
            .filter(|target| target.lets_in(&self.initiator).is_some());
        for target in allowed.filter(|target| wanted == "All" || wanted == target.name) {
            answer.add("TargetName", target.name.as_str());
            let portals = if target.portals.is_empty() {
                &configuration.portals
            } else {
                &target.portals
            };
            for portal in portals {
                answer.add("TargetAddress", format!("{},{}", portal.address, portal.group));
            }
            if let (true, false, Ok(address)) = (portals.is_empty(), door.redirects, &own) {
                answer.add("TargetAddress", format!("{address},{}", door.portal_group));
            }
        }
        answer
    }
}
