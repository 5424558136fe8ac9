//! The archive that lies beside the patches: the core object, and the header that says for which
//! thread offset it was made.

use std::fs;
use std::path::Path;

use crate::core::Recipe;
use crate::error::{At, Result};
use crate::musl::Compiler;
use crate::project::{self, Project};

/// Builds the core and writes the archive to `dest`.
///
/// # Errors
/// `Step` when the build fails or the object breaks its contract.
pub fn make(
    project: &Project,
    recipe: &Recipe,
    compiler: &Compiler,
    dest: &Path,
    log: &Path,
) -> Result<()> {
    let temp = project::temp_beside(dest)?;
    let object = temp.path().join("core.o");
    recipe.object(project, compiler, &object, log)?;
    let object = fs::read(&object).at("reading", &object)?;
    let header = header(recipe);
    project::write_file(
        dest,
        &ar(&[("core.o", &object), ("core.h", header.as_bytes())]),
    )
}

/// `core.h`: what the C side must agree with, whether programs that never free get the core, and
/// whether the core makes choices.
pub fn header(recipe: &Recipe) -> String {
    let mut text = format!(
        "/* The core of byssal {}, preset {}. */\n#define BYSSAL_THREAD_OFFSET ({})\n",
        env!("CARGO_PKG_VERSION"),
        recipe.preset.name(),
        recipe.thread_offset
    );
    if recipe.preset.serves_all() {
        text += "#define BYSSAL_SERVES_ALL 1\n";
    }
    if recipe.preset.chooses() {
        text += "#define BYSSAL_CHOOSES 1\n";
    }
    text
}

/// An `ar` archive with no dates, owners or symbol table: only `ar p` reads it.
fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        let (owner, mode) = ("0", "644");
        let name = format!("{name}/");
        let head = format!(
            "{name:<16}{owner:<12}{owner:<6}{owner:<6}{mode:<8}{:<10}`\n",
            data.len()
        );
        out.extend(head.as_bytes());
        out.extend(*data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use object::read::archive::ArchiveFile;

    #[test]
    fn members_are_read_back() {
        let bytes = super::ar(&[("core.o", b"odd"), ("core.h", b"even")]);
        let archive = ArchiveFile::parse(&*bytes).unwrap();
        let members = archive.members().map(|m| {
            let m = m.unwrap();
            (m.name().to_vec(), m.data(&*bytes).unwrap().to_vec())
        });
        let want = [
            (b"core.o".to_vec(), b"odd".to_vec()),
            (b"core.h".to_vec(), b"even".to_vec()),
        ];
        assert_eq!(members.collect::<Vec<_>>(), want);
    }
}
