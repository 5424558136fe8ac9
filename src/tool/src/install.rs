//! Puts the built toolchain into a directory of the system.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::Built;
use crate::error::{At, Error, Kind, Result};
use crate::project;

/// Files that name the prefix; all others are the same for any.
const NAMING: [&str; 4] = [
    "bin/musl-gcc",
    "bin/musl-clang",
    "bin/ld.musl-clang",
    "lib/musl-gcc.specs",
];

/// Copies the toolchain to `destdir` + `prefix`. Programs linked with it look for the dynamic
/// linker in `prefix`/lib.
///
/// # Errors
/// When a file cannot be written.
pub fn install(built: &Built, prefix: &Path, destdir: Option<&Path>) -> Result<PathBuf> {
    if !prefix.is_absolute() {
        return Err(Error::new(
            Kind::Usage,
            format!("PREFIX={} is not absolute", prefix.display()),
        )
        .remedy(
            "musl-gcc works from any directory only with an absolute prefix, as /usr/local/musl",
        ));
    }
    let relative = prefix.strip_prefix("/").unwrap_or(prefix);
    let dest = match destdir {
        Some(d) => project::absolute(d)?.join(relative),
        None => prefix.to_path_buf(),
    };
    let from = &built.byssal.prefix;
    merge(from, &dest, &|path| {
        let name = path.strip_prefix(from).unwrap_or(path);
        NAMING.iter().any(|n| Path::new(n) == name).then(|| {
            let text = project::read_text(path)?;
            Ok(text.replace(&*from.to_string_lossy(), &prefix.to_string_lossy()))
        })
    })?;
    Ok(dest)
}

/// What a file becomes when it is not copied as it is.
type Rewrite<'a> = &'a dyn Fn(&Path) -> Option<Result<String>>;

/// Copies into a directory that may hold other things. Each file is put in place by a rename, so
/// that a libc.so that is in use is never half written.
fn merge(from: &Path, to: &Path, rewrite: Rewrite) -> Result<()> {
    fs::create_dir_all(to).at("making directory", to)?;
    for entry in fs::read_dir(from).at("reading directory", from)? {
        let source = entry.at("reading directory", from)?.path();
        let dest = to.join(source.file_name().unwrap_or_default());
        if source.is_dir() {
            merge(&source, &dest, rewrite)?;
            continue;
        }
        let temp = project::temp_beside(&dest)?;
        let part = temp.path().join("part");
        let meta = fs::symlink_metadata(&source).at("reading", &source)?;
        if meta.file_type().is_symlink() {
            let target = fs::read_link(&source).at("reading link", &source)?;
            std::os::unix::fs::symlink(target, &part).at("making link", &part)?;
        } else if let Some(text) = rewrite(&source) {
            fs::write(&part, text?).at("writing", &part)?;
            fs::set_permissions(&part, meta.permissions()).at("setting the mode of", &part)?;
        } else {
            fs::copy(&source, &part).at("copying to", &part)?;
        }
        fs::rename(&part, &dest).at("renaming to", &dest)?;
    }
    Ok(())
}

/// Removes what was made; with `cache`, also what was downloaded.
///
/// # Errors
/// When something cannot be removed.
pub fn clean(project: &project::Project, cache: bool) -> Result<()> {
    let target = project.root.join("target/archive");
    let mut gone = vec![&project.out, &target];
    if cache {
        gone.push(&project.cache);
    }
    for dir in gone {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).at("removing", dir)
            }
            _ => {}
        }
    }
    Ok(())
}
