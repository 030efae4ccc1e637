//! Secrets are planted where operators keep them, what can go wrong with each goes wrong, and nobody tells them: no log at its
//! most talkative, no event, no figure, no answer, no list of processes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use admin_api::join_tokens::NewJoinToken;
use joining::{Secret, Token};
use serde_json::Value;
use tempfile::TempDir;
use test_initiator::{Initiator, Names};
use test_node::{Etcd, Node, Process, new_folder, storagectl, talkative, tells};

use crate::guest::{ask, refused, run};

const THIS: &str = "secrets::nobody_tells_a_secret_though_much_goes_wrong";

const TARGET: &str = "iqn.2026-11.org.example:disks";
const HOST: &str = "iqn.2026-11.org.example:careful";
/// A login is refused: the proof is wrong (RFC 7143 section 11.13.5).
const NOT_PROVED: u16 = 0x0201;
/// What operators keep for themselves, by what it is.
struct Secrets {
    folder: TempDir,
    planted: Vec<(String, Vec<u8>)>,
}

impl Secrets {
    fn new() -> Self {
        Self {
            folder: new_folder().unwrap(),
            planted: Vec::new(),
        }
    }

    fn plant(&mut self, what: &str, secret: &[u8]) {
        self.planted.push((what.to_owned(), secret.to_owned()));
    }

    /// One in a file.
    fn file(&mut self, what: &str) -> PathBuf {
        let secret = format!("canary-of-{what}");
        let path = self.folder.path().join(what);
        fs::write(&path, format!("{secret}\n")).unwrap();
        self.plant(what, secret.as_bytes());
        path
    }

    /// Which of them are in a text, in whatever shape.
    fn told_by(&self, text: &str) -> Vec<&str> {
        let told = self.planted.iter().filter(|(_, secret)| tells(text, secret));
        told.map(|(what, _)| what.as_str()).collect()
    }

    fn assert_untold(&self, place: &str, text: &str) {
        assert_eq!(self.told_by(text), Vec::<&str>::new(), "{place} tells:\n{text}");
    }
}

/// An etcd that knows a user with a password.
fn guarded_etcd(password: &str) -> Etcd {
    let etcd = Etcd::start(1).unwrap();
    for words in [
        &["role", "add", "root"][..],
        &["user", "add", "root:not-ours"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "storaged"],
        &[
            "role",
            "grant-permission",
            "storaged",
            "--prefix=true",
            "readwrite",
            "/storaged/",
        ],
        &["user", "add", &format!("storaged:{password}")],
        &["user", "grant-role", "storaged", "storaged"],
        &["auth", "enable"],
    ] {
        // Some versions have the role of the name root.
        assert!(etcd.etcdctl(words).is_ok() || words[0] == "role", "{words:?}");
    }
    etcd
}

/// The first node of a cluster, as an operator makes it.
fn first(etcd: &Etcd, password: &Path) -> anyhow::Result<Node> {
    let (endpoint, password) = (etcd.endpoint(0), password.display().to_string());
    Node::set_up(|work_dir, config| {
        let (work_dir, config) = (work_dir.to_str().unwrap(), config.to_str().unwrap());
        let options = [
            ["--etcd", &endpoint],
            ["--etcd-user", "storaged"],
            ["--etcd-password-file", &password],
            ["--name", "host-1"],
            ["--address", "127.0.0.1:0"],
            ["--disks", "1"],
            ["--work-dir", work_dir],
            ["--config", config],
        ];
        storagectl(&[&["cluster", "init"], options.as_flattened()].concat()).map(drop)
    })
}

/// What a machine says that tries to join.
fn join(token: &str) -> (TempDir, String) {
    let folder = new_folder().unwrap();
    let path = |name| folder.path().join(name).display().to_string();
    let options = [
        ["--name", "host-2"],
        ["--address", "127.0.0.1:0"],
        ["--disks", "1"],
        ["--work-dir", &path("")],
        ["--config", &path("storaged.toml")],
    ];
    let outcome = storagectl(&[&["cluster", "join", token], options.as_flattened()].concat());
    // The error begins with the command, in which an operator has put the token.
    let refusal = |error: anyhow::Error| error.to_string().split_once(" failed: ").unwrap().1.to_owned();
    let said = outcome.unwrap_or_else(refusal);
    (folder, said)
}

/// Tokens: one that is used, used again, and one whose secret is made up.
async fn join_with_tokens(node: &Node, secrets: &mut Secrets) {
    let made: NewJoinToken = ask(node, "cluster token").await;
    let mut token: Token = made.token.parse().unwrap();
    secrets.plant("the secret of a token", &token.secret.0);
    secrets.plant("a token", made.token.as_bytes());
    let (joined, said) = join(&made.token);
    secrets.assert_untold("a machine that joins", &said);
    let key = fs::read_to_string(joined.path().join("authority/key.pem")).unwrap();
    let line = key.lines().nth(1).unwrap();
    secrets.plant("the authority's key", line.as_bytes());
    secrets.assert_untold("a token that was used", &join(&made.token).1);
    token.secret = Secret(*b"canary-made-up!!");
    secrets.plant("a secret that is made up", &token.secret.0);
    let (_, said) = join(&token.to_string());
    assert!(said.contains("secret"), "{said}");
    secrets.assert_untold("a token that is made up", &said);
}

