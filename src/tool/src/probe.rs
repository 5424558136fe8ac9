//! Where the heap field of a thread lies, as the target's own compiler sees it.

use std::fs;
use std::path::Path;

use crate::error::{At, Error, Kind, Result};
use crate::{musl, project};

/// Prints the offset as assembler text that is read, not run: right for cross compilers too.
const PROBE: &str = r#"#include <stddef.h>
#include "pthread_impl.h"
#ifdef TLS_ABOVE_TP
#define AT ((long)offsetof(struct pthread, malloc_heap) - (long)sizeof(struct pthread) - TP_OFFSET)
#else
#define AT ((long)offsetof(struct pthread, malloc_heap))
#endif
void probe(void);
void probe(void) { __asm__("\n.ascii \"->THREAD_OFFSET %0\"" :: "i"(AT)); }
"#;

const MARK: &str = "->THREAD_OFFSET ";

/// Bytes from the thread pointer to `malloc_heap`, in a tree that is patched and configured.
///
/// # Errors
/// `Step` when the probe does not compile or its output is not understood.
pub fn thread_offset(tree: &Path, log: &Path) -> Result<i64> {
    musl::make(
        tree,
        &["obj/include/bits/alltypes.h", "obj/include/bits/syscall.h"],
        1,
        log,
    )?;
    let dir = tempfile::tempdir()?;
    let (source, result) = (dir.path().join("probe.c"), dir.path().join("probe.s"));
    project::write_file(&source, PROBE.as_bytes())?;
    let rule = format!(
        "--eval=byssal-probe: ; $(CC) $(CFLAGS_ALL) -S -o {} {}",
        result.display(),
        source.display()
    );
    musl::make(tree, &[&rule, "byssal-probe"], 1, log)?;
    let text = fs::read_to_string(&result).at("reading", &result)?;
    read(&text).ok_or_else(|| {
        Error::new(
            Kind::Step,
            format!("the probe for the thread offset printed no number:\n{text}"),
        )
    })
}

/// The number after the mark; assemblers put `$` or `#` before it.
fn read(text: &str) -> Option<i64> {
    let rest = &text[text.find(MARK)? + MARK.len()..];
    let rest = rest.trim_start_matches(['$', '#']);
    let end = rest
        .find(|c: char| c != '-' && !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn immediate_marks_of_assemblers_are_passed_over() {
        assert_eq!(read("\t.ascii \"->THREAD_OFFSET $200\"\n"), Some(200));
        assert_eq!(read("\t.ascii \"->THREAD_OFFSET #-24\"\n"), Some(-24));
        assert_eq!(read("\t.ascii \"->THREAD_OFFSET -28696\"\n"), Some(-28696));
        assert_eq!(read("\t.ascii \"->THREAD_OFFSET x\"\n"), None);
        assert_eq!(read("nothing"), None);
    }
}
