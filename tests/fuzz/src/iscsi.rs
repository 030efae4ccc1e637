//! iSCSI: PDUs as an initiator may send them, text keys and whole logins, CDBs with their parameters.

use std::cell::OnceCell;

use admin_api::iscsi::{Credentials, Reservations};
use storaged_iscsi::connection::stream::{Digests, PduReader};
use storaged_iscsi::login::parameters::{BURST_MAX, RECEIVE_MAX};
use storaged_iscsi::login::security::Proof;
use storaged_iscsi::login::{Answer, Demands, Login};
use storaged_iscsi::reservation::request::{Action, Parameters};
use storaged_iscsi::reservation::{Nexus, change};
use storaged_iscsi::scsi::command::{Command, decode};
use storaged_iscsi::scsi::extended_copy;
use storaged_iscsi::scsi::mode::{self, Medium, ModeState};
use storaged_iscsi::scsi::provisioning;
use storaged_iscsi::wire::request::{Kind, LoginRequest, parse};
use storaged_iscsi::wire::text::Text;
use tokio::runtime::Runtime;

const MEDIUM: Medium = Medium {
    blocks: 2048,
    block_size: 512,
    read_only: false,
};

thread_local! {
    static RUNTIME: OnceCell<Option<Runtime>> = const { OnceCell::new() };
}

/// A stream of PDUs: the first byte says which digests are there.
pub(crate) fn pdus(input: &[u8]) {
    let Some((agreed, bytes)) = input.split_first() else {
        return;
    };
    let digests = Digests {
        header: agreed & 1 != 0,
        data: agreed & 2 != 0,
    };
    RUNTIME.with(|cell| {
        let make = || tokio::runtime::Builder::new_current_thread().build().ok();
        if let Some(runtime) = cell.get_or_init(make) {
            runtime.block_on(async {
                let mut reader = PduReader::new(bytes);
                reader.expect(digests);
                while let Ok(pdu) = reader.read().await {
                    assert!(pdu.data.len() <= RECEIVE_MAX as usize, "a PDU is bounded");
                    // Whatever it says it is.
                    let _ = parse(&pdu.header);
                }
            });
        }
    });
}

/// A login: each step is a byte of flags and stages, a byte of length, and so much text.
pub(crate) fn login(input: &[u8]) {
    let Some((asked, mut rest)) = input.split_first() else {
        return;
    };
    let credentials = |user: &str| Credentials {
        user: user.to_owned(),
        secret: "a secret of the fuzzer".to_owned(),
    };
    let demands = Demands {
        chap: (asked & 1 != 0).then(|| credentials("initiator")),
        mutual: (asked & 2 != 0).then(|| credentials("target")),
        portal_group: (asked & 4 != 0).then_some(1),
    };
    let mut login = Login::new(demands, [7; 33]);
    while let [flags, length, more @ ..] = rest {
        let (text, later) = more.split_at(usize::from(*length).min(more.len()));
        rest = later;
        if let Ok(keys) = Text::parse(text) {
            assert_eq!(Text::parse(&keys.encode()), Ok(keys), "text reads back");
        }
        let request = LoginRequest {
            transit: flags & 0x80 != 0,
            continues: flags & 0x40 != 0,
            stage: flags >> 2 & 3,
            next_stage: flags & 3,
            version_min: flags >> 5 & 1,
            isid: [0; 6],
            tsih: 0,
            connection: 0,
        };
        match login.take(&request, text) {
            Answer::Text { transit: true, .. } => {
                assert!(login.proof() != Proof::Awaited, "nobody goes on without a proof");
            }
            Answer::Refuse(_) => return,
            Answer::Text { .. } | Answer::Continue => {}
        }
    }
    let agreed = login.parameters();
    assert!(agreed.burst_max <= BURST_MAX && agreed.send_max >= 512);
}

/// A CDB of 16 bytes, and what may follow it as data.
pub(crate) fn commands(input: &[u8]) {
    let Some((cdb, data)) = input.split_first_chunk::<16>() else {
        return;
    };
    let mut header = storaged_iscsi::wire::header::Header::new(0x01, 0x80, 1);
    header.0[32..48].copy_from_slice(cdb);
    if let Ok(request) = parse(&header) {
        assert!(matches!(request.kind, Kind::Command(command) if command.cdb == *cdb));
    }
    match decode(cdb) {
        Ok(Command::Unmap { .. }) => {
            for area in provisioning::unmap(data, MEDIUM).unwrap_or_default() {
                assert!(
                    area.block + area.count <= MEDIUM.blocks,
                    "blocks are inside the unit"
                );
            }
        }
        Ok(Command::ExtendedCopy { length }) => match extended_copy::parse(data, length) {
            Ok(request) => assert!(
                request.segments.len() <= usize::from(extended_copy::SEGMENTS_MAX),
                "segments are bounded"
            ),
            Err(sense) => assert!(
                matches!(sense.key, 5 | 0xa),
                "a list is refused, or its copy aborted"
            ),
        },
        Ok(Command::ModeSense { query, .. }) => {
            let _ = mode::sense(query, ModeState::default(), MEDIUM);
        }
        Ok(Command::ModeSelect { long, .. }) => {
            let _ = mode::select(long, data, ModeState::default(), MEDIUM);
        }
        Ok(Command::PersistentOut {
            action, scope_type, ..
        }) => reserve(action, scope_type, data),
        Ok(_) => {}
        Err(sense) => assert_eq!(sense.key, 5, "a CDB that is none is an illegal request"),
    }
}

fn reserve(action: u8, scope_type: u8, data: &[u8]) {
    let Ok(action) = Action::parse(action, scope_type) else {
        return;
    };
    let nexus = Nexus {
        initiator: "iqn.2026-01.example:i".to_owned(),
        isid: "800000000001".to_owned(),
        target: "iqn.2026-01.example:t".to_owned(),
        portal_group: 1,
    };
    if let Ok(parameters) = Parameters::parse(action, data)
        && let Ok(change) = change(&Reservations::default(), &nexus, action, &parameters)
    {
        assert!(change.record.registrations.len() <= 1);
    }
}