/// A target for a host that must prove who it is, and a gateway at which it cannot.
async fn refuse_a_host(node: &Node, secrets: &mut Secrets) -> (Process, PathBuf) {
    let [host, target] = ["chap-of-the-host", "chap-of-the-target"].map(|what| secrets.file(what));
    let _: Value = ask(node, "pool create main --copies 1 --groups 4").await;
    let _: Value = ask(node, "volume create a 16M").await;
    let _: Value = ask(node, &format!("iscsi target create {TARGET}")).await;
    let _: Value = ask(node, &format!("iscsi lun add {TARGET} a")).await;
    let file = |path: &Path| format!("--chap-secret-file {}", path.display());
    for words in [
        format!("iscsi acl add {TARGET} {HOST} {}", file(&host)),
        format!("iscsi mutual set {TARGET} {}", file(&target)),
    ] {
        let answer: Value = ask(node, &words).await;
        secrets.assert_untold(&words, &answer.to_string());
    }
    let same = refused(node, &format!("iscsi mutual set {TARGET} {}", file(&host)));
    secrets.assert_untold("a secret that is used twice", &same);
    let log = secrets.folder.path().join("gateway.log");
    let words = [
        "--storaged".to_owned(),
        node.session_socket().display().to_string(),
        "--admin-socket".to_owned(),
        node.admin_socket().display().to_string(),
        "--listen".to_owned(),
        "127.0.0.1:0".to_owned(),
    ];
    let mut gateway = Process::start("storaged-iscsi", words, &log).unwrap();
    let address = gateway.wait_for("the portal's address", || {
        let said = fs::read_to_string(&log).ok()?;
        said.lines()
            .find_map(|line| line.strip_prefix("listening on "))?
            .parse()
            .ok()
    });
    let names = Names {
        initiator: HOST,
        target: TARGET,
        keys: "",
    };
    let status = Initiator::prove_wrongly(address.unwrap(), names, HOST).await;
    assert_eq!(status, NOT_PROVED, "{status:#x}");
    (gateway, log)
}

/// What anybody is told who may ask.
fn ask_everything(node: &Node, secrets: &Secrets) {
    for words in [
        "events --number 1000",
        "iscsi target list",
        &format!("iscsi target show {TARGET}"),
        &format!("iscsi acl list {TARGET}"),
        "cluster tokens",
        "status",
        "node list",
        "disk list",
        "volume list",
        "task list",
    ] {
        for form in [&["--json"][..], &[]] {
            let words: Vec<&str> = form.iter().copied().chain(words.split(' ')).collect();
            let answer = node.storagectl(&words).unwrap();
            secrets.assert_untold(&words.join(" "), &answer);
        }
    }
    secrets.assert_untold("the metrics", &metrics(node));
}

/// The metrics, asked as whoever gathers them does.
fn metrics(node: &Node) -> String {
    let answer = get(node, "/v1/metrics");
    assert!(answer.contains("storaged_"), "{answer}");
    answer
}

fn get(node: &Node, path: &str) -> String {
    let mut socket = UnixStream::connect(node.admin_socket()).unwrap();
    let question = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Whoever reads all of the coordination store, or a backup of it, finds none that gateways are told.
fn read_the_store(node: &Node, etcd: &Etcd, secrets: &Secrets) {
    let all = ["--user", "root:not-ours", "get", "", "--prefix"];
    let all = etcd.etcdctl(&all).unwrap();
    assert!(all.contains("\"sealed\":"), "{all}");
    secrets.assert_untold("the coordination store", &all);
    let told = get(node, "/v1/iscsi/configuration");
    assert_eq!(secrets.told_by(&told), ["chap-of-the-host", "chap-of-the-target"]);
}

/// What every user of the machine sees of a process, and what its own user does.
fn look_at(process: &Process, secrets: &Secrets) {
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{file}", process.id());
        let seen = fs::read(&path).unwrap();
        secrets.assert_untold(&path, &String::from_utf8_lossy(&seen));
    }
}

#[test]
fn nobody_tells_a_secret_though_much_goes_wrong() {
    if !talkative(THIS).unwrap() {
        return;
    }
    run(async {
        let mut secrets = Secrets::new();
        let password = secrets.file("password-of-etcd");
        let etcd = guarded_etcd("canary-of-password-of-etcd");
        let wrong = secrets.file("wrong-password-of-etcd");
        let refusal = first(&etcd, &wrong).err().unwrap();
        let refusal = format!("{refusal:#}");
        assert!(refusal.contains("password"), "{refusal}");
        secrets.assert_untold("who has a wrong password", &refusal);

        let mut node = first(&etcd, &password).unwrap();
        join_with_tokens(&node, &mut secrets).await;
        let (mut gateway, log) = refuse_a_host(&node, &mut secrets).await;
        ask_everything(&node, &secrets);
        read_the_store(&node, &etcd, &secrets);
        for process in [node.storaged(), &gateway] {
            look_at(process, &secrets);
        }
        // A crash, another life, and an end in order.
        node.kill().unwrap();
        node.start_again().unwrap();
        ask_everything(&node, &secrets);
        read_the_store(&node, &etcd, &secrets);
        gateway.stop().unwrap();
        node.stop().unwrap();
        // Who writes a secret where none belongs is told of the place alone.
        let config = node.folder().join("storaged.toml");
        let text = fs::read_to_string(&config).unwrap();
        secrets.plant("a password in a wrong place", b"canary-in-a-wrong-place");
        let wrong = text.replace("[etcd]", "[etcd]\npassword = \"canary-in-a-wrong-place\"");
        node.configure(&wrong).unwrap();
        let said = node.refused().unwrap();
        assert!(said.contains("unknown field `password`"), "{said}");

        for log in [node.folder().join("storaged.log"), log] {
            let text = fs::read_to_string(&log).unwrap();
            assert!(text.contains("TRACE"), "{} says little", log.display());
            secrets.assert_untold(&log.display().to_string(), &text);
        }
        // Whoever looks finds what is there.
        let kept = fs::read_to_string(password).unwrap();
        assert_eq!(secrets.told_by(&kept), ["password-of-etcd"]);
    });
}
