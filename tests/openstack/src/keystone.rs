//! A real Keystone: started in a folder of its own, asked and told as an operator does. Which users it has is said in
//! [`crate::accounts`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use test_node::Process;

use crate::accounts::{self, ADMIN, DOMAIN, PASSWORD, PROJECTS, REGION, SERVICES};
use crate::environment::Environment;
use crate::http::{Method, Question};
use crate::server::{Port, Program};
use crate::template::{self, CREDENTIAL_KEYS, DATABASE, TOKEN_KEYS};

/// The Block Storage service in the catalogue: types and names.
const SERVICES_OF_STORAGE: [(&str, &str); 2] = [("block-storage", "cinder"), ("volumev3", "cinderv3")];
/// Who looks for which kind of endpoint.
const INTERFACES: [&str; 3] = ["public", "internal", "admin"];
/// One request at a time: the database is a file.
const THREADS: &str = "1";
/// What serves it.
const SERVE: &str = include_str!("keystone/serve.py");

/// Keystone's configuration, but for folders and addresses. The least work for passwords that bcrypt knows, and nothing that
/// outlasts a power cut: both are for tests.
pub(crate) const CONFIGURATION: &str = "\
[identity]
password_hash_rounds = 4
[database]
sqlite_synchronous = false
[cache]
enabled = true
backend = dogpile.cache.memory
";

/// A running Keystone. It ends with this value, or with the program that started it.
pub struct Keystone {
    process: Process,
    folder: PathBuf,
    address: SocketAddr,
    url: String,
}

impl Keystone {
    /// Starts one with all accounts, with its files in a folder that is its own.
    pub fn start(folder: &Path) -> Result<Self> {
        let environment = Environment::of("keystone")?;
        template::copy_into(folder, &environment)?;
        Self::serve(folder, &environment)
    }

