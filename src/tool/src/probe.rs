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
    for (file, want, remedy) in [
        (
            "config.mak",
            "is not configured",
            "run ./configure --with-malloc=byssal in it",
        ),
        (
            "src/malloc/byssal/glue.c",
            "is not patched",
            "apply the series of out/patches to it, then configure it",
        ),
    ] {
        if !tree.join(file).is_file() {
            let what = format!("{} {want}: it has no {file}", tree.display());
            return Err(Error::new(Kind::Refused, what).remedy(remedy));
        }
    }
    musl::make(
        tree,
        &["obj/include/bits/alltypes.h", "obj/include/bits/syscall.h"],
        1,
        log,
    )?;
    // Beside musl's objects, named from there: a path of ours may have spaces.
    let [source, result] = ["obj/byssal-probe.c", "obj/byssal-probe.s"];
    project::write_file(&tree.join(source), PROBE.as_bytes())?;
    let rule = format!("--eval=byssal-probe: ; $(CC) $(CFLAGS_ALL) -S -o {result} {source}");
    musl::make(tree, &[&rule, "byssal-probe"], 1, log)?;
    let text = project::read_text(&tree.join(result))?;
    for file in [source, result].map(|f| tree.join(f)) {
        fs::remove_file(&file).at("removing", &file)?;
    }
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
