//! The few files of a toolchain that name the directory it lies in; all others are the same
//! anywhere. musl's Makefile cannot install below a path with a space, so musl is configured for a
//! name of our own, and the name is replaced in the finished files, quoted as each kind of file
//! asks for.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Kind, Result};
use crate::target::Target;
use crate::{musl, project};

/// The prefix that musl is configured with.
pub const PLACE: &str = "/byssal-prefix";
/// Where musl's make installs to, relative to its tree: make splits no path at a space then.
const INSTALLED: &str = ".byssal-installed";

/// How a path is written in a kind of file.
type Quote = fn(&str) -> String;
/// The files, and how they quote.
const NAMING: [(&str, Quote); 4] = [
    ("bin/musl-gcc", in_shell),
    ("bin/musl-clang", in_shell),
    ("bin/ld.musl-clang", in_shell),
    ("lib/musl-gcc.specs", in_specs),
];

/// Within double quotes of a shell.
fn in_shell(path: &str) -> String {
    quoted(path, |c| "\\\"$`".contains(c))
}

/// In the specs of gcc, where a percent sign quotes itself.
fn in_specs(path: &str) -> String {
    let plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "/-_.%".contains(c);
    quoted(path, |c| !plain(c)).replace('%', "%%")
}

fn quoted(text: &str, special: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if special(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The text of the toolchain's file `name` when it moves; `None` for a file that names no place.
///
/// # Errors
/// When it cannot be read.
pub fn renamed(dir: &Path, name: &Path, from: &Path, to: &Path) -> Option<Result<String>> {
    let (_, quote) = NAMING.iter().find(|(n, _)| Path::new(n) == name)?;
    let text = project::read_text(&dir.join(name));
    let name = |p: &Path| quote(&p.to_string_lossy());
    Some(text.map(|t| t.replace(&name(from), &name(to))))
}

/// Rewrites the files of the toolchain in `dir`, which names `from`, to name `to`.
///
/// # Errors
/// When one cannot be read or written.
pub fn rename(dir: &Path, from: &Path, to: &Path) -> Result<()> {
    for (name, _) in NAMING {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        if let Some(text) = renamed(dir, Path::new(name), from, to) {
            // In place: the mode stays.
            fs::write(&path, text?).at("writing", &path)?;
        }
    }
    Ok(())
}

/// Installs a made tree, and puts what came of it at `prefix`. The wrapper of the compiler tells it
/// what the machine needs, too.
///
/// # Errors
/// `Step` when musl's make fails.
pub fn install(tree: &Path, prefix: &Path, target: &Target, log: &Path) -> Result<()> {
    let root = tree.join(INSTALLED);
    if root.exists() {
        fs::remove_dir_all(&root).at("removing", &root)?;
    }
    musl::make(tree, &["install", &format!("DESTDIR={INSTALLED}")], 1, log)?;
    let made = root.join(PLACE.trim_start_matches('/'));
    relative_loader(&made.join("lib"))?;
    rename(&made, Path::new(PLACE), prefix)?;
    if let Some(flags) = &target.flags {
        change(
            &made.join("bin/musl-gcc"),
            "\"$@\"",
            &format!("{flags} \"$@\""),
        )?;
    }
    if let Some(linked) = &target.linked {
        let more = format!("-nostdlib {linked} ");
        change(&made.join("lib/musl-gcc.specs"), "-nostdlib ", &more)?;
    }
    project::replace_dir(&made, prefix)?;
    fs::remove_dir_all(&root).at("removing", &root)
}

/// Replaces a text in a file of musl's wrapper, if there is one: a clang has another.
fn change(file: &Path, from: &str, to: &str) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let text = project::read_text(file)?;
    if !text.contains(from) {
        let what = format!("{} has no {from}", file.display());
        return Err(Error::new(Kind::Step, what)
            .remedy("musl's wrapper of gcc is another one than byssal knows"));
    }
    // In place: the mode stays.
    fs::write(file, text.replace(from, to)).at("writing", file)
}

/// The dynamic linker's link names libc.so by an absolute path; beside it the plain name does.
fn relative_loader(lib: &Path) -> Result<()> {
    for entry in fs::read_dir(lib).at("reading directory", lib)? {
        let path = entry.at("reading directory", lib)?.path();
        let is_loader = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("ld-musl-"));
        if is_loader {
            fs::remove_file(&path).at("removing", &path)?;
            std::os::unix::fs::symlink("libc.so", &path).at("making link", &path)?;
        }
    }
    Ok(())
}

/// Copies the toolchain `from`, which names itself, to `to`, at once and in place of what is there.
///
/// # Errors
/// When something cannot be read or written.
pub fn publish(from: &Path, to: &Path) -> Result<()> {
    let temp = project::temp_beside(to)?;
    let copy: PathBuf = temp.path().join("copy");
    project::copy_tree(from, &copy, &|_| false)?;
    rename(&copy, from, to)?;
    project::replace_dir(&copy, to)
}

/// A word for a recipe of make that has `path` as one word for the shell.
///
/// # Errors
/// When the path is not UTF-8.
pub fn in_recipe(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::new(Kind::Usage, format!("the path {path:?} is not UTF-8")))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")).replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_their_files() {
        let odd = "/a b/it's $x 5% \"q\" \\";
        assert_eq!(in_shell(odd), "/a b/it's \\$x 5% \\\"q\\\" \\\\");
        assert_eq!(
            in_specs(odd),
            "/a\\ b/it\\'s\\ \\$x\\ 5%%\\ \\\"q\\\"\\ \\\\"
        );
        assert_eq!(in_specs(PLACE), PLACE);
        assert_eq!(in_recipe(Path::new("/a b/$x'")).unwrap(), "'/a b/$$x'\\'''");
    }
}
