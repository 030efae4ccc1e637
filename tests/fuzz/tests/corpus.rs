//! The corpus that fuzzing gathered stays passed: each input once was new to its parser, and those
//! that once broke one are kept for ever.

use std::path::Path;

#[test]
fn every_kept_input_passes_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut inputs = 0;
    for target in fuzz::TARGETS {
        (target.run)(&[]);
        let folder = corpus.join(target.name);
        let listed = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in listed {
            let path = entry.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{} breaks its target", path.display());
            inputs += 1;
        }
    }
    assert!(
        inputs >= fuzz::TARGETS.len(),
        "each target has at least one kept input"
    );
}

#[test]
fn every_folder_of_the_corpus_belongs_to_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(fuzz::target(&name).is_some(), "no target reads corpus/{name}");
    }
}
