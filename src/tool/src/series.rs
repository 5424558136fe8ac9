//! Writes the patches that fit a tree as a series that `git am` and `patch -p1` both take.
//! The same tree and edits give the same bytes: no date, no host, no user.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use similar::TextDiff;

use crate::edit::{Change, Fitted};
use crate::error::{At, Result};

const AUTHOR: &str = "byssal <byssal@localhost>";
const DATE: &str = "Thu, 1 Jan 2026 00:00:00 +0000";

/// Writes `NNNN-name.patch` for each patch into the directory `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, fitted: &[Fitted]) -> Result<()> {
    fs::create_dir_all(dir).at("making directory", dir)?;
    for (i, one) in fitted.iter().enumerate() {
        let path = dir.join(format!("{}.patch", one.patch.name));
        fs::write(&path, text(one, i + 1, fitted.len())).at("writing", &path)?;
    }
    Ok(())
}

/// All patches of the series in one text, to tell whether anything changed.
pub fn whole(fitted: &[Fitted]) -> String {
    fitted
        .iter()
        .enumerate()
        .map(|(i, one)| text(one, i + 1, fitted.len()))
        .collect()
}

fn text(one: &Fitted, number: usize, of: usize) -> String {
    let patch = one.patch;
    let mut out = String::new();
    // git looks for a commit line of this form, with any hash and this date.
    let _ = writeln!(out, "From {:040} Mon Sep 17 00:00:00 2001", 0);
    let _ = writeln!(out, "From: {AUTHOR}\nDate: {DATE}");
    let _ = writeln!(out, "Subject: [PATCH {number}/{of}] {}\n", patch.subject);
    let _ = writeln!(out, "{}\n---", patch.body.trim());
    for change in &one.changes {
        let _ = writeln!(out, " {}", change.file);
    }
    out.push('\n');
    for change in &one.changes {
        out += &diff(change);
    }
    let _ = writeln!(out, "-- \nbyssal {}\n", env!("CARGO_PKG_VERSION"));
    out
}

fn diff(change: &Change) -> String {
    let file = &change.file;
    let old = change.before.as_deref().unwrap_or("");
    let diff = TextDiff::from_lines(old, &change.after);
    let mut unified = diff.unified_diff();
    let (from, to) = (format!("a/{file}"), format!("b/{file}"));
    match change.before {
        Some(_) => format!("diff --git {from} {to}\n{}", unified.header(&from, &to)),
        None => format!(
            "diff --git {from} {to}\nnew file mode 100644\n{}",
            unified.header("/dev/null", &to)
        ),
    }
}
