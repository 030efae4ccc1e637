//! A connection as an attachment: a front end that shares a volume with others. The key of an attachment is what tells
//! an owner whose requests it may carry out, and a new owner whom it has to wait for; it goes away with its lease.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use client::transport::{Address, Role};
use coordination::keys::{Key, attachments_of};
use coordination::records::{AttachedRecord, decode, encode};
use coordination::{Compare, LeaseId, Outcome, Transaction};
use protocol::session::{SessionPush, SessionRefusal, SessionReply};
use protocol::shared::{AttachmentView, SharedReply, SharedRequest, SharingOwner};
use protocol::{Generation, VolumeId};
use tokio::time::timeout;
use tracing::{info, warn};

use super::super::ownership::{self, Refused};
use super::super::peer::Peer;
use super::super::reattachment::{self, Lapsed};
use super::FrontEnd;
use crate::moment::wall_clock_ms;

/// What the names of sockets begin with where front ends listen for others.
const SOCKET_PREFIX: &str = "peer-";
/// Addresses of one front end.
const ADDRESSES_MAX: usize = 8;

/// What a connection is attached to.
pub(super) struct Attached {
    volume: VolumeId,
    number: u64,
    lease: LeaseId,
    /// Sockets beside ours, to be removed when nobody listens there any more.
    sockets: Vec<PathBuf>,
    /// As it was told last.
    view: AttachmentView,
}

impl Attached {
    fn remove_sockets(&self) {
        for socket in &self.sockets {
            // The front end may have done so itself.
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn is_peer_socket(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with(SOCKET_PREFIX))
}

impl FrontEnd {
    pub(super) async fn shared(&mut self, request: SharedRequest) -> Result<SessionReply, Refused> {
        match request {
            SharedRequest::Meet => Ok(SessionReply::Shared(SharedReply::Meet {
                addresses: self.meeting_places(),
            })),
            SharedRequest::Attach { volume, addresses } => self.attach(&volume, addresses).await,
            SharedRequest::Reattach {
                volume,
                attachment,
                addresses,
                owned,
            } => self.reattach(volume, attachment, addresses, owned).await,
            SharedRequest::Look => {
                let attached = self.attached()?;
                let (volume, number) = (attached.volume, attached.number);
                // All who came before this call, through whatever node.
                let now = self.sessions.store.range(&attachments_of(volume)).await?.revision;
                self.map.at_least(now).await;
                let view = self.attachment_view(volume, number);
                let gone = || Refused::new(SessionRefusal::Lost, "the volume was deleted");
                let view = Box::new(view.ok_or_else(gone)?);
                Ok(SessionReply::Shared(SharedReply::Attached(view)))
            }
            SharedRequest::Keep => {
                let lease = self.attached()?.lease;
                self.sessions.store.keep_lease(lease).await?;
                Ok(SessionReply::Ok)
            }
            SharedRequest::Detach => {
                let lease = self.attached()?.lease;
                self.sessions.store.revoke_lease(lease).await?;
                if let Some(attached) = self.attached.take() {
                    attached.remove_sockets();
                }
                Ok(SessionReply::Ok)
            }
            SharedRequest::Join { .. }
            | SharedRequest::Rejoined
            | SharedRequest::Confirm { .. }
            | SharedRequest::Notice
            | SharedRequest::TookNotice { .. } => {
                let message = "that is said to the owner of a shared volume, not to storaged";
                Err(Refused::new(SessionRefusal::Invalid, message))
            }
        }
    }

    fn attached(&self) -> Result<&Attached, Refused> {
        let none = || Refused::new(SessionRefusal::Lost, "this connection has no attachment");
        self.attached.as_ref().ok_or_else(none)
    }

    /// Where a front end of this node may listen for others: on a socket beside ours, and where other nodes reach this
    /// one.
    fn meeting_places(&self) -> Vec<String> {
        let settings = &self.sessions.settings;
        let mut places = Vec::new();
        if let Address::Unix(socket) = &settings.address {
            let name = format!(
                "{SOCKET_PREFIX}{}-{}.sock",
                std::process::id(),
                self.sessions.new_token()
            );
            places.push(Address::Unix(socket.with_file_name(name)));
        }
        if let Some(host) = &settings.host {
            let host = format!("{host}:0");
            places.push(match &settings.credentials {
                Some(_) => Address::Tls {
                    name: Role::FrontEnd(settings.node.0).name(),
                    host,
                },
                None => Address::Tcp(host),
            });
        }
        places.iter().map(ToString::to_string).collect()
    }

    async fn attach(&mut self, name: &str, addresses: Vec<String>) -> Result<SessionReply, Refused> {
        self.refuse_second()?;
        let record = self.attached_record(addresses)?;
        self.catch_up(|map| map.volume_named(name).is_some()).await?;
        let missing = || Refused::new(SessionRefusal::NotFound, format!("there is no volume {name:?}"));
        let volume = self.map.current().volume_named(name).ok_or_else(missing)?;
        let store = self.sessions.store.as_ref();
        let lease = store.grant_lease(self.sessions.settings.lease).await?;
        let number = lease.0;
        let sockets = self.sockets_of(&record);
        let key = Key::Attached(volume, number).to_text();
        let transaction = Transaction::new()
            .when(Compare::Present(Key::Volume(volume).to_text()))
            .put_leased(key, encode(&record)?, lease);
        match store.commit(transaction).await? {
            Outcome::Committed(revision) => {
                self.map.at_least(revision).await;
                info!(
                    volume = name,
                    attachment = number,
                    program = self.program,
                    pid = self.pid,
                    "attached"
                );
                self.now_attached(volume, number, lease, sockets)
            }
            Outcome::Conflict(_) => {
                // It would lapse by itself: nobody needs it meanwhile.
                store.revoke_lease(lease).await?;
                Err(missing())
            }
        }
    }

    /// What is told of this front end as an attachment.
    fn attached_record(&self, addresses: Vec<String>) -> Result<AttachedRecord, Refused> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            let message = format!("a front end that shares a volume has 1 to {ADDRESSES_MAX} addresses");
            return Err(Refused::new(SessionRefusal::Invalid, message));
        }
        Ok(AttachedRecord {
            node: self.sessions.settings.node,
            program: self.program.clone(),
            pid: self.process,
            addresses,
            attached_ms: wall_clock_ms(),
        })
    }

