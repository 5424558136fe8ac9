//! The compiler's assembly of the core, made into what a tree of musl can carry: text that the
//! preprocessor may read, and into which it puts the offset of the thread's heap field.

use std::fmt::Write;

use crate::error::{Error, Kind, Result};

/// The offset that the preprocessor puts in, from a header that musl's build makes.
const OFFSET: &str = "BYSSAL_THREAD_OFFSET";

/// Lines that say where the text came from, as those of Rust's own compiled library do, or what
/// the assembler's own flags should say.
const LEFT_OUT: [&str; 6] = [".file", ".ident", ".loc", ".attribute", ".cpu", ".module"];

/// What is changed in the text beside the offset.
pub struct Changes<'a> {
    /// A line, its words parted by single spaces, and the one that replaces it.
    pub line: Option<&'a [String; 2]>,
    /// Names that are to be weak.
    pub weak: &'a [&'a str],
    /// Names of other objects that are not seen outside of libc.
    pub hidden: &'a [&'a str],
    /// The section of the state of the process, as the compiler has it and as it is to be.
    pub state: [&'a str; 2],
}

/// The text without what says where it came from: what Rust's own compiled library brings for
/// debuggers names files, and cannot be assembled twice.
pub fn code(text: &str) -> String {
    let mut is_debug = false;
    let mut out = String::new();
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("\t.section\t") || line == "\t.text" {
            is_debug = line.starts_with("\t.section\t.debug_");
        }
        let first = line.split_whitespace().next();
        // Compilers mark inline assembly: the preprocessor would take that for its own.
        let left_out = |first: &str| first.ends_with("APP") || LEFT_OUT.contains(&first);
        if !is_debug && !first.is_none_or(left_out) {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// One text of two that differ by the offset only that the core was compiled for: there the text
/// has the offset's name. (Two that are alike reach the field by a call.)
///
/// # Errors
/// `Step` when they differ otherwise.
pub fn reduced(texts: [&str; 2], offsets: [i64; 2], changes: &Changes) -> Result<String> {
    let [first, second] = texts.map(|t| t.lines().collect::<Vec<_>>());
    if first.len() != second.len() {
        return Err(unlike("one has more lines than the other"));
    }
    let mut out = String::new();
    for name in changes.hidden {
        let _ = writeln!(out, "\t.hidden\t{name}");
    }
    for (line, other) in first.into_iter().zip(second) {
        let named = if line == other {
            line.to_owned()
        } else {
            offset_named(line, other, offsets)
                .ok_or_else(|| unlike(&format!("{line:?} and {other:?}")))?
        };
        out += &changed(&named, changes);
        out.push('\n');
    }
    Ok(out)
}

fn unlike(how: &str) -> Error {
    Error::new(
        Kind::Step,
        format!("the core compiled for two thread offsets differs by more than these: {how}"),
    )
    .remedy("src/abi/src/thread.rs must put the offset into single instructions")
}

/// The line with the offset's name in place of its number, if the other line is that line.
fn offset_named(line: &str, other: &str, [here, there]: [i64; 2]) -> Option<String> {
    let parts: Vec<&str> = line.split(&here.to_string()).collect();
    let joined = parts.join(&there.to_string());
    (joined == other).then(|| parts.join(OFFSET))
}

/// The line with what is changed in it.
fn changed(line: &str, changes: &Changes) -> String {
    if let Some([from, to]) = changes.line {
        if from.split(' ').eq(line.split_whitespace()) {
            return format!("\t{to}");
        }
    }
    let mut words = line.split_whitespace();
    match [words.next(), words.next()] {
        [Some(".globl"), Some(name)] if changes.weak.contains(&name) => {
            line.replace(".globl", ".weak")
        }
        [Some(".section"), _] => line.replace(changes.state[0], changes.state[1]),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_sections_are_left_out() {
        let text =
            "\t.section\t.debug_line,\"\",@progbits\n\t.quad 1\n\t.text\n\t.loc\t1 2\n\tret\n";
        assert_eq!(code(text), "\t.text\n\tret\n");
    }

    const CHANGES: Changes = Changes {
        line: None,
        weak: &["give"],
        hidden: &["there"],
        state: [".bss.state", ".lbss"],
    };

    #[test]
    fn the_offset_gets_its_name() {
        let text = |n: i64| format!("\t.file\t\"x\"\n\t#APP\n\tmovq\t%fs:{n}, %rax\n\t#NO_APP\n");
        let both = [text(-184), text(-328)].map(|t| code(&t));
        let made = reduced([&both[0], &both[1]], [-184, -328], &CHANGES).unwrap();
        assert_eq!(
            made,
            "\t.hidden\tthere\n\tmovq\t%fs:BYSSAL_THREAD_OFFSET, %rax\n"
        );
    }

    #[test]
    fn names_and_sections_are_changed() {
        let text = |n: i64| {
            format!("\t.globl\tgive\n\t.globl\ttake\n\t.section\t.bss.state,\"aw\"\n\tld {n}(tp)\n")
        };
        let both = [text(8), text(16)];
        let made = reduced([&both[0], &both[1]], [8, 16], &CHANGES).unwrap();
        assert!(made.contains("\t.weak\tgive\n\t.globl\ttake\n\t.section\t.lbss,\"aw\"\n"));
    }

    #[test]
    fn another_difference_is_refused() {
        for (a, b) in [("ld 8(tp)", "ld 16(sp)"), ("a\nb", "a")] {
            let refused = reduced([a, b], [8, 16], &CHANGES).unwrap_err();
            assert!(refused.what.contains("differs"), "{refused}");
        }
    }
}
