//! The layers as the text of `lib.rs` declares them: a numbered list, from the lowest.

use std::collections::HashMap;

/// Reads lines such as "//! 2. `exchange/` — the protocols between heaps", with a dash or a colon.
/// What stands between backticks before it is a folder, or without the slash a module of one file.
/// Gives the number of each; the lowest is 1.
pub fn layers(lib: &str) -> Result<HashMap<String, usize>, String> {
    let mut found = HashMap::new();
    let mut last = 0;
    for line in lib.lines() {
        let Some((number, text)) = numbered(line) else {
            continue;
        };
        let names: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            continue;
        }
        if number != last + 1 {
            return Err(format!("layer {number} follows layer {last}: {line}"));
        }
        last = number;
        for name in names {
            let name = name.trim_end_matches('/').to_owned();
            if let Some(other) = found.insert(name.clone(), number) {
                return Err(format!("{name} is in the layers {other} and {number}"));
            }
        }
    }
    if last < 2 {
        return Err("lib.rs declares no layers: lines such as \"//! 1. `base/`: ...\"".into());
    }
    Ok(found)
}

/// The number that a line of a module's text begins with, and what stands before its colon or dash.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let text = line.strip_prefix("//! ")?;
    let (number, text) = text.split_once(". ")?;
    let end = text.find([':', '—'])?;
    Some((number.parse().ok()?, &text[..end]))
}
