//! CHAP secrets as people give them: from a file, from standard input, typed without an echo, or made here.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};

use admin_api::iscsi::{Credentials, SECRET_BYTES_MAX};
use anyhow::{Context, Result, bail};
use rand::Rng;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::arguments::SecretArguments;

/// Characters of a secret that is made here: with 64 to choose from, 96 bits, which RFC 7143 section 9.2.1 asks for; and
/// no more than the 16 that Windows takes.
const MADE_LENGTH: usize = 16;
/// What they are chosen from: nothing that a shell or a configuration file reads in its own way.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-";

/// A secret with its name.
pub(super) struct Secret {
    /// Both.
    pub(super) credentials: Credentials,
    /// Whether nobody has seen it yet.
    pub(super) was_made: bool,
}

impl Secret {
    /// Gets a secret in the way that was asked for; nothing if none was, and `asks` does not say that one is needed.
    pub(super) fn obtain(
        arguments: &SecretArguments,
        asks: bool,
        default_user: &str,
    ) -> Result<Option<Self>> {
        let (secret, was_made) = if arguments.generate {
            (make(), true)
        } else if let Some(path) = &arguments.secret_file {
            let secret = if path.as_os_str() == "-" {
                read(std::io::stdin().lock()).context("cannot read the secret from standard input")?
            } else {
                let shown = path.display();
                let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
                read(file).with_context(|| format!("cannot read the secret from {shown}"))?
            };
            (secret, false)
        } else if asks {
            (ask()?, false)
        } else if arguments.user.is_some() {
            bail!("a CHAP name needs a secret: add --chap, --chap-secret-file or --chap-generate");
        } else {
            return Ok(None);
        };
        let user = arguments.user.clone();
        let credentials = Credentials {
            user: user.unwrap_or_else(|| default_user.to_owned()),
            secret,
        };
        credentials.check()?;
        Ok(Some(Self {
            credentials,
            was_made,
        }))
    }
}

fn make() -> String {
    let random: [u8; MADE_LENGTH] = rand::rng().random();
    // 64 divides 256: each character is as likely as any other.
    let character = |byte: &u8| ALPHABET.get(usize::from(byte % 64)).copied();
    random.iter().filter_map(character).map(char::from).collect()
}

/// A secret is short: of a longer file one byte more than fits is read, by which it is refused.
fn read(source: impl Read) -> Result<String> {
    let most = u64::try_from(SECRET_BYTES_MAX + "\r\n".len() + 1)?;
    let mut text = String::new();
    source.take(most).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Asks at the terminal, twice, without showing what is typed.
fn ask() -> Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "nobody is there to type a secret: use --chap-secret-file (- reads standard input) or --chap-generate"
        );
    }
    let hidden = Hidden::begin()?;
    let (first, again) = (prompt("CHAP secret: ")?, prompt("The same again: ")?);
    drop(hidden);
    if first != again {
        bail!("the two are not the same: nothing was changed");
    }
    Ok(first)
}

fn prompt(question: &str) -> Result<String> {
    let mut terminal = std::io::stderr();
    write!(terminal, "{question}")?;
    terminal.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    writeln!(terminal)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal does not show what is typed while this lives.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Of a terminal that is gone nothing is to be put back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    //! Secrets come as they were given, and those that are made here suit every initiator.
    use super::*;

    fn arguments(file: Option<&std::path::Path>, generate: bool) -> SecretArguments {
        SecretArguments {
            user: None,
            secret_file: file.map(Into::into),
            generate,
        }
    }

    #[test]
    fn a_secret_that_is_made_is_new_and_short_enough_for_windows() {
        let make = || {
            let secret = Secret::obtain(&arguments(None, true), false, "host");
            secret.unwrap().unwrap()
        };
        let (one, other) = (make(), make());
        assert_ne!(one.credentials.secret, other.credentials.secret);
        assert_eq!((one.credentials.secret.len(), one.was_made), (16, true));
        assert_eq!(one.credentials.user, "host");
    }

    #[test]
    fn the_newline_at_the_end_of_a_file_is_none_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, secret) in [
            ("123456789012\n", "123456789012"),
            ("123456789012\r\n", "123456789012"),
            ("12345678 012", "12345678 012"),
        ] {
            std::fs::write(&path, content).unwrap();
            let given = Secret::obtain(&arguments(Some(&path), false), false, "host");
            assert_eq!(given.unwrap().unwrap().credentials.secret, secret);
        }
        for wrong in [
            "short\n".to_owned(),
            "x".repeat(1000),
            "two\nlines here".to_owned(),
        ] {
            std::fs::write(&path, wrong).unwrap();
            assert!(Secret::obtain(&arguments(Some(&path), false), false, "host").is_err());
        }
    }

    #[test]
    fn without_a_word_of_chap_there_is_no_secret_and_a_name_alone_is_refused() {
        let mut none = arguments(None, false);
        assert!(Secret::obtain(&none, false, "host").unwrap().is_none());
        none.user = Some("host".to_owned());
        assert!(Secret::obtain(&none, false, "host").is_err());
    }
}
