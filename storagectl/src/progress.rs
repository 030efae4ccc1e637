//! Progress bars on long work: on standard error, and only if a person looks at it.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` steps, each a `unit`. It hides itself where standard error is no terminal.
pub(crate) fn bar(subject: &str, total: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(subject.to_owned());
    let counts = if unit == "bytes" {
        "{binary_bytes}/{binary_total_bytes}".to_owned()
    } else {
        format!("{{pos}}/{{len}} {unit}")
    };
    let template = format!("{{msg}} [{{wide_bar}}] {counts} {{percent}}% {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