    /// The same at an address of this machine's that others can reach.
    pub fn start_at(folder: &Path, address: SocketAddr) -> Result<Self> {
        let environment = Environment::of("keystone")?;
        template::copy_into(folder, &environment)?;
        Self::serve_at(folder, &environment, Port::at(address)?)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again where it was, after [`Keystone::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let port = Port::at(self.address)?;
        *self = Self::serve_at(&self.folder.clone(), &Environment::of("keystone")?, port)?;
        Ok(())
    }

    /// Starts one on files that are there.
    pub(crate) fn serve(folder: &Path, environment: &Environment) -> Result<Self> {
        Self::serve_at(folder, environment, Port::find()?)
    }

    fn serve_at(folder: &Path, environment: &Environment, port: Port) -> Result<Self> {
        let (url, address) = (port.url(), port.address());
        let configuration = Self::configure(folder, &url)?;
        let variables = [("OS_KEYSTONE_CONFIG_FILES", configuration.display().to_string())];
        let program = Program {
            text: SERVE,
            arguments: &["keystone.wsgi.api:application".to_owned(), THREADS.to_owned()],
            variables: &variables,
        };
        let log = folder.join("keystone.log");
        let mut process = program.start(environment, port, &log)?;
        process.wait_for("Keystone to answer", || {
            Question::get(format!("{url}/v3")).expect(200).ok()
        })?;
        Ok(Self {
            process,
            folder: folder.to_owned(),
            address,
            url,
        })
    }

    /// Writes the configuration of a Keystone with this address into its folder.
    pub(crate) fn configure(folder: &Path, url: &str) -> Result<PathBuf> {
        let folder = std::path::absolute(folder)?;
        let path = folder.join("keystone.conf");
        let file = |name| folder.join(name).display().to_string();
        let text = format!(
            "[DEFAULT]\npublic_endpoint = {url}\n{CONFIGURATION}\
             [database]\nconnection = sqlite:///{}\n\
             [fernet_tokens]\nkey_repository = {}\n\
             [credential]\nkey_repository = {}\n",
            file(DATABASE),
            file(TOKEN_KEYS),
            file(CREDENTIAL_KEYS)
        );
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Where it is, version and all: `http://127.0.0.1:PORT/v3`.
    pub fn url(&self) -> String {
        format!("{}/v3", self.url)
    }

    /// Puts the Block Storage service into the catalogue, in place of what was there, under both of its types. An address is
    /// `http://HOST:PORT/v3` or `http://HOST:PORT/v3/%(project_id)s`.
    pub fn register(&self, address: &str) -> Result<()> {
        let token = self.admin_token()?;
        for (kind, name) in SERVICES_OF_STORAGE {
            self.register_as(&token, kind, name, address)?;
        }
        Ok(())
    }

    /// Puts a service into the catalogue, in place of what has the same type.
    pub fn register_service(&self, kind: &str, name: &str, address: &str) -> Result<()> {
        self.register_as(&self.admin_token()?, kind, name, address)
    }

    fn register_as(&self, token: &str, kind: &str, name: &str, address: &str) -> Result<()> {
        let known = self.get(token, &format!("services?type={kind}"))?;
        for service in known["services"].as_array().into_iter().flatten() {
            let id = service["id"].as_str().context("a service without an identity")?;
            let path = format!("{}/services/{id}", self.url());
            Question::new(Method::DELETE, path).token(token).expect(204)?;
        }
        let service = json!({"service": {"type": kind, "name": name}});
        let service = self.create(token, "services", &service)?;
        for interface in INTERFACES {
            let endpoint = json!({"endpoint": {
                "service_id": service, "interface": interface, "region_id": REGION, "url": address,
            }});
            self.create(token, "endpoints", &endpoint)?;
        }
        Ok(())
    }

    /// A project's identity.
    pub fn project_id(&self, name: &str) -> Result<String> {
        self.find(&self.admin_token()?, "projects", name)
    }

    /// A user's identity.
    pub fn user_id(&self, name: &str) -> Result<String> {
        self.find(&self.admin_token()?, "users", name)
    }

    /// What programs of OpenStack want in their environment to act as a user in a project.
    pub fn variables(&self, user: &str, project: &str) -> Vec<(&'static str, String)> {
        [
            ("OS_AUTH_URL", self.url().as_str()),
            ("OS_IDENTITY_API_VERSION", "3"),
            ("OS_USERNAME", user),
            ("OS_PASSWORD", PASSWORD),
            ("OS_PROJECT_NAME", project),
            ("OS_USER_DOMAIN_NAME", DOMAIN),
            ("OS_PROJECT_DOMAIN_NAME", DOMAIN),
            ("OS_REGION_NAME", REGION),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
    }

    /// A new token of the administrator.
    pub(crate) fn admin_token(&self) -> Result<String> {
        self.token(ADMIN, ADMIN)
    }

    /// Makes all users and projects.
    pub(crate) fn make_accounts(&self) -> Result<()> {
        let token = self.admin_token()?;
        let domain = self.find(&token, "domains", DOMAIN)?;
        for project in PROJECTS.into_iter().chain([SERVICES]) {
            let project = json!({"project": {"name": project, "domain_id": domain}});
            self.create(&token, "projects", &project)?;
        }
        for account in accounts::all() {
            let user = json!({"user": {"name": account.user, "domain_id": domain, "password": PASSWORD}});
            let user = self.create(&token, "users", &user)?;
            let project = self.find(&token, "projects", &account.project)?;
            for role in account.roles {
                let role = self.find(&token, "roles", role)?;
                let grant = format!("{}/projects/{project}/users/{user}/roles/{role}", self.url());
                Question::new(Method::PUT, grant).token(&token).expect(204)?;
            }
        }
        Ok(())
    }

    /// Makes something; gives its identity.
    fn create(&self, token: &str, path: &str, body: &Value) -> Result<String> {
        let question = Question::new(Method::POST, format!("{}/{path}", self.url()));
        let answer = question.token(token).body(body.clone()).expect(201)?;
        let made = answer.body.as_object().and_then(|body| body.values().next());
        let id = made.and_then(|made| made["id"].as_str());
        Ok(id
            .with_context(|| format!("no identity in {}", answer.text))?
            .to_owned())
    }

    /// The identity of what has a name, in a collection.
    pub(crate) fn find(&self, token: &str, collection: &str, name: &str) -> Result<String> {
        let found = self.get(token, &format!("{collection}?name={name}"))?;
        let id = found[collection][0]["id"].as_str();
        Ok(id
            .with_context(|| format!("Keystone has nothing called {name} in {collection}"))?
            .to_owned())
    }

    fn get(&self, token: &str, path: &str) -> Result<Value> {
        let question = Question::get(format!("{}/{path}", self.url()));
        Ok(question.token(token).expect(200)?.body)
    }
}
