//! When what others gave this node, and clients, runs out: certificates for etcd, and access tokens. What `storaged` signs
//! itself is not here, since it makes the next one in time.
//!
//! Renews nothing: it says so while there is time.

use std::path::PathBuf;
use std::time::Duration;

use coordination::etcd;
use x509_parser::pem::Pem;

use crate::config::Config;

/// How long before its end a certificate is spoken of.
const NOTICE: Duration = Duration::from_hours(24 * 30);
/// Files with certificates are not longer, in bytes.
const FILE_MAX: u64 = 1 << 20;
const DAY: i64 = 86_400;

/// A certificate that somebody else has to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, as the figures call it.
    pub name: &'static str,
    /// In words.
    what: &'static str,
    /// Its file.
    path: PathBuf,
    /// Of a file with several, which one counts.
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// The first is one's own; others only lead to who signed it.
    First,
    /// While an authority is exchanged, the next one is there beside the last.
    LastToEnd,
}

/// The certificates of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Vec<Certificate>);

impl Certificates {
    /// Those that this configuration names.
    pub fn of(config: &Config) -> Self {
        Self(config.etcd.as_ref().map(of_etcd).unwrap_or_default())
    }

    /// Each that can be read, with its end in seconds since 1970. What cannot be read is somebody else's business: whoever
    /// uses it says so.
    pub async fn ends(&self) -> Vec<(&Certificate, i64)> {
        let mut ends = Vec::new();
        for certificate in &self.0 {
            // Read each time: whoever renews it only writes the file.
            let length = tokio::fs::metadata(&certificate.path)
                .await
                .map(|file| file.len());
            if !length.is_ok_and(|length| length <= FILE_MAX) {
                continue;
            }
            if let Ok(bytes) = tokio::fs::read(&certificate.path).await {
                ends.extend(end(&bytes, certificate.counts).map(|end| (certificate, end)));
            }
        }
        ends
    }

    /// A sentence for each that ends soon. `now_s`: seconds since 1970.
    pub async fn sentences(&self, now_s: i64) -> Vec<String> {
        let ends = self.ends().await;
        ends.iter()
            .filter_map(|(certificate, end)| certificate.sentence(*end, now_s))
            .collect()
    }
}

impl Certificate {
    fn sentence(&self, end: i64, now_s: i64) -> Option<String> {
        let left = end.saturating_sub(now_s);
        let notice = i64::try_from(NOTICE.as_secs()).unwrap_or(i64::MAX);
        let (what, path) = (self.what, self.path.display());
        match left {
            left if left > notice => None,
            ..=0 => Some(format!(
                "{what} ({path}) has ended: put a new one there, or this node does not reach etcd"
            )),
            left => Some(format!(
                "{what} ({path}) ends in {} days: put a new one there before that, or this node does not reach etcd",
                left / DAY
            )),
        }
    }
}

fn of_etcd(options: &etcd::Options) -> Vec<Certificate> {
    let own = options.identity.as_ref().map(|identity| Certificate {
        name: "etcd",
        what: "this node's certificate for etcd",
        path: identity.certificate.clone(),
        counts: Counts::First,
    });
    let authority = options.ca.as_ref().map(|path| Certificate {
        name: "etcd-authority",
        what: "the certificate of who signed those of etcd",
        path: path.clone(),
        counts: Counts::LastToEnd,
    });
    own.into_iter().chain(authority).collect()
}

/// The end of what counts among certificates in PEM (RFC 7468), in seconds since 1970.
fn end(bytes: &[u8], counts: Counts) -> Option<i64> {
    let blocks = Pem::iter_from_buffer(bytes).filter_map(Result::ok);
    let mut ends = blocks
        .filter(|block| block.label == "CERTIFICATE")
        .filter_map(|block| Some(block.parse_x509().ok()?.validity().not_after.timestamp()));
    match counts {
        Counts::First => ends.next(),
        Counts::LastToEnd => ends.max(),
    }
}

#[cfg(test)]
mod tests {
    //! Whoever is to renew something hears of it in time, and not before.
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// A certificate that ends so many days after now.
    fn ending(days: i64) -> String {
        let mut params = CertificateParams::new(vec!["etcd.test".to_owned()]).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW + days * DAY).unwrap();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn certificates(folder: &Path, own: &str, authority: &str) -> Certificates {
        let [certificate, key, ca] = ["own", "key", "ca"].map(|name| folder.join(name));
        std::fs::write(&certificate, own).unwrap();
        std::fs::write(&ca, authority).unwrap();
        Certificates(of_etcd(&etcd::Options {
            ca: Some(ca),
            identity: Some(etcd::ClientIdentity { certificate, key }),
            ..etcd::Options::plain(vec!["https://etcd.test:2379".to_owned()])
        }))
    }

    #[tokio::test]
    async fn the_first_certificate_of_a_client_counts_and_the_last_to_end_of_authorities() {
        let folder = tempfile::tempdir().unwrap();
        let several = ending(90) + &ending(10) + &ending(400);
        let all = certificates(folder.path(), &several, &several);
        let ends: Vec<_> = all
            .ends()
            .await
            .iter()
            .map(|(one, end)| (one.name, *end))
            .collect();
        assert_eq!(
            ends,
            [("etcd", NOW + 90 * DAY), ("etcd-authority", NOW + 400 * DAY)]
        );
        assert!(all.sentences(NOW).await.is_empty());
    }

    #[tokio::test]
    async fn what_ends_within_a_month_is_told_with_its_file_and_the_days() {
        let folder = tempfile::tempdir().unwrap();
        let all = certificates(folder.path(), &ending(12), &ending(-1));
        let told = all.sentences(NOW).await;
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("own) ends in 12 days"), "{}", told[0]);
        assert!(told[1].contains("ca) has ended"), "{}", told[1]);
    }

    #[tokio::test]
    async fn what_is_no_certificate_or_not_there_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let all = certificates(
            folder.path(),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "",
        );
        assert!(all.ends().await.is_empty());
        std::fs::remove_file(folder.path().join("own")).unwrap();
        assert!(all.ends().await.is_empty());
    }
}
