//! The control thread: accepts one front end after the other and lets a [`Session`] answer it.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc;
use tracing::{info, warn};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::front_end::FrontEnd;
use crate::session::Session;
use crate::worker::Command;

/// Binds the socket that the front end connects to. A socket file that nobody listens on any more is
/// replaced; one that is in use is left alone.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => {
            let refused = UnixStream::connect(path).err().map(|cause| cause.kind());
            if refused != Some(io::ErrorKind::ConnectionRefused) {
                return Err(cause);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Starts the control thread. It ends with the process, or when the data thread no longer listens.
pub fn spawn(
    listener: UnixListener,
    front_end: Arc<FrontEnd>,
    commands: mpsc::Sender<Command>,
) -> io::Result<()> {
    let accept = move || {
        while !commands.is_closed() {
            match listener.accept() {
                Ok((stream, _)) => serve(stream, &front_end, &commands),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    warn!(%cause, "cannot accept front ends any more");
                    return;
                }
            }
        }
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(accept)
        .map(drop)
}

fn serve(stream: UnixStream, front_end: &Arc<FrontEnd>, commands: &mpsc::Sender<Command>) {
    info!("a front end has connected");
    front_end.connected();
    let ended = Session::new(Arc::clone(front_end), commands.clone()).and_then(|session| {
        let control = stream.try_clone()?;
        let session = Arc::new(Mutex::new(session));
        let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&session));
        let ended = converse(&control, front_end, &mut messages);
        session.lock().unwrap_or_else(PoisonError::into_inner).end();
        ended
    });
    match ended {
        Ok(()) => info!("the front end has disconnected"),
        Err(cause) => warn!(%cause, "the connection to the front end was closed"),
    }
}

fn converse(
    control: &UnixStream,
    front_end: &FrontEnd,
    messages: &mut BackendReqHandler<Mutex<Session>>,
) -> io::Result<()> {
    while front_end.look_ahead(control)? {
        match messages.handle_request() {
            Ok(()) => {}
            Err(Error::Disconnected) => return Ok(()),
            Err(cause) => return Err(io::Error::other(cause.to_string())),
        }
    }
    Ok(())
}
