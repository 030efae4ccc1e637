//! Asks before something is lost: the name has to be typed, as one does not type it by accident.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Result;

use crate::exit::Stop;

/// Goes on if `yes`, or if the person at the terminal types `name` after reading `danger`.
pub(crate) fn confirm(yes: bool, danger: &str, name: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let message =
            format!("{danger} Nobody is there to confirm it: say --yes if it is meant. Nothing was changed.");
        return Err(Stop::NotConfirmed(message).into());
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "{danger}\nType {name} to go on: ")?;
    terminal.flush()?;
    answered(&mut std::io::stdin().lock(), name)
}

fn answered(input: &mut impl BufRead, name: &str) -> Result<()> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    if line.trim() == name {
        return Ok(());
    }
    Err(Stop::NotConfirmed("that is not the name: nothing was changed".into()).into())
}

#[cfg(test)]
mod tests {
    //! Only the very name goes on.
    use super::*;

    #[test]
    fn only_the_name_confirms() {
        assert!(answered(&mut &b"db\n"[..], "db").is_ok());
        for wrong in [&b"y\n"[..], b"yes\n", b"\n", b"", b"db2\n"] {
            assert!(answered(&mut &*wrong, "db").is_err());
        }
    }
}
