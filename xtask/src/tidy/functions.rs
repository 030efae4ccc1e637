//! Rules that need to understand the code: the length of functions, where `unsafe` is, which tests sleep.

use std::path::{Path, PathBuf};

use proc_macro2::Span;
use syn::visit::{self, Visit};

use super::Finding;

/// A function fits a screen.
const FUNCTION_LINES: usize = 70;
/// No function is longer.
const FUNCTION_LINES_MAX: usize = 120;
/// At most this many functions in a thousand are longer than [`FUNCTION_LINES`].
const LONG_PER_MILLE_MAX: usize = 20;
/// The files with `unsafe`, with the reason that each has.
const UNSAFE_FILES: &[(&str, &str)] = &[
    (
        "crates/direct/src/area.rs",
        "memory that a disk shares with a front end is filled and looked into",
    ),
    (
        "crates/direct/src/mapping.rs",
        "memory that processes share is mapped",
    ),
    (
        "crates/direct/src/reader.rs",
        "the kernel writes into buffers whose life the ring cannot check",
    ),
    (
        "crates/direct/src/witness.rs",
        "memory that other processes share is used through atomics",
    ),
    (
        "crates/store/src/medium/uring.rs",
        "the kernel reads and writes buffers whose life the ring cannot check",
    ),
    (
        "tests/bench/src/local/guest.rs",
        "a foreign virtio driver takes raw addresses of the guest's memory",
    ),
    (
        "tests/fuzz/src/main.rs",
        "libFuzzer calls a function by its unmangled name",
    ),
    (
        "vhost-blk/tests/instants/steps.rs",
        "a process is stepped through by ptrace",
    ),
    (
        "vhost-blk/tests/program/driver.rs",
        "a foreign virtio driver takes raw addresses of the guest's memory",
    ),
];

/// Names by which a function shows that its waiting ends.
const BOUNDS: [&str; 3] = ["deadline", "patience", "limit"];

/// What was measured over all files.
#[derive(Default)]
pub(super) struct Measured {
    functions: usize,
    long: Vec<(PathBuf, usize, String)>,
}

impl Measured {
    /// Findings about all files together.
    pub(super) fn verdict(&self) -> Vec<Finding> {
        if self.long.len() * 1000 <= self.functions * LONG_PER_MILLE_MAX {
            return Vec::new();
        }
        let message = |name: &str| format!("{name} is longer than {FUNCTION_LINES} lines, and too many are");
        self.long
            .iter()
            .map(|(path, line, name)| Finding::new(path, *line, message(name)))
            .collect()
    }
}

/// Findings about one file; its functions are added to what was measured.
pub(super) fn check(path: &Path, text: &str, measured: &mut Measured) -> Vec<Finding> {
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => return vec![Finding::new(path, error.span().start().line, error.to_string())],
    };
    let slashed = path.to_string_lossy().replace('\\', "/");
    let in_tests = slashed.contains("/tests/") || slashed.starts_with("tests/");
    let unsafe_allowed = UNSAFE_FILES.iter().any(|(allowed, _)| *allowed == slashed);
    let mut visitor = Visitor {
        path,
        in_tests,
        unsafe_allowed,
        bounded: false,
        measured,
        findings: Vec::new(),
    };
    visitor.visit_file(&file);
    visitor.findings
}

/// A crate without a file in [`UNSAFE_FILES`] forbids `unsafe`, so that the compiler sees into macros too.
pub(super) fn check_root(path: &Path, text: &str) -> Option<Finding> {
    let slashed = path.to_string_lossy();
    let folder = slashed
        .strip_suffix("src/lib.rs")
        .or_else(|| slashed.strip_suffix("src/main.rs"))?;
    let excused = UNSAFE_FILES
        .iter()
        .any(|(file, _)| file.starts_with(&format!("{folder}src/")));
    let forbids = text.contains("#![forbid(unsafe_code)]");
    (!excused && !forbids).then(|| Finding::new(path, 1, "say #![forbid(unsafe_code)] after the header"))
}

struct Visitor<'a> {
    path: &'a Path,
    in_tests: bool,
    unsafe_allowed: bool,
    /// Whether the function that is looked at mentions a bound.
    bounded: bool,
    measured: &'a mut Measured,
    findings: Vec<Finding>,
}

