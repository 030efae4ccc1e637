//! An etcd with certificates and users: members show theirs and ask for ours, and passwords are checked.

use std::path::{Path, PathBuf};

use coordination::etcd::{ClientIdentity, ConnectError, Credentials, Options};
use coordination::{Coordination, Etcd};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use test_node::etcd::Certificates;

use crate::etcd::{changes, connect};
use crate::law::put;

/// An authority with certificates of a member and of a client, in files.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let made = Self { folder };
        std::fs::write(made.path("ca.pem"), authority.pem()).unwrap();
        for name in ["member", "client"] {
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            std::fs::write(made.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(made.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn of_member(&self) -> Certificates {
        Certificates {
            ca: self.path("ca.pem"),
            certificate: self.path("member.pem"),
            key: self.path("member.key"),
        }
    }

    fn of_client(&self) -> ClientIdentity {
        ClientIdentity {
            certificate: self.path("client.pem"),
            key: self.path("client.key"),
        }
    }
}

async fn refused(options: Options) -> String {
    let options = Options {
        timeout: std::time::Duration::from_secs(1),
        ..options
    };
    match Etcd::connect(&options).await {
        Err(error @ ConnectError::Store { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn members_are_checked_and_check_us() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let etcd = test_node::Etcd::start_secured(1, authority.of_member()).unwrap();
    let options = Options {
        ca: Some(authority.path("ca.pem")),
        identity: Some(authority.of_client()),
        ..Options::plain(etcd.endpoints())
    };
    let store = Etcd::connect(&options).await.unwrap();
    let after = put(&store, "/storaged/a", "1").await;
    let mut watch = store.watch("/storaged/", after).await.unwrap();
    put(&store, "/storaged/a", "2").await;
    changes(&mut watch).await;

    let not_theirs = Options {
        ca: Some(stranger.path("ca.pem")),
        ..options.clone()
    };
    let said = refused(not_theirs).await;
    assert!(said.contains("certificate"), "{said}");
    refused(Options {
        identity: None,
        ..options.clone()
    })
    .await;
    refused(Options {
        identity: Some(stranger.of_client()),
        ..options
    })
    .await;
}

fn password(folder: &Path, password: &str) -> PathBuf {
    let file = folder.join(password);
    std::fs::write(&file, format!("{password}\n")).unwrap();
    file
}

fn with_user(etcd: &test_node::Etcd, user: &str, password_file: PathBuf) -> Options {
    Options {
        credentials: Some(Credentials {
            user: user.to_owned(),
            password_file,
        }),
        ..Options::plain(etcd.endpoints())
    }
}

#[tokio::test]
async fn a_user_with_its_prefix_alone_is_enough_and_a_forgotten_login_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = test_node::Etcd::start(1).unwrap();
    for command in [
        "user add root:secret",
        "user grant-role root root",
        "role add storaged",
        "role grant-permission storaged --prefix=true readwrite /storaged/",
        "user add storaged:pass",
        "user grant-role storaged storaged",
        "user add guest:pass",
        "auth enable",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        if let Err(error) = etcd.etcdctl(&words) {
            // Granting the role "root" needs the role to exist in some versions.
            etcd.etcdctl(&["role", "add", "root"])
                .unwrap_or_else(|_| panic!("{error}"));
            etcd.etcdctl(&words).unwrap();
        }
    }
    let file = password(folder.path(), "pass");
    let store = Etcd::connect(&with_user(&etcd, "storaged", file.clone()))
        .await
        .unwrap();
    let after = put(&store, "/storaged/a", "1").await;
    let mut watch = store.watch("/storaged/", after).await.unwrap();
    let lease = store.grant_lease(crate::law::LONG).await.unwrap();
    // Tokens are forgotten with the process.
    etcd.kill().unwrap();
    etcd.start_again().unwrap();
    store.keep_lease(lease).await.unwrap();
    let next = put(&store, "/storaged/a", "2").await;
    assert_eq!(changes(&mut watch).await.revision, next);

    for (options, says) in [
        (
            with_user(&etcd, "storaged", password(folder.path(), "wrong")),
            "password",
        ),
        (with_user(&etcd, "guest", file), "role"),
        (Options::plain(etcd.endpoints()), "users"),
    ] {
        let said = refused(options).await;
        assert!(said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn a_user_for_an_etcd_without_users_is_a_mistake_and_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = test_node::Etcd::start(1).unwrap();
    connect(&etcd).await;
    let said = refused(with_user(&etcd, "storaged", password(folder.path(), "pass"))).await;
    assert!(said.contains("has no users"), "{said}");
}
