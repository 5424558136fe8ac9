//! Our edits to musl, as data: `patches/NNNN-*.toml`, one concern a file.
//!
//! An edit names one line of a file by an anchor, a piece of text that must occur in exactly one
//! line. Nothing is written before every edit of every patch has found its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cores::Cores;
use crate::error::{At, Error, Kind, Result};
use crate::project;
use crate::source::Source;

/// One concern: what is changed, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// The name of its file without `.toml`, such as `0001-thread-field`.
    #[serde(skip)]
    pub name: String,
    pub subject: String,
    pub body: String,
    /// Whether it is made only if it is asked for.
    #[serde(default)]
    pub optional: bool,
    /// Releases of musl that it is made for.
    pub versions: Vec<String>,
    #[serde(default)]
    pub edit: Vec<Edit>,
    #[serde(default)]
    pub add: Vec<Add>,
}

/// Text put before, after or in place of the line with the anchor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub file: String,
    pub anchor: String,
    pub place: Place,
    /// Whole lines.
    pub text: String,
    /// What no line may contain: whoever wrote it has plumbed in another allocator.
    pub absent: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Before,
    After,
    Replace,
}

/// A new file: a copy of one of ours, relative to the project, or made of the cores.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Add {
    Copy { file: String, from: PathBuf },
    Make { file: String, made: Made },
}

/// What is made of the cores: of `Core` a file for each architecture, whose path has its name in
/// place of ARCH.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    Header,
    Core,
}

impl Add {
    /// The files, with their content.
    fn files(&self, root: &Path, cores: &Cores) -> Result<Vec<(String, String)>> {
        Ok(match self {
            Add::Copy { file, from } => {
                vec![(file.clone(), project::read_text(&root.join(from))?)]
            }
            Add::Make { file, made } => match made {
                Made::Header => vec![(file.clone(), cores.header())],
                Made::Core => {
                    let files = cores.files().into_iter();
                    let named = |(arch, text)| (file.replace("ARCH", arch), text);
                    files.map(named).collect()
                }
            },
        })
    }
}

/// What a patch does to one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Relative to the tree.
    pub file: String,
    /// `None` for a new file.
    pub before: Option<String>,
    pub after: String,
}

/// A patch that has found its place.
pub struct Fitted<'a> {
    pub patch: &'a Patch,
    pub changes: Vec<Change>,
}

/// Reads the patches of the project, in order of their names, with the optional ones or without.
///
/// # Errors
/// When one is not well formed.
pub fn read(root: &Path, optional: bool) -> Result<Vec<Patch>> {
    let dir = root.join("patches");
    let mut patches = Vec::new();
    for entry in fs::read_dir(&dir).at("reading directory", &dir)? {
        let path = entry.at("reading directory", &dir)?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let numbered = name.len() > 5 && name.as_bytes()[..4].iter().all(u8::is_ascii_digit);
        if !numbered || path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = project::read_text(&path)?;
        let parsed: std::result::Result<Patch, _> = toml::from_str(&text);
        let mut patch =
            parsed.map_err(|e| Error::new(Kind::System, format!("{}: {e}", path.display())))?;
        patch.name = name;
        patches.push(patch);
    }
    patches.retain(|patch| optional || !patch.optional);
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(patches)
}

/// Finds the place of every edit that is made for `source` in `tree`. Writes nothing.
///
/// # Errors
/// `Refused` when an anchor is not in exactly one line, a file is missing, or one of ours is
/// there already.
pub fn fit<'a>(
    root: &Path,
    patches: &'a [Patch],
    cores: &Cores,
    source: &Source,
    tree: &Path,
) -> Result<Vec<Fitted<'a>>> {
    let newest = patches
        .iter()
        .flat_map(|p| &p.versions)
        .max()
        .cloned()
        .unwrap_or_default();
    let known = patches.iter().any(|p| p.versions.contains(&source.version));
    let version = if known { &source.version } else { &newest };
    let mut state = State {
        source,
        tree,
        files: BTreeMap::new(),
    };
    let mut fitted = Vec::new();
    for patch in patches.iter().filter(|p| p.versions.contains(version)) {
        let changes = fit_one(root, patch, cores, &mut state)?;
        fitted.push(Fitted { patch, changes });
    }
    Ok(fitted)
}

/// Writes what the patches do to `tree`.
///
/// # Errors
/// When a file cannot be written.
pub fn apply(tree: &Path, fitted: &[Fitted]) -> Result<()> {
    for change in fitted.iter().flat_map(|f| &f.changes) {
        let path = tree.join(&change.file);
        let parent = path.parent().unwrap_or(tree);
        fs::create_dir_all(parent).at("making directory", parent)?;
        fs::write(&path, &change.after).at("writing", &path)?;
    }
    Ok(())
}

/// The files of a tree as the patches so far have left them.
struct State<'a> {
    source: &'a Source,
    /// The copy of it that is being patched.
    tree: &'a Path,
    files: BTreeMap<String, String>,
}

