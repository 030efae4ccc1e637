//! A real Swift, with one copy of everything in a folder. It speaks its own language to who has a token of Keystone's, and that
//! of S3 to one user of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use test_node::Process;

use crate::accounts::{CINDER, DOMAIN, PASSWORD, SERVICES};
use crate::environment::Environment;
use crate::http::{Method, Question};
use crate::keystone::Keystone;
use crate::server::{Port, Program};

/// All servers in one process.
const SERVERS_IN_ONE: &str = include_str!("swift/swift_in_one.py");
/// The proxy's configuration, but for folders and Keystone.
const PROXY: &str = include_str!("swift/proxy.conf");
/// Who asks as S3 does; the secret key is everybody's password.
pub const S3_ACCESS_KEY: &str = "backups:cinder";

/// A running Swift. It ends with this value, or with the program that started it.
pub struct Swift {
    process: Process,
    folder: PathBuf,
    address: SocketAddr,
    url: String,
}

/// An account of it, as whoever may do everything there sees it.
pub struct SwiftAccount {
    url: String,
    token: String,
}

impl Swift {
    /// Starts one, with its files in a folder that is its own, and puts it into the catalogue.
    pub fn start(folder: &Path, keystone: &Keystone) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let folder = std::path::absolute(folder)?;
        let proxy = PROXY
            .replace("FOLDER", &folder.display().to_string())
            .replace("KEYSTONE", &keystone.url())
            .replace("CINDER", CINDER)
            .replace("SERVICES", SERVICES)
            .replace("DOMAIN", DOMAIN)
            .replace("PASSWORD", PASSWORD);
        fs::write(folder.join("proxy.conf"), proxy)?;
        fs::write(
            folder.join("swift.conf"),
            "[swift-hash]\nswift_hash_path_suffix = tests\n",
        )?;
        let swift = Self::serve_at(&folder, Port::find()?)?;
        let account = format!("{}/v1/AUTH_%(project_id)s", swift.url);
        keystone.register_service("object-store", "swift", &account)?;
        Ok(swift)
    }

    fn serve_at(folder: &Path, port: Port) -> Result<Self> {
        let (url, address) = (port.url(), port.address());
        let program = Program {
            text: SERVERS_IN_ONE,
            arguments: &[folder.display().to_string()],
            variables: &[],
        };
        let environment = Environment::of("swift")?;
        let mut process = program.start(&environment, port, &folder.join("swift.log"))?;
        process.wait_for("Swift to answer", || {
            Question::get(format!("{url}/healthcheck")).expect(200).ok()
        })?;
        Ok(Self {
            process,
            folder: folder.to_owned(),
            address,
            url,
        })
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again where it was, after [`Swift::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let port = Port::at(self.address)?;
        *self = Self::serve_at(&self.folder.clone(), port)?;
        Ok(())
    }

    /// Where it is: `http://127.0.0.1:PORT`. S3 is at the same place.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The account of the Block Storage service.
    pub fn of_service(&self, keystone: &Keystone) -> Result<SwiftAccount> {
        Ok(SwiftAccount {
            url: format!("{}/v1/AUTH_{}", self.url, keystone.project_id(SERVICES)?),
            token: keystone.service_token()?,
        })
    }

    /// The account of who asks as S3 does. Its containers are buckets.
    pub fn of_s3(&self) -> Result<SwiftAccount> {
        let answer = Question::get(format!("{}/auth/v1.0", self.url))
            .header("X-Storage-User", S3_ACCESS_KEY)
            .header("X-Storage-Pass", PASSWORD)
            .expect(200)?;
        let header = |name: &str| answer.header(name).map(str::to_owned);
        Ok(SwiftAccount {
            url: header("X-Storage-Url").context("an account without an address")?,
            token: header("X-Auth-Token").context("an account without a token")?,
        })
    }
}

impl SwiftAccount {
    /// Makes a container, unless it is there.
    pub fn make(&self, container: &str) -> Result<()> {
        let answer = self.question(Method::PUT, container).ask()?;
        anyhow::ensure!(answer.status / 100 == 2, "no container: {}", answer.text);
        Ok(())
    }

    /// The names of all objects in a container; nothing if it is not there.
    pub fn objects(&self, container: &str) -> Result<Option<Vec<String>>> {
        let answer = self
            .question(Method::GET, &format!("{container}?format=json"))
            .ask()?;
        match answer.status {
            200 => {
                let listed = answer.body.as_array().into_iter().flatten();
                let names = listed.filter_map(|object| object["name"].as_str());
                Ok(Some(names.map(str::to_owned).collect()))
            }
            404 => Ok(None),
            other => anyhow::bail!(
                "the listing of {container} is answered with {other}: {}",
                answer.text
            ),
        }
    }

    /// Puts other bytes in an object's place.
    pub fn overwrite(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let question = self.question(Method::PUT, path);
        question
            .bytes("application/octet-stream", bytes)
            .expect(201)
            .map(drop)
    }

    fn question(&self, method: Method, path: &str) -> Question {
        Question::new(method, format!("{}/{path}", self.url)).token(&self.token)
    }
}
