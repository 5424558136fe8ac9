//! What is handed out to those who build musl: text, for all machines at once, and the same bytes
//! whoever makes it with the same rustc.
//!
//! ```text
//! byssal-VERSION-musl-1.2.6.patch     the series of the preset that was asked for, as one patch
//! byssal-VERSION-musl-1.2.6.tar.gz    default/, hardened/ (a series and INSTALL each), MANIFEST
//! SHA256SUMS                          of both
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

use crate::build::{self, Settings};
use crate::core::{self, Preset};
use crate::error::{At, Result};
use crate::project::{self, Project};
use crate::target::{Target, TARGETS};
use crate::{digest, needs};

/// Makes the files in `dest`, for the target that was asked for or for all. The archive has both
/// presets, the one patch that of the settings. With `default`, musl's configure takes byssal
/// without being told. Gives their paths.
///
/// # Errors
/// `Refused` when the edits do not fit, before anything is compiled; those of the steps; a core that
/// cannot be made for one machine stops all.
pub fn make(
    project: &Project,
    settings: &Settings,
    default: bool,
    dest: Option<&Path>,
) -> Result<Vec<PathBuf>> {
    needs::programs(project, &["cargo", "rustc"])?;
    let dest = project.dest(dest, "dist".as_ref())?;
    let targets: Vec<&'static Target> = match settings.target()? {
        Some(target) => vec![target],
        None => TARGETS.iter().collect(),
    };
    let source = settings.source(project)?;
    project::check_apart(source.path(), "--dest", &dest)?;
    build::try_edits(project, &source)?;
    let name = name(&source.label);
    let temp = project::temp_beside(&dest)?;
    let (made, tree) = (temp.path().join("made"), temp.path().join(&name));
    fs::create_dir_all(&made).at("making directory", &made)?;
    for preset in [Preset::Default, Preset::Hardened] {
        let settings = Settings {
            preset,
            ..settings.clone()
        };
        let cores = settings.cores(project, &targets)?;
        let dir = tree.join(preset.name());
        build::write_series(project, &cores, &source, default, &dir)?;
    }
    let manifest = manifest(&tree, &files(&tree)?, &targets)?;
    project::write_file(&tree.join("MANIFEST"), manifest.as_bytes())?;
    let one = made.join(format!("{name}.patch"));
    let series = tree.join(settings.preset.name());
    project::write_file(&one, whole(&series)?.as_bytes())?;
    let archive = made.join(format!("{name}.tar.gz"));
    pack(&tree, &name, &archive)?;
    let mut sums = String::new();
    for file in [&one, &archive] {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        sums += &format!("{}  {name}\n", digest::file(file)?);
    }
    project::write_file(&made.join("SHA256SUMS"), sums.as_bytes())?;
    project::replace_dir(&made, &dest)?;
    let files = files(&dest)?.into_iter().map(|f| dest.join(f)).collect();
    project.mark(&dest)?;
    Ok(files)
}

/// What the files for a musl of that label are called, without their endings.
#[must_use]
pub fn name(musl: &str) -> String {
    format!("byssal-{}-musl-{musl}", env!("CARGO_PKG_VERSION"))
}

/// All files below a directory, by their paths there.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    project::files(dir, &|_| true)
}

/// What is in the archive, and what it was made by: lines that begin with `#`, and the sums.
fn manifest(tree: &Path, files: &[PathBuf], targets: &[&Target]) -> Result<String> {
    let names: Vec<&str> = targets.iter().map(|t| &*t.name).collect();
    let mut text = format!(
        "# byssal {}, compiled by {}\n# for {}\n",
        env!("CARGO_PKG_VERSION"),
        core::rustc_version()?,
        names.join(", ")
    );
    for file in files {
        let sum = digest::file(&tree.join(file))?;
        text += &format!("{sum}  {}\n", file.display());
    }
    Ok(text)
}

/// The patches of a series one behind the other, as `git am` and `patch -p1` take them.
fn whole(series: &Path) -> Result<String> {
    let names = files(series)?.into_iter();
    let patches = names.filter(|n| n.extension().is_some_and(|e| e == "patch"));
    patches
        .map(|name| project::read_text(&series.join(name)))
        .collect()
}

/// An archive of the tree, of files of nobody that were made at no time.
fn pack(tree: &Path, name: &str, dest: &Path) -> Result<()> {
    let file = File::create(dest).at("writing", dest)?;
    let gz = GzBuilder::new().mtime(0).write(file, Compression::best());
    let mut tar = tar::Builder::new(gz);
    for path in files(tree)? {
        let data = fs::read(tree.join(&path)).at("reading", &path)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        let inside = Path::new(name).join(&path);
        tar.append_data(&mut header, &inside, &*data)
            .at("packing", &path)?;
    }
    let gz = tar.into_inner().at("packing", dest)?;
    gz.finish().at("packing", dest).map(drop)
}
