//! Whether a word that nobody may see stands in a command line of any process, of hosts' as well: what `ps` would show to
//! everybody. It does not know whose word it is.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Between two looks at all processes: what lives shorter may be missed, a start of Python does not.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// For how long it is looked at most.
const LOOK_LIMIT: Duration = Duration::from_mins(30);

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    /// The command line with the word that must be in none.
    secret: Option<String>,
    /// Whether one had the word that must be in some.
    marker: bool,
}

/// A look at all processes, again and again.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    looking: JoinHandle<Seen>,
}

impl Watch {
    /// Begins to look for `secret`, and for `marker`, which is there: so it is known that anything was seen at all.
    pub(crate) fn start(secret: &'static str, marker: &'static str) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let looking = thread::Builder::new().spawn(move || {
            let mut seen = Seen::default();
            let deadline = Instant::now() + LOOK_LIMIT;
            while Instant::now() < deadline && !until.load(Ordering::Relaxed) && seen.secret.is_none() {
                look(secret, marker, &mut seen);
                thread::sleep(LOOK_AGAIN);
            }
            seen
        });
        let looking = looking.context("start to look at processes")?;
        Ok(Self { over, looking })
    }

    /// Looks no more; an error if the secret was seen, or nothing.
    pub(crate) fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.looking.join().ok().context("looking ended in a panic")?;
        if let Some(line) = seen.secret {
            anyhow::bail!("a command line has the secret: {line}");
        }
        ensure!(seen.marker, "no command line was seen");
        Ok(())
    }
}

fn look(secret: &str, marker: &str, seen: &mut Seen) {
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        // Others have none, or have ended.
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        seen.marker |= line.contains(marker);
        if line.contains(secret) {
            seen.secret = Some(line.replace('\0', " "));
        }
    }
}

#[cfg(test)]
mod tests {
    //! What stands in a command line is found, or the watch would be worth nothing.
    use std::process::{Command, Stdio};

    use super::*;

    /// How long a process may take to have a command line.
    const START_LIMIT: Duration = Duration::from_secs(10);

    /// Runs until its input ends, with a word in its command line.
    fn process(word: &str) -> std::process::Child {
        let mut cat = Command::new("sh");
        cat.args(["-c", "read line", word]).stdin(Stdio::piped());
        cat.spawn().unwrap()
    }

    #[test]
    fn a_secret_is_seen_and_so_is_that_nothing_was_seen() {
        let mut child = process("the-watched-word");
        let mut seen = Seen::default();
        // A process that has just begun has no command line for a moment: the kernel lets go of who started it before that.
        let deadline = Instant::now() + START_LIMIT;
        while seen.secret.is_none() && Instant::now() < deadline {
            look("the-watched-word", "read line", &mut seen);
        }
        assert!(seen.secret.is_some() && seen.marker, "{seen:?}");
        let mut seen = Seen::default();
        look("a-word-that-nobody-has", "nor-this-one", &mut seen);
        assert!(seen.secret.is_none() && !seen.marker, "{seen:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
