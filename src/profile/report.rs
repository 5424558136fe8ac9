//! The text that the tool reads: what of it this crate knows. profile.c puts a copy of
//! /proc/self/maps and a last line behind it.
//!
//! ```text
//! byssal heap profile 1
//! state final                       or running: written on the way, the process may not have ended
//! process 123 1                     its number, and its parent's
//! elapsed 1000000                   nanoseconds since it began
//! mean 524288                       bytes between samples
//! samples 20 without-stack 0 forgotten 0
//! program /usr/bin/cc
//! stacks 2
//! 8192.5 524328.2 0 0 1 0 7f.. 7f.. 55..
//! ...
//! maps
//! (lines of /proc/self/maps)
//! end
//! ```
//!
//! A line of a stack: objects and bytes that were allocated, and that are live, as estimated from
//! the samples; these samples, of both; addresses, hexadecimal, innermost first, each within the
//! instruction that was being executed.

use crate::state::State;
use core::fmt::{self, Write};

/// Where text goes: `false` when it cannot be written.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Text on its way, in pieces of some size.
struct Pieces<'a> {
    sink: Sink<'a>,
    bytes: [u8; 4096],
    len: usize,
}

impl Pieces<'_> {
    fn flush(&mut self) -> fmt::Result {
        let whole = (self.sink)(&self.bytes[..self.len]);
        self.len = 0;
        whole.then_some(()).ok_or(fmt::Error)
    }
}

impl Write for Pieces<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.as_bytes().chunks(self.bytes.len()) {
            if self.len + piece.len() > self.bytes.len() {
                self.flush()?;
            }
            self.bytes[self.len..self.len + piece.len()].copy_from_slice(piece);
            self.len += piece.len();
        }
        Ok(())
    }
}

/// Writes the numbers of samples and all stacks.
///
/// # Errors
/// When the sink says so.
pub fn write(state: &State, sink: Sink<'_>) -> fmt::Result {
    let mut text = Pieces {
        sink,
        bytes: [0; 4096],
        len: 0,
    };
    writeln!(text, "mean {}", state.chance.mean())?;
    writeln!(
        text,
        "samples {} without-stack {} forgotten {}",
        state.samples, state.without_stack, state.forgotten
    )?;
    let sites = state.sites.all();
    let used = sites.iter().filter(|s| s.allocated.samples > 0);
    writeln!(text, "stacks {}", used.clone().count())?;
    for site in used {
        let (all, live) = (site.allocated, site.live);
        write!(text, "{:.1} {:.1} ", all.objects, all.bytes)?;
        write!(text, "{:.1} {:.1} ", live.objects, live.bytes)?;
        write!(text, "{} {}", all.samples, live.samples)?;
        for address in state.sites.stack(site) {
            write!(text, " {address:x}")?;
        }
        text.write_str("\n")?;
    }
    text.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Filter;
    use crate::state::Sample;
    use std::boxed::Box;
    use std::string::String;

    #[test]
    fn tells_all_stacks() {
        let filters = Box::new([Filter::new(), Filter::new()]);
        let mut state = State::new(1, 0);
        for i in 1..=3000usize {
            let block = Sample {
                address: 64 * i,
                size: 10,
                site: 0,
            };
            state.allocated(&filters, block, &[0xabc, i / 2]);
        }
        let _ = state.freed(&filters, 64);
        let mut text = String::new();
        write(&state, &mut |piece| {
            text.push_str(std::str::from_utf8(piece).unwrap());
            true
        })
        .unwrap();
        let lines: std::vec::Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "mean 1");
        assert_eq!(lines[1], "samples 3000 without-stack 0 forgotten 0");
        assert_eq!(lines[2], "stacks 1501");
        assert_eq!(lines[3], "1.0 10.0 0.0 0.0 1 0 abc 0");
        assert_eq!(lines[4], "2.0 20.0 2.0 20.0 2 2 abc 1");
        assert_eq!(lines.len(), 3 + 1501);
        assert!(write(&state, &mut |_| false).is_err());
    }
}
