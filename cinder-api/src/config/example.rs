//! The example in the package explains every option, and says what holds without it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
use test_node::example::{unexplained, with_all_options};

use super::*;

const TEXT: &str = include_str!("../../../packaging/cinder-api/examples/cinder-api.toml");

#[test]
fn every_option_is_explained_in_the_package() {
    let refusal = |text: &str| toml::from_str::<Words>(text).unwrap_err().to_string();
    assert_eq!(unexplained(TEXT, refusal), [""; 0]);
    let all: Words = toml::from_str(&with_all_options(TEXT)).unwrap();
    assert!(all.local.is_some() && all.keys.is_some());
}

#[test]
fn the_values_in_the_package_are_those_that_hold_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password").display().to_string();
    std::fs::write(&password, "secret\n").unwrap();
    let read = |text: &str| {
        let path = folder.path().join("cinder-api.toml");
        std::fs::write(&path, text.replace("/etc/storaged/cinder-password", &password)).unwrap();
        format!("{:?}", Settings::read(&path).unwrap())
    };
    // What must be said, and nothing else.
    let least = "[keystone]\nauth_url = \"http://127.0.0.1:5000/v3\"\npassword_file = \"/etc/storaged/cinder-password\"\n\
                 [records]\netcd = [\"http://127.0.0.1:2379\"]\n";
    assert_eq!(read(TEXT), read(least));
}
