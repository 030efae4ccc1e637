//! OpenStack's own programs for tests: a real Keystone, and the Python environments that it, its clients and its test suites
//! live in. It knows nothing of what is tested.
//!
//! [`Environment`] installs programs from lists of exact versions, once for all runs; [`Keystone`] is the identity service
//! with users, projects and a catalogue; [`Reference`] is the real Cinder; [`Glance`] has images, [`Swift`] objects, [`Barbican`] keys; [`http`] asks whoever speaks HTTP.
//! A test may be asynchronous: nothing here minds.
#![forbid(unsafe_code)]

pub mod accounts;
mod barbican;
pub mod environment;
mod glance;
pub mod http;
pub mod keystone;
mod reference;
mod server;
mod swift;
mod template;
mod tokens;

pub use barbican::Barbican;
pub use environment::Environment;
pub use glance::Glance;
pub use keystone::Keystone;
pub use reference::Reference;
pub use server::Port;
pub use swift::{S3_ACCESS_KEY, Swift, SwiftAccount};
pub use tokens::{AccessRule, ApplicationCredential};
