//! The admin API as the network meets it: TLS by the cluster's authority, a token for each request, roles that hold.

use std::sync::Arc;

use admin_api::access_tokens::{AuthorityCertificate, NewAccessToken};
use admin_api::{ErrorBody, ErrorKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use serde_json::json;
use storaged::config::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::node::{Node, run, settings};

async fn node(directory: &std::path::Path) -> Node {
    let settings = settings(directory, 3);
    let listen = ["https://127.0.0.1:0".to_owned()];
    let node = Node::configured(Settings {
        admin_listen: settings.admin_listen.iter().cloned().chain(listen).collect(),
        admin_names: vec!["storage.example".to_owned()],
        ..settings
    })
    .await;
    node.make_pool().await;
    node
}

async fn token(node: &Node, role: &str) -> NewAccessToken {
    let made = node
        .post("/v1/access-tokens", json!({"name": role, "role": role}))
        .await;
    serde_json::from_value(made).unwrap()
}

/// What a client that trusts the cluster's authority, and nobody else, asks with.
struct Client {
    connector: TlsConnector,
    host: String,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn refusal(&self) -> ErrorBody {
        let error: ErrorBody = serde_json::from_str(&self.body).unwrap();
        assert_eq!(error.kind.status(), self.status);
        error
    }
}

impl Client {
    async fn of(node: &Node) -> Self {
        let authority: AuthorityCertificate = node.get("/v1/authority").await;
        assert_eq!(authority.addresses, [format!("https://{}", node.network())]);
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            host: node.network(),
        }
    }

    async fn ask_as(&self, name: &'static str, request: &str) -> std::io::Result<Answer> {
        let stream = TcpStream::connect(&self.host).await?;
        let name = ServerName::try_from(name).unwrap();
        let mut stream = self.connector.connect(name, stream).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Ok(Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        })
    }

    async fn ask(&self, token: Option<&str>, method: &str, path: &str, body: &str) -> Answer {
        let bearer = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{bearer}Content-Length: {length}\r\n\r\n{body}");
        self.ask_as("127.0.0.1", &request).await.unwrap()
    }
}

#[test]
fn the_network_is_answered_as_far_as_its_token_goes() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = node(directory.path()).await;
        let client = Client::of(&node).await;
        let viewer = token(&node, "viewer").await.token;
        let operator = token(&node, "operator").await.token;
        let administrator = token(&node, "administrator").await.token;
        let volume = r#"{"name": "a", "size": "1M"}"#;

        let nobody = client.ask(None, "GET", "/v1/status", "").await;
        assert_eq!(nobody.refusal().kind, ErrorKind::Unauthenticated);
        assert!(
            nobody.head.contains("www-authenticate: bearer"),
            "{}",
            nobody.head
        );
        let stranger = format!("sdaccess_{}_{}", "0".repeat(16), "0".repeat(64));
        let stranger = client.ask(Some(&stranger), "POST", "/v1/volumes", volume).await;
        assert_eq!(stranger.refusal().kind, ErrorKind::Unauthenticated);

        assert_eq!(
            client.ask(Some(&viewer), "GET", "/v1/metrics", "").await.status,
            200
        );
        let looks = client.ask(Some(&viewer), "POST", "/v1/volumes", volume).await;
        assert_eq!(looks.refusal().kind, ErrorKind::Forbidden);
        let volumes: admin_api::volumes::VolumeList = node.get("/v1/volumes").await;
        assert!(volumes.volumes.is_empty(), "a refused request was carried out");

        let made = client.ask(Some(&operator), "POST", "/v1/volumes", volume).await;
        assert_eq!(made.status, 201, "{}", made.body);
        for (method, path) in [("DELETE", "/v1/pools/pool"), ("POST", "/v1/volumes/a/take-over")] {
            let refused = client.ask(Some(&operator), method, path, "{}").await;
            assert_eq!(refused.refusal().kind, ErrorKind::Forbidden, "{path}");
        }
        let checks = client
            .ask(Some(&administrator), "POST", "/v1/pools/pool/scrub", "{}")
            .await;
        assert!(checks.status < 300, "{}", checks.body);
        for (method, path) in [
            ("GET", "/v1/iscsi/configuration"),
            ("GET", "/v1/access-tokens"),
            ("POST", "/v1/access-tokens"),
            ("POST", "/v1/join-tokens"),
        ] {
            let refused = client.ask(Some(&administrator), method, path, "{}").await;
            assert_eq!(refused.refusal().kind, ErrorKind::Forbidden, "{path}");
        }
        let lowercase =
            format!("GET /v1/version HTTP/1.1\r\nHost: a\r\nauthorization: bearer {viewer}\r\n\r\n");
        assert_eq!(
            client.ask_as("storage.example", &lowercase).await.unwrap().status,
            200
        );
        node.stop().await;
    });
}

#[test]
fn a_token_that_was_taken_back_is_worth_nothing_at_once() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = node(directory.path()).await;
        let client = Client::of(&node).await;
        let made = token(&node, "viewer").await;
        assert_eq!(
            client
                .ask(Some(&made.token), "GET", "/v1/status", "")
                .await
                .status,
            200
        );
        let (status, _) = node
            .send("DELETE", &format!("/v1/access-tokens/{}", made.id), None)
            .await;
        assert_eq!(status, 204);
        let late = client.ask(Some(&made.token), "GET", "/v1/status", "").await;
        assert_eq!(late.refusal().kind, ErrorKind::Unauthenticated);
        let events = node.send("GET", "/v1/events", None).await.1;
        assert!(
            events.contains("access_token_made") && events.contains("access_token_revoked"),
            "{events}"
        );
        assert!(!events.contains(&made.token), "the event log has the token");
        node.stop().await;
    });
}

#[test]
fn who_does_not_speak_tls_or_looks_for_somebody_else_is_not_answered() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let node = node(directory.path()).await;
        let mut plain = TcpStream::connect(node.network()).await.unwrap();
        plain
            .write_all(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        let client = Client::of(&node).await;
        for name in ["elsewhere.example", "node-1.nodes.storaged", "join.storaged"] {
            assert!(
                client.ask_as(name, "").await.is_err(),
                "the certificate is good for {name}"
            );
        }
        node.stop().await;
    });
}