impl State<'_> {
    fn text(&self, file: &str) -> Result<String> {
        if let Some(text) = self.files.get(file) {
            return Ok(text.clone());
        }
        let path = self.place(file)?;
        fs::read_to_string(path).map_err(|e| {
            Error::new(Kind::Refused, format!("{}: {e}", self.source.named(file)))
                .remedy("this is no musl tree that the edits were made for; take a pinned release")
        })
    }

    /// The file in the copy, which may have links: what they lead to is not ours to write to.
    fn place(&self, file: &str) -> Result<PathBuf> {
        let path = self.tree.join(file);
        if project::resolved(&path)?.starts_with(project::resolved(self.tree)?) {
            return Ok(path);
        }
        let what = format!("{}: a link leads out of the tree", self.source.named(file));
        Err(Error::new(Kind::Refused, what)
            .remedy("give a copy in which there are files in place of links: cp -rL"))
    }
}

fn fit_one(root: &Path, patch: &Patch, cores: &Cores, state: &mut State) -> Result<Vec<Change>> {
    let mut before: Vec<(String, Option<String>)> = Vec::new();
    for edit in &patch.edit {
        let text = state.text(&edit.file)?;
        let after = edited(&text, edit).map_err(|why| {
            let file = state.source.named(&edit.file);
            Error::new(Kind::Refused, format!("{file}: {why} (patches/{}.toml)", patch.name)).remedy(
                "the tree is not the one this edit was made for, or is patched already: take the pristine release",
            )
        })?;
        if !before.iter().any(|(file, _)| *file == edit.file) {
            before.push((edit.file.clone(), Some(text)));
        }
        state.files.insert(edit.file.clone(), after);
    }
    for add in &patch.add {
        for (file, text) in add.files(root, cores)? {
            if state.place(&file)?.exists() || state.files.contains_key(&file) {
                return Err(Error::new(
                    Kind::Refused,
                    format!("{} is there already", state.source.named(&file)),
                )
                .remedy("the tree is patched already: take the pristine release"));
            }
            before.push((file.clone(), None));
            state.files.insert(file, text);
        }
    }
    let changes = before.into_iter().map(|(file, before)| {
        let after = state.files[&file].clone();
        Change {
            file,
            before,
            after,
        }
    });
    Ok(changes.collect())
}

/// The text after the edit, or why it has no place.
fn edited(text: &str, edit: &Edit) -> std::result::Result<String, String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let foreign = |line: &&str| edit.absent.as_ref().is_some_and(|a| line.contains(a));
    if let Some(at) = lines.iter().position(foreign) {
        return Err(format!(
            "line {} is not musl's own: {:?}; another allocator is in this tree, or byssal already",
            at + 1,
            lines[at].trim()
        ));
    }
    let hits: Vec<usize> = (0..lines.len())
        .filter(|&i| lines[i].contains(&edit.anchor))
        .collect();
    let [at] = hits[..] else {
        let numbers: Vec<String> = hits.iter().map(|i| (i + 1).to_string()).collect();
        return Err(match hits.len() {
            0 => format!("no line contains {:?}", edit.anchor),
            n => format!(
                "{n} lines contain {:?}: {}; there must be one",
                edit.anchor,
                numbers.join(", ")
            ),
        });
    };
    let (head, tail) = match edit.place {
        Place::Before => (at, at),
        Place::After => (at + 1, at + 1),
        Place::Replace => (at, at + 1),
    };
    Ok([
        &lines[..head].concat(),
        edit.text.as_str(),
        &lines[tail..].concat(),
    ]
    .concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(anchor: &str, place: Place) -> Edit {
        Edit {
            file: "f".into(),
            anchor: anchor.into(),
            place,
            text: "new\n".into(),
            absent: None,
        }
    }

    #[test]
    fn what_must_be_absent_is_told_with_its_line() {
        let edit = Edit {
            absent: Some("malloc".into()),
            ..edit("one", Place::After)
        };
        assert!(edited("one\ntwo\n", &edit).is_ok());
        let why = edited("one\nvoid *malloc_tls;\n", &edit).unwrap_err();
        assert!(
            why.contains("line 2") && why.contains("malloc_tls"),
            "{why}"
        );
    }

    #[test]
    fn text_goes_before_after_or_in_place_of_the_anchor() {
        let text = "one\ntwo\nthree";
        assert_eq!(
            edited(text, &edit("wo", Place::Before)).unwrap(),
            "one\nnew\ntwo\nthree"
        );
        assert_eq!(
            edited(text, &edit("wo", Place::After)).unwrap(),
            "one\ntwo\nnew\nthree"
        );
        assert_eq!(
            edited(text, &edit("wo", Place::Replace)).unwrap(),
            "one\nnew\nthree"
        );
    }

    #[test]
    fn an_anchor_must_be_in_exactly_one_line() {
        let twice = edited("ab\nxb\nb\n", &edit("b", Place::After)).unwrap_err();
        assert!(
            twice.contains("3 lines") && twice.contains("1, 2, 3"),
            "{twice}"
        );
        let never = edited("ab\n", &edit("z", Place::After)).unwrap_err();
        assert!(never.contains("no line contains"), "{never}");
    }
}
