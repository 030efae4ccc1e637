//! `storagectl cluster init`: the configuration of the first node.

use std::fmt::Write;

use anyhow::{Result, bail};

use super::configuration::{Configuration, EtcdSection, Placed, absolute, listen};
use crate::arguments::InitArguments;
use crate::output::Form;

/// Writes it, and says what is next.
pub(super) fn init(form: Form, arguments: &InitArguments) -> Result<()> {
    let address = arguments.address.as_deref();
    let (etcd, listen) = match (arguments.etcd.is_empty(), address) {
        (true, None) => (None, None),
        (true, Some(_)) => bail!(
            "--address is for nodes that others reach, and those share an etcd: give --etcd too, or leave --address \
             out for a single node"
        ),
        (false, None) => bail!("say with --address where other nodes reach this machine: HOST or HOST:PORT"),
        (false, Some(address)) => (Some(etcd(arguments)?), Some(listen(address)?)),
    };
    let alone = etcd.is_none();
    let configuration = Configuration::new(&arguments.machine, etcd, listen)?;
    let written = configuration.place(&arguments.machine.config)?;
    form.show(&written, |written| describe(written, alone))
}

fn etcd(arguments: &InitArguments) -> Result<EtcdSection> {
    let file = |path: &Option<_>| path.as_deref().map(absolute).transpose();
    Ok(EtcdSection {
        endpoints: arguments.etcd.clone(),
        prefix: arguments.etcd_prefix.clone(),
        ca: file(&arguments.etcd_ca)?,
        certificate: file(&arguments.etcd_certificate)?,
        key: file(&arguments.etcd_key)?,
        user: arguments.etcd_user.clone(),
        password_file: file(&arguments.etcd_password_file)?,
    })
}

fn describe(written: &Placed, alone: bool) -> String {
    let config = written.config.display();
    let mut text = if written.written {
        format!("wrote {config}:\n\n")
    } else {
        format!("{config} says so already:\n\n")
    };
    for line in written.text.lines() {
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(
        text,
        "\nNext: start it, by `systemctl enable --now storaged` or\n\n  storaged --config {config}\n\n"
    );
    text.push_str(if alone {
        "It keeps its records in its work directory, and stays the only node: others can join a cluster only if it \
         began with --etcd."
    } else {
        "It starts as node 1 and makes the cluster's authority. Then `storagectl cluster token` makes a token for \
         each machine that is to join."
    });
    text
}

#[cfg(test)]
mod tests {
    //! What is written is what was asked for, and halves are refused.
    use std::path::Path;

    use clap::Parser;

    use crate::arguments::{Arguments, ClusterCommand, Command};

    use super::*;

    fn arguments(folder: &Path, words: &str) -> InitArguments {
        let config = folder.join("storaged.toml").display().to_string();
        let fixed = [
            "storagectl",
            "cluster",
            "init",
            "--name",
            "a",
            "--config",
            &config,
        ];
        let words = words.split(' ').filter(|word| !word.is_empty());
        let parsed = Arguments::parse_from(fixed.into_iter().chain(words));
        match parsed.command {
            Command::Cluster(ClusterCommand::Init(arguments)) => arguments,
            _ => panic!("it is another command"),
        }
    }

    #[test]
    fn halves_are_refused_in_words_and_write_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for (words, says) in [
            ("--address a", "share an etcd"),
            ("--etcd http://a:1", "--address"),
            ("--etcd http://a:1 --address 0.0.0.0", "could connect to"),
        ] {
            let error = init(Form::People, &arguments(folder.path(), words)).unwrap_err();
            assert!(error.to_string().contains(says), "{words}: {error}");
        }
        assert!(!folder.path().join("storaged.toml").exists());
    }

    #[test]
    fn what_was_written_is_shown_with_what_comes_next() {
        let folder = tempfile::tempdir().unwrap();
        let first = arguments(
            folder.path(),
            "--etcd http://a:1 --etcd-prefix /p --address 10.0.0.1",
        );
        init(Form::People, &first).unwrap();
        let text = std::fs::read_to_string(folder.path().join("storaged.toml")).unwrap();
        for line in [
            "listen = \"10.0.0.1:7470\"",
            "prefix = \"/p\"",
            "endpoints = [\"http://a:1\"]",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in:\n{text}"
            );
        }
        let written = Placed {
            config: "/c".into(),
            written: true,
            text: "x = 1\n".to_owned(),
        };
        let shown = describe(&written, false);
        assert!(
            shown.contains("  x = 1\n") && shown.contains("storagectl cluster token"),
            "{shown}"
        );
        assert!(describe(&written, true).contains("only node"));
    }
}