    async fn reattach(
        &mut self,
        volume: VolumeId,
        number: u64,
        addresses: Vec<String>,
        owned: Option<Generation>,
    ) -> Result<SessionReply, Refused> {
        self.refuse_second()?;
        let store = self.sessions.store.as_ref();
        let found = store.get(&Key::Attached(volume, number).to_text()).await?;
        let found = found.and_then(|entry| Some((entry.lease?, entry)));
        if let Some((lease, entry)) = found {
            store.keep_lease(lease).await?;
            self.map.at_least(entry.modified).await;
            let record: AttachedRecord = decode(&entry)
                .map_err(|error| Refused::new(SessionRefusal::Unavailable, error.to_string()))?;
            let sockets = self.sockets_of(&record);
            return self.now_attached(volume, number, lease, sockets);
        }
        match owned {
            Some(owned) if !addresses.is_empty() => self.come_back(volume, number, addresses, owned).await,
            _ => {
                let message = format!("the attachment to {volume} has lapsed");
                Err(Refused::new(SessionRefusal::Lost, message))
            }
        }
    }

    /// An attachment that has lapsed, of the last owner of its volume.
    async fn come_back(
        &mut self,
        volume: VolumeId,
        attachment: u64,
        addresses: Vec<String>,
        owned: Generation,
    ) -> Result<SessionReply, Refused> {
        let record = self.attached_record(addresses)?;
        let map = self.map.current();
        // Nothing is granted on the ground of records that are being put back.
        if map.recalls() {
            let message = "records of the coordination store are being put back: try again";
            return Err(Refused::new(SessionRefusal::Unavailable, message));
        }
        let name = map.volume(volume).map(|(_, volume)| volume.record.name.clone());
        let name = name.unwrap_or_else(|| volume.to_string());
        let lapsed = Lapsed {
            volume,
            name: &name,
            attachment,
            owned,
        };
        let store = self.sessions.store.as_ref();
        let time_to_live = self.sessions.settings.lease;
        let (lease, revision) = reattachment::come_back(store, lapsed, &record, time_to_live).await?;
        self.map.at_least(revision).await;
        info!(volume = name, attachment, program = self.program, pid = self.pid, generation = %owned,
            "attached again: it had lapsed, and nobody has owned the volume since");
        let sockets = self.sockets_of(&record);
        self.now_attached(volume, attachment, lease, sockets)
    }

