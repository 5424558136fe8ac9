//! What is told on the terminal: totals, and where most was allocated.

use std::collections::HashMap;
use std::fmt::Write;

use super::merged::{Counts, Profile};
use crate::progress::bytes;

/// Rows of a table, and functions of a row.
const ROWS: usize = 10;
const FUNCTIONS: usize = 4;
/// Characters of a function's name that are shown.
const WIDTH: usize = 48;

/// The text.
pub fn text(profile: &Profile) -> String {
    let total = profile.total();
    let mut text = String::new();
    let sum = |sum: super::raw::Sum| format!("{} in {:.0} blocks", bytes(sum.bytes), sum.objects);
    let _ = writeln!(text, "  allocated     {}", sum(total.allocated));
    let _ = writeln!(text, "  live at exit  {}", sum(total.live));
    rows(&mut text, profile, "most allocated", |c| c.allocated.bytes);
    rows(&mut text, profile, "most live", |c| c.live.bytes);
    text
}

fn rows(text: &mut String, profile: &Profile, title: &str, of: fn(&Counts) -> f64) {
    let all = of(&profile.total());
    let mut places = HashMap::<String, f64>::new();
    for (stack, counts) in &profile.stacks {
        *places.entry(place(profile, stack)).or_default() += of(counts);
    }
    let mut places: Vec<_> = places.into_iter().filter(|p| p.1 >= 1.0).collect();
    places.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if places.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {title}, of functions and their callers:");
    for (place, sum) in places.iter().take(ROWS) {
        let share = 100.0 * sum / all;
        let _ = writeln!(text, "  {share:5.1} %  {:>9}  {place}", bytes(*sum));
    }
}

/// The innermost functions of a stack, without those of languages through which all allocates.
fn place(profile: &Profile, stack: &[usize]) -> String {
    let names = profile.frames(stack).map(|frame| frame.function.as_str());
    let names = names.skip_while(|name| serves_all(name)).take(FUNCTIONS);
    let names: Vec<String> = names.map(short).collect();
    if names.is_empty() {
        return "(no stack)".into();
    }
    names.join(" < ")
}

fn serves_all(name: &str) -> bool {
    const THROUGH: [&str; 8] = [
        "operator new",
        "alloc::alloc::",
        "alloc::raw_vec::",
        "<alloc::alloc::",
        "<alloc::raw_vec::",
        "__rust_",
        "__rdl_",
        "std::alloc::",
    ];
    THROUGH.iter().any(|through| name.starts_with(through))
}

fn short(name: &str) -> String {
    match name.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(short("abc"), "abc");
        let long = "ä".repeat(60);
        assert_eq!(short(&long), format!("{}...", "ä".repeat(48)));
    }
}