impl Visitor<'_> {
    /// Checks one function, then what is in it.
    fn function(
        &mut self,
        signature: &syn::Signature,
        block: &syn::Block,
        look_inside: impl FnOnce(&mut Self),
    ) {
        let (name, start) = (&signature.ident, signature.fn_token.span);
        let lines = block.brace_token.span.close().end().line + 1 - start.start().line;
        self.measured.functions += 1;
        if lines > FUNCTION_LINES {
            self.measured
                .long
                .push((self.path.to_owned(), start.start().line, name.to_string()));
        }
        if lines > FUNCTION_LINES_MAX {
            self.find(
                start,
                format!("{name} has {lines} lines, at most {FUNCTION_LINES_MAX}"),
            );
        }
        if signature.unsafety.is_some() {
            self.unsafe_at(start);
        }
        let mut mentions = MentionsBound(false);
        mentions.visit_signature(signature);
        mentions.visit_block(block);
        let outer = std::mem::replace(&mut self.bounded, mentions.0);
        look_inside(self);
        self.bounded = outer;
    }

    fn unsafe_at(&mut self, span: Span) {
        if !self.unsafe_allowed {
            self.find(
                span,
                "unsafe here: find a safe way, or add the file to UNSAFE_FILES with its reason",
            );
        }
    }

    fn find(&mut self, span: Span, message: impl Into<String>) {
        self.findings
            .push(Finding::new(self.path, span.start().line, message));
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        let outer = self.in_tests;
        self.in_tests |= node.attrs.iter().any(is_cfg_test);
        visit::visit_item_mod(self, node);
        self.in_tests = outer;
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block, |this| visit::visit_item_fn(this, node));
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block, |this| {
            visit::visit_impl_item_fn(this, node);
        });
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        if node.unsafety.is_some() {
            self.unsafe_at(node.impl_token.span);
        }
        visit::visit_item_impl(self, node);
    }

    fn visit_expr_unsafe(&mut self, node: &'ast syn::ExprUnsafe) {
        self.unsafe_at(node.unsafe_token.span);
        visit::visit_expr_unsafe(self, node);
    }

    fn visit_expr_call(&mut self, node: &'ast syn::ExprCall) {
        let sleeps = matches!(&*node.func, syn::Expr::Path(path)
            if path.path.segments.last().is_some_and(|segment| segment.ident == "sleep"));
        if sleeps && self.in_tests && !self.bounded {
            self.find(
                node.paren_token.span.open(),
                "a test sleeps: wait for a condition, with a deadline",
            );
        }
        visit::visit_expr_call(self, node);
    }
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    let mut test = false;
    if attribute.path().is_ident("cfg") {
        // What is not `test` makes an error that says nothing here.
        let _ = attribute.parse_nested_meta(|meta| {
            test |= meta.path.is_ident("test");
            Ok(())
        });
    }
    test
}

struct MentionsBound(bool);

impl<'ast> Visit<'ast> for MentionsBound {
    fn visit_ident(&mut self, ident: &'ast syn::Ident) {
        let name = ident.to_string().to_ascii_lowercase();
        self.0 |= BOUNDS.iter().any(|bound| name.contains(bound));
    }
}

#[cfg(test)]
mod tests {
    //! Each rule finds its violation in parsed code, not in text that only looks like it.
    use super::*;

    fn messages(name: &str, text: &str) -> String {
        let found = check(Path::new(name), text, &mut Measured::default());
        found
            .into_iter()
            .map(|finding| finding.message)
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn a_function_of_121_lines_is_too_long() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert!(messages("a.rs", &function(121)).contains("f has 121 lines"));
        assert_eq!(messages("a.rs", &function(120)), "");
    }

    #[test]
    fn some_functions_may_be_longer_than_a_screen_but_not_many() {
        let long = (PathBuf::from("a.rs"), 1, "f".to_owned());
        assert!(
            Measured {
                functions: 50,
                long: vec![long.clone()]
            }
            .verdict()
            .is_empty()
        );
        assert_eq!(
            Measured {
                functions: 49,
                long: vec![long]
            }
            .verdict()
            .len(),
            1
        );
    }

    #[test]
    fn unsafe_outside_its_files_is_found_in_every_form() {
        for text in [
            "fn f() { unsafe { g() } }",
            "unsafe fn f() {}",
            "unsafe impl Send for A {}",
        ] {
            assert!(messages("a.rs", text).contains("unsafe here"), "{text}");
        }
        assert_eq!(
            messages("a.rs", "// unsafe { }\nconst A: &str = \"unsafe { }\";"),
            ""
        );
    }

    #[test]
    fn a_crate_without_a_reason_for_unsafe_forbids_it() {
        let found = |name: &str, text| check_root(Path::new(name), text).is_some();
        assert!(found("crates/a/src/lib.rs", "//! A.\n"));
        assert!(!found("crates/a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n"));
        assert!(!found("tests/fuzz/src/main.rs", "//! A.\n"));
        assert!(!found("crates/a/src/b.rs", "//! B.\n"));
    }

    #[test]
    fn a_sleep_in_a_test_needs_a_deadline() {
        let sleeping = "#[test] fn f() { std::thread::sleep(second); }";
        assert!(messages("store/tests/a.rs", sleeping).contains("sleeps"));
        assert!(messages("src/a.rs", &format!("#[cfg(test)] mod tests {{ {sleeping} }}")).contains("sleeps"));
        assert_eq!(messages("src/a.rs", "fn f() { std::thread::sleep(second); }"), "");
        let waiting = "fn f(deadline: Instant) { while now() < deadline { sleep(short); } }";
        assert_eq!(messages("store/tests/a.rs", waiting), "");
    }
}
