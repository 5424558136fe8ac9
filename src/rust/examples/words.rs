//! Counts the words of its standard input, by as many threads as it has chunks of text, and tells
//! the ten most frequent ones.
//!
//! ```text
//! cargo run --example words < README.md
//! ```

use std::collections::HashMap;
use std::io::{self, Read};
use std::thread;

#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

/// How often each word stands in a text.
fn count(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphabetic()) {
        if !word.is_empty() {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    counts
}

fn main() -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut sum: HashMap<String, usize> = HashMap::new();
    thread::scope(|scope| {
        let parts = lines.chunks(lines.len().div_ceil(4).max(1));
        let counters: Vec<_> = parts
            .map(|part| scope.spawn(|| count(&part.join("\n"))))
            .collect();
        for counter in counters {
            for (word, times) in counter.join().expect("no part panics") {
                *sum.entry(word).or_default() += times;
            }
        }
    });
    let mut words: Vec<_> = sum.into_iter().collect();
    words.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    for (word, times) in words.iter().take(10) {
        println!("{times:6} {word}");
    }
    Ok(())
}
