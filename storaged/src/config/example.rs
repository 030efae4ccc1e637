//! The example in the package explains every option, and says what holds without it.
use super::*;
use test_node::example::{unexplained, with_all_options};

const TEXT: &str = include_str!("../../../packaging/storaged/examples/storaged.toml");

#[test]
fn every_option_is_explained_in_the_package() {
    let refusal = |text: &str| toml::from_str::<Settings>(text).unwrap_err().to_string();
    assert_eq!(unexplained(TEXT, refusal), [""; 0]);
    let all: Settings = toml::from_str(&with_all_options(TEXT)).unwrap();
    assert!(all.etcd.is_some());
}

#[test]
fn the_values_in_the_package_are_those_that_hold_without_it() {
    let said: Settings = toml::from_str(TEXT).unwrap();
    assert_eq!(said.check().unwrap(), Settings::default().check().unwrap());
}
