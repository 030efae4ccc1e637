//! What the documents tell people to type is what the command line takes. Decisions are left out: they stay as they were.
use clap::CommandFactory;
use clap::error::ErrorKind;

use super::Arguments;

/// Where a command ends for a shell.
const ENDS: [&str; 8] = ["|", ">", "&&", ";", "<", "2>", "\\", "#"];

/// The commands of a document: in its blocks, and between backticks in its sentences.
fn commands(document: &str) -> Vec<Vec<String>> {
    let mut is_fenced = false;
    let pieces = document.lines().flat_map(|line| {
        is_fenced ^= line.starts_with("```");
        let is_block = is_fenced || line.starts_with("    ") && !line.contains('`');
        let parts = line.split('`').skip(usize::from(!is_block));
        parts.step_by(if is_block { 1 } else { 2 })
    });
    pieces
        .filter_map(|piece| {
            let (_, command) = piece.split_once("storagectl ")?;
            let words = command.split_whitespace().take_while(|word| !ENDS.contains(word));
            Some(words.map(filled).collect())
        })
        .collect()
}

/// A word in capitals stands for what people put there.
fn filled(word: &str) -> String {
    let is_place = word.chars().all(|c| c.is_ascii_uppercase() || c == '-');
    if is_place && !word.starts_with('-') {
        "1".to_owned()
    } else {
        word.trim_matches(['\'', '"']).to_owned()
    }
}

#[test]
fn every_command_in_the_documents_is_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["docs", "docs/operations", "docs/formats", "docs/protocol"];
    let files = folders
        .map(|folder| root.join(folder))
        .into_iter()
        .flat_map(|folder| {
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
        });
    let documents = files.chain([root.join("README.md")]);
    let (mut found, mut wrong) = (0, Vec::new());
    for path in documents.filter(|path| path.extension().is_some_and(|kind| kind == "md")) {
        for words in commands(&std::fs::read_to_string(&path).unwrap()) {
            if words.iter().any(|word| word.contains("...")) {
                continue;
            }
            found += 1;
            let line = ["storagectl".to_owned()].into_iter().chain(words.clone());
            if let Err(error) = Arguments::command().try_get_matches_from(line) {
                let is_mention = matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                if !is_mention {
                    wrong.push(format!(
                        "{}: storagectl {}: {error}",
                        path.display(),
                        words.join(" ")
                    ));
                }
            }
        }
    }
    assert!(found > 80, "only {found} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
