//! The main job: a musl toolchain with byssal inside, a stock one beside it, and the series.

use std::fs;
use std::path::{Path, PathBuf};

use crate::core::{self, Preset, Recipe};
use crate::error::{At, Error, Kind, Result};
use crate::musl::{self, Compiler};
use crate::pins::Pins;
use crate::project::{self, Project};
use crate::source::Source;
use crate::tree::{Malloc, Tree};
use crate::{archive, edit, needs, series};

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A version, a tarball or a tree; `None` for the default of the pins.
    pub musl: Option<String>,
    pub cc: Option<String>,
    pub jobs: Option<usize>,
    pub preset: Preset,
    /// Where the Rust workspace of the allocator is, when it is not the project itself.
    pub workspace: Option<PathBuf>,
}

impl Settings {
    /// # Errors
    /// Those of `Source::find`.
    pub fn source(&self, project: &Project) -> Result<Source> {
        let pins = Pins::read(&project.root)?;
        Source::find(project, &pins, self.musl(&pins))
    }

    /// The source's label, without getting a source that is not here.
    ///
    /// # Errors
    /// Those of `Source::label`.
    pub fn label(&self, project: &Project) -> Result<String> {
        let pins = Pins::read(&project.root)?;
        Source::label(project, &pins, self.musl(&pins))
    }

    fn musl<'a>(&'a self, pins: &'a Pins) -> &'a str {
        let given = self.musl.as_deref().filter(|m| !m.is_empty());
        given.unwrap_or(&pins.musl.default)
    }

    /// # Errors
    /// Those of `Compiler::find`.
    pub fn compiler(&self) -> Result<Compiler> {
        let compiler = Compiler::find(self.cc.as_deref(), self.jobs)?;
        // The core is made for the target of rustc.
        let target = core::host_target()?;
        let wanted: &[&str] = match target.split('-').next() {
            Some("x86_64") => &["__x86_64__", "__LP64__"],
            Some("aarch64") => &["__aarch64__", "__LP64__"],
            _ => &[],
        };
        let macros = compiler.macros()?;
        match wanted
            .iter()
            .find(|w| !macros.contains(&format!("#define {w} ")))
        {
            None => Ok(compiler),
            Some(absent) => Err(Error::new(
                Kind::Usage,
                format!(
                    "CC={} compiles for another machine than rustc, which does for {target}: \
                     it does not define {absent}",
                    compiler.cc
                ),
            )
            .remedy("take a compiler for the same machine; byssal is not built across machines")),
        }
    }

    /// How the core for `thread_offset` is made.
    pub fn recipe(&self, project: &Project, thread_offset: i64) -> Recipe {
        let workspace = self
            .workspace
            .clone()
            .unwrap_or_else(|| project.root.clone());
        Recipe {
            workspace,
            preset: self.preset,
            thread_offset,
        }
    }
}

/// The two toolchains and what they came from.
pub struct Built {
    pub source: Source,
    pub compiler: Compiler,
    pub preset: Preset,
    pub byssal: Tree,
    pub stock: Tree,
    /// The archive of the core.
    pub archive: PathBuf,
    /// The directory of the series.
    pub patches: PathBuf,
}

/// Builds what is not there yet.
///
/// # Errors
/// Those of the steps.
pub fn build(project: &Project, settings: &Settings) -> Result<Built> {
    let unused = crate::run::unused_flags();
    if !unused.is_empty() {
        let names = unused.join(", ");
        crate::progress::say(&format!("  not used, though in the environment: {names}"));
    }
    needs::programs(project, &["make", "cargo", "rustc", "ar", "objcopy"])?;
    if settings.cc.as_deref().unwrap_or_default().is_empty() {
        needs::programs(project, &["gcc"])?;
    }
    let compiler = settings.compiler()?;
    let source = settings.source(project)?;
    let byssal = Tree::prepare(project, &source, Malloc::Byssal, &compiler)?;
    let recipe = settings.recipe(project, byssal.thread_offset()?);
    let archive = byssal.place_core(project, &recipe, &compiler)?;
    let patches = project.made.join(format!("patches/musl-{}", source.label));
    publish(&byssal.series(), &archive, &source, &patches)?;
    byssal.install(project, &source, &compiler)?;
    let stock = Tree::prepare(project, &source, Malloc::Stock, &compiler)?;
    stock.install(project, &source, &compiler)?;
    Ok(Built {
        source,
        compiler,
        preset: settings.preset,
        byssal,
        stock,
        archive,
        patches,
    })
}

/// `patch`: writes the series for a source, without building anything.
///
/// # Errors
/// `Refused` when the edits do not fit.
pub fn patch(project: &Project, settings: &Settings, dest: Option<&Path>) -> Result<PathBuf> {
    let source = settings.source(project)?;
    let dest = match dest {
        Some(d) => project::absolute(d)?,
        None => project.out.join(format!("patches/musl-{}", source.label)),
    };
    let temp = project::temp_beside(&dest)?;
    let tree = source.lay(temp.path())?;
    let patches = edit::read(&project.root)?;
    let fitted = edit::fit(&project.root, &patches, &source, &tree)?;
    let made = temp.path().join("series");
    series::write(&made, &fitted)?;
    install_text(&made, &source.version)?;
    project::replace_dir(&made, &dest)?;
    Ok(dest)
}

/// `archive`: makes the archive for a source, or for a tree that is patched and configured.
///
/// # Errors
/// Those of the steps.
pub fn core_archive(
    project: &Project,
    settings: &Settings,
    tree: Option<&Path>,
    dest: Option<&Path>,
) -> Result<PathBuf> {
    needs::programs(project, &["make", "cargo", "rustc", "objcopy"])?;
    let compiler = settings.compiler()?;
    let tree = tree.map(project::absolute).transpose()?;
    let (offset, name, default) = match &tree {
        Some(dir) => {
            let log = project.log("archive");
            let offset = crate::probe::thread_offset(dir, &log)?;
            (
                offset,
                musl::archive_name(dir)?,
                dir.join("src/malloc/byssal"),
            )
        }
        None => {
            let source = settings.source(project)?;
            let tree = Tree::prepare(project, &source, Malloc::Byssal, &compiler)?;
            let default = project.out.join(format!("patches/musl-{}", source.label));
            (
                tree.thread_offset()?,
                musl::archive_name(&tree.dir)?,
                default,
            )
        }
    };
    let dest = dest.map_or_else(|| Ok(default.join(name)), project::absolute)?;
    let recipe = settings.recipe(project, offset);
    crate::progress::step("allocator core", || {
        archive::make(project, &recipe, &compiler, &dest, &project.log("archive"))
    })?;
    Ok(dest)
}

/// Lays the series, the archive and the text that says what to do with them at `dest`.
fn publish(series: &Path, archive: &Path, source: &Source, dest: &Path) -> Result<()> {
    let temp = project::temp_beside(dest)?;
    let made = temp.path().join("series");
    project::copy_tree(series, &made, &|_| false)?;
    let name = archive.file_name().unwrap_or_default();
    fs::copy(archive, made.join(name)).at("copying", archive)?;
    install_text(&made, &source.version)?;
    project::replace_dir(&made, dest)
}

fn install_text(dir: &Path, version: &str) -> Result<()> {
    let text = include_str!("install.txt").replace("@VERSION@", version);
    let path = dir.join("INSTALL");
    fs::write(&path, text).at("writing", &path)
}
