//! What one must know to use an etcd: where it is, who one is, which keys are ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::store::CoordinationError;

/// The most members whose addresses are tried. etcd itself advises against more than seven.
pub const ENDPOINTS_MAX: usize = 16;
/// The longest prefix: what it adds to the keys of a transaction must fit into a request.
const PREFIX_LENGTH_MAX: usize = 128;
/// How long a call may take, with all its attempts at all members.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Connecting takes no longer, or the next member is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between pings on a connection that is in use. etcd closes connections that ping more often than
/// every 5 seconds.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a ping may be unanswered before the connection is given up.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach an etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its members' client addresses, `http://HOST:PORT` or `https://HOST:PORT`, all of one kind.
    pub endpoints: Vec<String>,
    /// What is put before every key, so that several clusters can share an etcd. May be empty.
    pub prefix: String,
    /// Certificates that the members' certificates are checked with. Needed for `https`.
    pub ca: Option<PathBuf>,
    /// Who we are, for members that ask for certificates.
    pub identity: Option<ClientIdentity>,
    /// Who we are, for an etcd with users.
    pub credentials: Option<Credentials>,
    /// How long a call may take, with all its attempts.
    pub timeout: Duration,
}

/// A certificate of our own, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The file that holds the password, and nothing else but perhaps a line end.
    pub password_file: PathBuf,
}

/// Of two settings that need each other only one is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HalfGiven(&'static str);

impl ClientIdentity {
    /// What two settings that may be left out say together.
    pub fn of(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<Self>, HalfGiven> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            _ => Err(HalfGiven(
                "a certificate needs its key, and a key its certificate",
            )),
        }
    }
}

impl Credentials {
    /// What two settings that may be left out say together.
    pub fn of(user: Option<String>, password_file: Option<PathBuf>) -> Result<Option<Self>, HalfGiven> {
        match (user, password_file) {
            (Some(user), Some(password_file)) => Ok(Some(Self { user, password_file })),
            (None, None) => Ok(None),
            _ => Err(HalfGiven(
                "a user needs a password_file, and a password_file a user",
            )),
        }
    }
}

/// Why an etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options contradict themselves, or each other.
    #[error("the etcd settings are wrong: {0}")]
    Options(String),
    /// A file that they name cannot be read.
    #[error("cannot read {path}, which the etcd settings name: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificates are none, or do not fit.
    #[error("cannot use the certificates for etcd: {0}")]
    Certificates(String),
    /// etcd did not do as it was asked.
    #[error("cannot use etcd at {endpoints}: {source}")]
    Store {
        /// Where it was looked for.
        endpoints: String,
        /// What went wrong.
        source: CoordinationError,
    },
}

impl Options {
    /// The defaults, for an etcd without certificates and users.
    pub fn plain(endpoints: impl IntoIterator<Item = String>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            prefix: String::new(),
            ca: None,
            identity: None,
            credentials: None,
            timeout: TIMEOUT_DEFAULT,
        }
    }

    /// Checks what can be checked without asking anybody.
    pub fn check(&self) -> Result<(), ConnectError> {
        let wrong = |message: String| Err(ConnectError::Options(message));
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return wrong(format!("give 1 to {ENDPOINTS_MAX} endpoints"));
        }
        let is_secure = |endpoint: &String| endpoint.starts_with("https://");
        for endpoint in &self.endpoints {
            if !is_secure(endpoint) && !endpoint.starts_with("http://") {
                return wrong(format!("the endpoint {endpoint} is neither http:// nor https://"));
            }
            if is_secure(endpoint) != self.endpoints.first().is_some_and(is_secure) {
                return wrong("the endpoints are partly http:// and partly https://".to_owned());
            }
        }
        let secure = self.endpoints.iter().any(is_secure);
        match (secure, &self.ca, &self.identity) {
            (true, None, _) => {
                wrong("https:// endpoints need `ca`, to check the members' certificates".to_owned())
            }
            (false, Some(_), _) | (false, _, Some(_)) => {
                wrong("certificates are of no use with http:// endpoints: write https://".to_owned())
            }
            _ if self.prefix.ends_with('/') || !(self.prefix.is_empty() || self.prefix.starts_with('/')) => {
                wrong(format!(
                    "the prefix {:?} must begin with a slash and not end with one",
                    self.prefix
                ))
            }
            _ if self.prefix.len() > PREFIX_LENGTH_MAX => {
                wrong(format!("the prefix is longer than {PREFIX_LENGTH_MAX} bytes"))
            }
            _ => Ok(()),
        }
    }

    /// The members, ready to be connected to.
    pub(super) fn members(&self) -> Result<Vec<Endpoint>, ConnectError> {
        self.check()?;
        let tls = self.tls()?;
        let member = |address: &String| {
            let endpoint = Endpoint::from_shared(address.clone())
                .map_err(|error| {
                    ConnectError::Options(format!("the endpoint {address} is no address: {error}"))
                })?
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT);
            match &tls {
                Some(tls) => endpoint
                    .tls_config(tls.clone())
                    .map_err(|error| ConnectError::Certificates(super::words(&error))),
                None => Ok(endpoint),
            }
        };
        self.endpoints.iter().map(member).collect()
    }

    /// The user's name and password.
    pub(super) fn login(&self) -> Result<Option<(String, String)>, ConnectError> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let text = String::from_utf8(read(&credentials.password_file)?).map_err(|_| {
            ConnectError::Options(format!("{} is not text", credentials.password_file.display()))
        })?;
        Ok(Some((
            credentials.user.clone(),
            text.trim_end_matches(['\n', '\r']).to_owned(),
        )))
    }

    fn tls(&self) -> Result<Option<ClientTlsConfig>, ConnectError> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let Some(identity) = &self.identity {
            tls = tls.identity(Identity::from_pem(
                read(&identity.certificate)?,
                read(&identity.key)?,
            ));
        }
        Ok(Some(tls))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    //! Settings that cannot work are refused before anybody is asked.
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_in_words() {
        let plain = || Options::plain(["http://127.0.0.1:2379".to_owned()]);
        let secure = || Options::plain(["https://127.0.0.1:2379".to_owned()]);
        let mixed = ["http://a:1".to_owned(), "https://b:1".to_owned()];
        for (options, says) in [
            (Options::plain([]), "1 to 16 endpoints"),
            (Options::plain(["127.0.0.1:2379".to_owned()]), "neither http"),
            (Options::plain(mixed), "partly"),
            (secure(), "need `ca`"),
            (
                Options {
                    ca: Some("/ca.pem".into()),
                    ..plain()
                },
                "of no use",
            ),
            (
                Options {
                    prefix: "a".to_owned(),
                    ..plain()
                },
                "begin with a slash",
            ),
            (
                Options {
                    prefix: "/a/".to_owned(),
                    ..plain()
                },
                "begin with a slash",
            ),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(plain().check().is_ok());
        let missing = Options {
            ca: Some("/there/is/none".into()),
            ..secure()
        };
        assert!(
            missing
                .members()
                .unwrap_err()
                .to_string()
                .contains("/there/is/none")
        );
    }
}
