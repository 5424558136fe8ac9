//! Folded stacks, which flame graph tools take, and the flame graph itself.

use std::collections::BTreeMap;

use inferno::flamegraph::{self, Options};

use super::merged::{Counts, Profile};
use crate::error::{Error, Kind, Result};

/// Live bytes, or all that were allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Live,
    All,
}

impl What {
    fn bytes(self, counts: &Counts) -> f64 {
        match self {
            What::Live => counts.live.bytes,
            What::All => counts.allocated.bytes,
        }
    }

    fn title(self) -> &'static str {
        match self {
            What::Live => "Live at exit",
            What::All => "All that was allocated",
        }
    }
}

/// A stack a line: functions from the outermost, parted by semicolons, a space, bytes.
pub fn folded(profile: &Profile, what: What) -> Vec<String> {
    let mut lines = BTreeMap::<String, f64>::new();
    for (stack, counts) in &profile.stacks {
        let names = profile
            .frames(stack)
            .rev()
            .map(|frame| plain(&frame.function));
        let name = names.collect::<Vec<_>>().join(";");
        let name = if name.is_empty() {
            "(no stack)".into()
        } else {
            name
        };
        *lines.entry(name).or_default() += what.bytes(counts);
    }
    let rounded = lines
        .iter()
        .map(|(name, bytes)| (name, bytes.round() as u64));
    let some = rounded.filter(|&(_, bytes)| bytes > 0);
    some.map(|(name, bytes)| format!("{name} {bytes}"))
        .collect()
}

/// A name that ends no frame and no line.
fn plain(name: &str) -> String {
    name.replace(';', ":").replace(char::is_control, "?")
}

/// The flame graph of folded stacks, as SVG. `least` is the width, in percent of all, below which a
/// frame is left out.
///
/// # Errors
/// When inferno refuses the lines.
pub fn svg(lines: &[String], what: What, program: &str, least: f64) -> Result<Vec<u8>> {
    let mut options = Options::default();
    options.title = format!("{}: {program}", what.title());
    options.count_name = "bytes".into();
    options.min_width = least;
    // The same picture from the same stacks.
    options.deterministic = true;
    options.hash = true;
    let mut made = Vec::new();
    let empty = ["(nothing) 1".to_owned()];
    let lines = if lines.is_empty() { &empty } else { lines };
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut made)
        .map_err(|e| Error::new(Kind::System, format!("making the flame graph: {e}")))?;
    Ok(made)
}
