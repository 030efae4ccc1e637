//! A manual page, made of what a program says of itself (`--help`): the same words, where an operator looks for them.
//!
//! Knows the form in which clap writes, and nothing of any program.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::moment::output;

/// Wide enough that no paragraph is broken: the reader's terminal does that.
const COLUMNS: &str = "4000";
/// Commands of a program that have a page of their own; more is not what this form is for.
const COMMANDS_MAX: usize = 32;
/// What is indented so far is about what stands above.
const EXPLANATION: usize = 9;

/// The page of `program` in section 8, called `name`.
pub(super) fn page(program: &Path, name: &str, version: &str, day: &str) -> Result<String> {
    let built = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let help = help(program, &[])?;
    let mut page = format!(
        ".TH \"{}\" 8 \"{day}\" \"storaged {version}\" \"storaged\"\n",
        name.to_uppercase()
    );
    let about = help.lines().next().unwrap_or_default();
    let summary = about.split(['.', ':']).next().unwrap_or(about);
    let _ = writeln!(
        page,
        ".SH NAME\n{} \\- {}",
        escaped(name),
        escaped(summary.trim())
    );
    render(&mut page, &help, true);
    let commands = commands(&help);
    ensure!(
        commands.len() <= COMMANDS_MAX,
        "{name} has too many commands for one page"
    );
    for command in commands {
        let _ = writeln!(page, ".SH \"COMMAND {}\"", command.to_uppercase());
        render(&mut page, &self::help(program, &[&command])?, false);
    }
    page.push_str(".SH SEE ALSO\n.BR storagectl (1)\n");
    // Installed under another name it is called by that.
    Ok(if built == name {
        page
    } else {
        page.replace(&escaped(&built), &escaped(name))
            .replace(&format!("storaged\\-{}", escaped(name)), &escaped(name))
    })
}

fn help(program: &Path, command: &[&str]) -> Result<String> {
    output(
        Command::new(program)
            .args(command)
            .arg("--help")
            .env("COLUMNS", COLUMNS)
            .env_remove("RUST_LOG"),
    )
    .with_context(|| format!("ask {} what it is", program.display()))
}

/// The names in the list of commands, without that of help.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The text of `--help` in the manual's own words; `whole` if it is not one of a command.
fn render(page: &mut String, help: &str, whole: bool) {
    let usage = help.lines().find_map(|line| line.strip_prefix("Usage: "));
    if let Some(usage) = usage {
        let heading = if whole { ".SH SYNOPSIS" } else { ".PP" };
        let _ = writeln!(page, "{heading}\n.B {}", escaped(usage));
    }
    if whole {
        page.push_str(".SH DESCRIPTION\n");
    }
    let mut verbatim = false;
    for line in help.lines() {
        let text = line.trim();
        let indent = line.len() - line.trim_start().len();
        if line.starts_with("Usage: ") || (text.is_empty() && !verbatim) {
            // It stands above; and paragraphs have their own marks.
        } else if indent == 0 && text.ends_with(':') && !text.contains(' ') {
            verbatim = end(page, verbatim);
            let heading = if whole { ".SH" } else { ".SS" };
            let _ = writeln!(page, "{heading} {}", text.trim_end_matches(':').to_uppercase());
            if text == "Examples:" {
                page.push_str(".nf\n");
                verbatim = true;
            }
        } else if verbatim {
            let _ = writeln!(page, "{}", escaped(line));
        } else if indent == 0 {
            let _ = writeln!(page, ".PP\n{}", escaped(text));
        } else if indent < EXPLANATION {
            let (term, about) = text.split_once("  ").unwrap_or((text, ""));
            let _ = writeln!(page, ".TP\n.B {}", escaped(term));
            if !about.trim().is_empty() {
                let _ = writeln!(page, "{}", escaped(about.trim()));
            }
        } else {
            // Values and defaults have lines of their own.
            if text.starts_with(['-', '[']) || text == "Possible values:" {
                page.push_str(".br\n");
            }
            let _ = writeln!(page, "{}", escaped(text));
        }
    }
    end(page, verbatim);
}

/// Ends what is shown as it is; the answer is that nothing is any more.
fn end(page: &mut String, verbatim: bool) -> bool {
    if verbatim {
        page.push_str(".fi\n");
    }
    false
}

/// Text that the manual's reader takes for nothing else.
fn escaped(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    match escaped.chars().next() {
        Some('.' | '\'') => format!("\\&{escaped}"),
        _ => escaped,
    }
}

#[cfg(test)]
mod tests {
    //! What clap writes, read.
    use super::*;

    #[test]
    fn options_have_their_words_and_examples_stay_as_they_are() {
        let help = "Serves volumes.\n\nMore of it.\n\nUsage: thing [OPTIONS]\n\nOptions:\n      --listen <ADDRESS>\n          \
                    Where clients come in\n          \n          [default: here]\n\n  -h, --help\n          Print help\n\n\
                    Examples:\n  thing --listen .\n";
        let mut page = String::new();
        render(&mut page, help, true);
        assert!(page.contains(".SH SYNOPSIS\n.B thing [OPTIONS]\n"), "{page}");
        assert!(
            page.contains(".TP\n.B \\-\\-listen <ADDRESS>\nWhere clients come in\n.br\n[default: here]\n"),
            "{page}"
        );
        assert!(
            page.ends_with(".SH EXAMPLES\n.nf\n  thing \\-\\-listen .\n.fi\n"),
            "{page}"
        );
        assert!(
            page.contains("[OPTIONS]\n.SH DESCRIPTION\n.PP\nServes volumes.\n"),
            "{page}"
        );
    }
}
