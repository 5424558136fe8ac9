//! Tells what runs now and for how long: a spinner on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{At, Error, Result};
use crate::run;

/// How often a long step says on a non-terminal that it still runs.
const REMIND: Duration = Duration::from_secs(20);

enum Display {
    Spinner(ProgressBar),
    Lines {
        stop: Sender<()>,
        thread: JoinHandle<()>,
    },
}

/// Runs `work` under the name `what`; says how long it took, or that it failed.
///
/// # Errors
/// Those of `work`.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let display = begin(what, start);
    let result = work();
    end(display);
    let took = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => tell(&format!("  {what}: done in {took:.1} s")),
        Err(_) => tell(&format!("  {what}: FAILED after {took:.1} s")),
    }
    result
}

/// One line about what is done or was found, on stdout.
pub fn say(line: &str) {
    write(&mut io::stdout().lock(), line);
}

/// One line about what goes on meanwhile, on stderr: stdout has results, which others may read.
pub fn tell(line: &str) {
    write(&mut io::stderr().lock(), line);
}

/// What went wrong, and what can be done about it, on stderr.
pub fn failure(error: &Error) {
    tell(&format!("byssal: {}", error.what));
    if let Some(remedy) = &error.remedy {
        tell(&format!("  what to do: {remedy}"));
    }
}

fn write(out: &mut impl Write, line: &str) {
    // A closed pipe must not end a build.
    let _ = writeln!(out, "{}", run::printable(line));
    let _ = out.flush();
}

/// Writes what somebody asked for to stdout. Whether it was read: a closed pipe is no failure.
///
/// # Errors
/// When it cannot be written for another reason.
pub fn result(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.at("writing to", Path::new("stdout")).map(|()| true),
    }
}

/// Bytes in the greatest unit that is not above them.
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{value:.digits$} {}", units[unit])
}

fn begin(what: &str, start: Instant) -> Display {
    if io::stderr().is_terminal() {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        return Display::Spinner(bar);
    }
    tell(&format!("  {what} ..."));
    let (stop, stopped) = mpsc::channel();
    let what = what.to_owned();
    let thread = thread::spawn(move || {
        while stopped.recv_timeout(REMIND) == Err(RecvTimeoutError::Timeout) {
            tell(&format!(
                "  {what} ... {} s so far",
                start.elapsed().as_secs()
            ));
        }
    });
    Display::Lines { stop, thread }
}

fn end(display: Display) {
    match display {
        Display::Spinner(bar) => bar.finish_and_clear(),
        Display::Lines { stop, thread } => {
            drop(stop);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1023.0), "1023 B");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(3.0 * 1024.0 * 1024.0 * 1024.0), "3.0 GiB");
    }
}
