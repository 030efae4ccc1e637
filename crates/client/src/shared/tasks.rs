//! What goes on by itself while a volume is shared: the attachment is kept, an owner is found or this front end becomes
//! it, others are let in.

use std::rc::Rc;
use std::time::Duration;

use protocol::shared::AttachmentView;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use super::host::Host;
use super::lines::{self, Forward};
use super::{Inner, Place};
use crate::backoff::Backoff;
use crate::device::{BlockDevice, DeviceError, DeviceEvent};
use crate::transport;
use crate::volume::{Options, Volume};

/// Connections of others at once; more are closed.
const LINES_MAX: usize = 64;
/// How long to wait after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Inner {
    /// Serves as the owner until the volume is somebody else's.
    async fn be_owner(self: &Rc<Self>, volume: Volume, view: &AttachmentView) {
        let volume = Rc::new(volume);
        let lost = Rc::new(Notify::new());
        let told = Rc::clone(&lost);
        volume.listen(Box::new(move |event| {
            if event == DeviceEvent::Lost {
                told.notify_one();
            }
        }));
        let weak = Rc::downgrade(self);
        let tell = Box::new(move |told| {
            if let Some(inner) = weak.upgrade() {
                inner.told_here(told);
            }
        });
        let generation = volume.generation();
        info!(volume = view.name, %generation, others = view.attachments.len() - 1, "owns the shared volume");
        if volume.is_lost() {
            return;
        }
        let host = Host::new(Rc::clone(&volume), view.attachment, &view.attachments, tell);
        self.placed(Place::Here(host));
        tokio::select! {
            () = lost.notified() => {}
            () = self.lapsed.notified() => {}
        }
        warn!(volume = view.name, %generation, "does not own the shared volume any more");
        self.displaced();
        if !volume.is_lost() {
            volume.close().await;
        }
    }

    /// Has another front end do everything, until it is gone.
    async fn be_peer(self: &Rc<Self>, forward: Rc<Forward>) {
        info!(generation = %forward.generation(), "another front end owns the shared volume");
        self.placed(Place::There(Rc::clone(&forward)));
        let mut views = self.attachment.watch();
        let generation = forward.generation();
        let deposed = views.wait_for(|view| {
            view.owner
                .as_ref()
                .is_none_or(|owner| owner.generation > generation)
        });
        let reason = tokio::select! {
            error = forward.run(|heard| self.told(&forward, heard)) => error.to_string(),
            _ = deposed => "it owns the volume no more".to_owned(),
        };
        info!(%generation, reason, "the owner of the shared volume is gone");
        self.displaced();
    }
}

/// Finds an owner, or becomes it, again and again.
pub(super) async fn find(inner: Rc<Inner>) {
    let mut views = inner.attachment.watch();
    let mut backoff = Backoff::default();
    loop {
        let view = views.borrow_and_update().clone();
        if inner.lost.get() {
            return;
        }
        let found = match &view.owner {
            None => own(&inner, &view).await,
            Some(owner) if owner.attachment.is_some_and(|other| other != view.attachment) => {
                match lines::reach(&view, owner, inner.attachment.credentials().as_ref()).await {
                    Ok(forward) => {
                        inner.be_peer(forward).await;
                        true
                    }
                    Err(error) => {
                        debug!(%error, owner = owner.by, "cannot reach the owner of the shared volume");
                        false
                    }
                }
            }
            // It does not share it, or it is a former self.
            Some(_) => false,
        };
        if found {
            backoff = Backoff::default();
            continue;
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = backoff.pause() => {}
        }
    }
}

/// Tries to become the owner, and is it for as long as that lasts.
async fn own(inner: &Rc<Inner>, view: &AttachmentView) -> bool {
    if inner.lost.get() {
        return false;
    }
    let options = Options {
        volume: view.name.clone(),
        wait: Duration::ZERO,
        ..inner.options.clone()
    };
    match Volume::open_attached(options, view.attachment).await {
        Ok(volume) => {
            inner.attachment.owns(volume.generation());
            tokio::select! {
                view = attachments_at(inner, &volume) => inner.be_owner(volume, &view).await,
                () = inner.lapsed.notified() => volume.close().await,
            }
            true
        }
        Err(error) => {
            debug!(%error, "somebody else may own the shared volume by now");
            false
        }
    }
}

/// All attachments of which a former owner may have carried something out: those that there are when it is fenced.
async fn attachments_at(inner: &Rc<Inner>, volume: &Volume) -> AttachmentView {
    volume.opened().await;
    let mut backoff = Backoff::default();
    loop {
        if let Some(view) = inner.attachment.look().await {
            return view;
        }
        backoff.pause().await;
    }
}

/// Keeps the attachment; when it has lapsed for good, what is under way cannot be done again by anybody.
pub(super) async fn keep(inner: Rc<Inner>) {
    let owns = || inner.host().map(|host| host.volume().generation());
    inner.attachment.keep(owns).await;
    inner.lost.set(true);
    error!(
        "this front end is not counted among those who share the volume any more: all requests fail from now on"
    );
    inner.lapsed.notify_one();
    inner.displaced();
    let answered = inner.pieces.borrow_mut().fail_all(&DeviceError::Lost);
    inner.call(answered);
    inner.pending.borrow_mut().fail();
    inner.moved.notify_waiters();
    inner.tell(DeviceEvent::Lost);
}

/// Takes in who is there, who owns the volume, and its size.
pub(super) async fn follow(inner: Rc<Inner>) {
    let mut views = inner.attachment.watch();
    let mut owner = None;
    loop {
        let view = views.borrow_and_update().clone();
        let node = view.owner.as_ref().and_then(|owner| owner.node.clone());
        // While it has none, nobody has to look for another way.
        if node.is_some() && node != owner {
            owner = node;
            inner.tell(DeviceEvent::OwnerMoved);
        }
        if let Some(host) = inner.host() {
            host.set_roster(&view.attachments);
        }
        let before = std::mem::replace(&mut inner.info.borrow_mut().size, view.size);
        if before != view.size {
            inner.tell(DeviceEvent::Resized(view.size));
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}

/// Lets others in.
pub(super) async fn listen(inner: Rc<Inner>, listener: transport::Listener) {
    let mut lines = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = lines.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if lines.len() >= LINES_MAX => warn!("too many share the volume: a connection was closed at once"),
                Ok(stream) => {
                    let inner = Rc::clone(&inner);
                    lines.spawn_local(async move {
                        let cluster = inner.attachment.view().cluster;
                        if let Err(error) = lines::attend(stream, cluster, || inner.host()).await {
                            debug!(%error, "one who shares the volume has left");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept others who share the volume");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
