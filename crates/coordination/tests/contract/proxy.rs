//! A way to etcd that loses answers, or holds requests back until it is told to let them go.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After so much silence a request that is held back is whole. Far less than it takes its client to give
/// it up.
const QUIET: Duration = Duration::from_millis(200);

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// What the client says passes; what etcd says is thrown away.
    NoAnswers,
    /// What the client says next waits, on each connection that is there now, until the way is
    /// [`Way::Open`]; then it passes, and nothing that the client said after it, so that it cannot take it
    /// back. New connections are refused.
    Held,
}

/// A listener that passes bytes on to a port.
pub(crate) struct Proxy {
    port: u16,
    way: Arc<watch::Sender<Way>>,
    /// Requests that were held back and then passed on.
    late: Arc<watch::Sender<u64>>,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let ways = way.clone();
        let late = Arc::new(watch::Sender::new(0));
        let lates = late.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *ways.borrow() == Way::Held {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(requests(from_client, to_server, ways.subscribe(), lates.clone()));
                tokio::spawn(answers(from_server, to_client, ways.subscribe()));
            }
        });
        Self { port, way, late }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until something that was held back has passed.
    pub(crate) async fn passed_late(&self) {
        let _ = self.late.subscribe().wait_for(|late| *late > 0).await;
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    late: Arc<watch::Sender<u64>>,
) {
    let mut bytes = vec![0; 65536];
    while let Ok(count) = from.read(&mut bytes).await {
        if count == 0 {
            return;
        }
        if *way.borrow() != Way::Held {
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
            continue;
        }
        // The whole request, that may come in parts.
        let mut held = bytes[..count].to_vec();
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(QUIET, from.read(&mut bytes)).await {
            held.extend_from_slice(&bytes[..count]);
        }
        let _ = way.wait_for(|way| *way != Way::Held).await;
        let _ = to.write_all(&held).await;
        late.send_modify(|late| *late += 1);
        // Closing it would take the request back.
        return std::future::pending().await;
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 65536];
    while let Ok(count) = from.read(&mut bytes).await {
        if count == 0 {
            return;
        }
        if *way.borrow() != Way::NoAnswers {
            // A client that has gone does not stop what it has said before.
            let _ = to.write_all(&bytes[..count]).await;
        }
    }
}