    /// Those addresses of an attachment that are sockets beside ours.
    fn sockets_of(&self, record: &AttachedRecord) -> Vec<PathBuf> {
        let Address::Unix(ours) = &self.sessions.settings.address else {
            return Vec::new();
        };
        let beside = |text: &String| match text.parse() {
            Ok(Address::Unix(path)) if path.parent() == ours.parent() && is_peer_socket(&path) => Some(path),
            _ => None,
        };
        record.addresses.iter().filter_map(beside).collect()
    }

    fn now_attached(
        &mut self,
        volume: VolumeId,
        number: u64,
        lease: LeaseId,
        sockets: Vec<PathBuf>,
    ) -> Result<SessionReply, Refused> {
        let Some(view) = self.attachment_view(volume, number) else {
            let message = format!("{volume} was deleted");
            return Err(Refused::new(SessionRefusal::NotFound, message));
        };
        self.attached = Some(Attached {
            volume,
            number,
            lease,
            sockets,
            view: view.clone(),
        });
        Ok(SessionReply::Shared(SharedReply::Attached(Box::new(view))))
    }

    fn attachment_view(&self, volume: VolumeId, number: u64) -> Option<AttachmentView> {
        let map = self.map.current();
        let (_, record) = map.volume(volume)?;
        let owner = map.owner(volume).map(|owner| {
            let attachment = owner.record.attachment;
            let addresses = map
                .attached(volume)
                .find(|(other, _)| Some(*other) == attachment)
                .map(|(_, attached)| self.reachable(&attached.record));
            SharingOwner {
                generation: Generation(owner.created.0),
                attachment,
                addresses: addresses.unwrap_or_default(),
                by: ownership::name_of(&owner.record),
                node: Some(map.node_name(owner.record.node)),
            }
        });
        let lease_ms = self.sessions.settings.lease.as_millis();
        Some(AttachmentView {
            attachment: number,
            volume,
            name: record.record.name.clone(),
            size: record.record.size,
            lease_ms: u64::try_from(lease_ms).unwrap_or(u64::MAX),
            cluster: map.cluster(),
            attachments: map.attached(volume).map(|(other, _)| other).collect(),
            owner,
        })
    }

    /// Where a front end of this node reaches another one: on another node the path of a socket is somebody else's.
    fn reachable(&self, record: &AttachedRecord) -> Vec<String> {
        let here = record.node == self.sessions.settings.node;
        let addresses = record.addresses.iter();
        addresses
            .filter(|text| here || !matches!(text.parse(), Ok(Address::Unix(_))))
            .cloned()
            .collect()
    }

    /// Tells the front end who shares its volume now, if that is news.
    pub(super) fn tell_attachment(&mut self) {
        let Some(attached) = &self.attached else { return };
        let (volume, number) = (attached.volume, attached.number);
        let view = self.attachment_view(volume, number);
        let view = view.filter(|view| view.attachments.contains(&number));
        let Some(view) = view else {
            warn!(%volume, attachment = number, program = self.program, pid = self.pid, "an attachment has lapsed");
            self.attached = None;
            let push = SessionPush::Revoked {
                volume,
                reason: "its attachment has lapsed, or it was deleted".to_owned(),
            };
            return self.link.outbox.push_session_push(&push);
        };
        if let Some(attached) = &mut self.attached
            && attached.view != view
        {
            let push = SessionPush::Attachment(Box::new(view.clone()));
            self.link.outbox.push_session_push(&push);
            attached.view = view;
        }
    }

    /// What follows when the connection of an attachment has ended.
    pub(super) async fn leave_attached(self, attached: &Attached, peer: &Peer) {
        let Self {
            sessions,
            program,
            pid,
            link,
            ..
        } = self;
        drop(link);
        if timeout(sessions.settings.lease, peer.ended()).await.is_err() {
            return;
        }
        let (volume, attachment) = (attached.volume, attached.number);
        info!(%volume, attachment, program, pid, "its process is gone: the attachment ends");
        attached.remove_sockets();
        if let Err(error) = sessions.store.revoke_lease(attached.lease).await {
            warn!(%volume, attachment, %error, "an attachment could not be ended; its lease will lapse");
        }
    }
}
