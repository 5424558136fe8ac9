//! The main job: a musl toolchain with byssal inside, a stock one beside it, and the series.

use std::fs;
use std::path::{Path, PathBuf};

use crate::core::{Preset, Recipe};
use crate::cores::Cores;
use crate::digest::{Inputs, Stamp};
use crate::error::{At, Error, Kind, Result};
use crate::musl::Compiler;
use crate::pins::Pins;
use crate::project::{self, Project};
use crate::source::Source;
use crate::target::Target;
use crate::tree::{Malloc, Tree};
use crate::{edit, needs, series};

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A version, a tarball or a tree; `None` for the default of the pins.
    pub musl: Option<String>,
    pub cc: Option<String>,
    /// A triple of the machine to build for; `None` for that of the compiler.
    pub target: Option<String>,
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

    /// The label of results, without getting a source that is not here.
    ///
    /// # Errors
    /// Those of `Source::label` and of `compiler`.
    pub fn label(&self, project: &Project) -> Result<String> {
        let pins = Pins::read(&project.root)?;
        let label = Source::label(project, &pins, self.musl(&pins))?;
        Ok(label + &self.machine()?.suffix())
    }

    /// The machine that it is built for: the one that was asked for, or that of the compiler that
    /// was, or this one.
    ///
    /// # Errors
    /// Those of `target` and of `compiler`.
    pub fn machine(&self) -> Result<&'static Target> {
        match (self.target()?, self.cc.as_deref().unwrap_or_default()) {
            (Some(target), _) => Ok(target),
            (None, "") => Target::named(std::env::consts::ARCH),
            (None, _) => Ok(self.compiler()?.target),
        }
    }

    fn musl<'a>(&'a self, pins: &'a Pins) -> &'a str {
        let given = self.musl.as_deref().filter(|m| !m.is_empty());
        given.unwrap_or(&pins.musl.default)
    }

    /// # Errors
    /// Those of `Compiler::find`, or `Usage` when it compiles for another target than was asked for.
    pub fn compiler(&self) -> Result<Compiler> {
        let compiler = Compiler::find(self.cc.as_deref(), self.target()?, self.jobs)?;
        match self.target()? {
            Some(target) if target != compiler.target => Err(Error::new(
                Kind::Usage,
                format!(
                    "CC={} compiles for {}, not for TARGET={}",
                    compiler.cc, compiler.target.name, target.name
                ),
            )
            .remedy("leave one of them out, or name a compiler for that target")),
            _ => Ok(compiler),
        }
    }

    /// The machine that was asked for by name.
    ///
    /// # Errors
    /// Those of `Target::named`.
    pub fn target(&self) -> Result<Option<&'static Target>> {
        let given = self.target.as_deref().filter(|t| !t.is_empty());
        given.map(Target::named).transpose()
    }

    /// The cores for some machines.
    ///
    /// # Errors
    /// Those of `Recipe::make`.
    pub fn cores(&self, project: &Project, targets: &[&'static Target]) -> Result<Cores> {
        let made = targets.iter().map(|target| {
            let recipe = Recipe {
                workspace: self.workspace(project),
                preset: self.preset,
                target,
            };
            recipe.make(project)
        });
        Ok(Cores::new(self.preset, made.collect::<Result<_>>()?))
    }

    /// The directory of the Rust workspace that has the allocator.
    pub fn workspace(&self, project: &Project) -> PathBuf {
        self.workspace
            .clone()
            .unwrap_or_else(|| project.root.clone())
    }
}

/// The two toolchains and what they came from.
pub struct Built {
    pub source: Source,
    pub compiler: Compiler,
    pub preset: Preset,
    pub byssal: Tree,
    pub stock: Tree,
    pub cores: Cores,
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
        crate::progress::tell(&format!("  not used, though in the environment: {names}"));
    }
    needs::programs(project, &["make", "cargo", "rustc"])?;
    let compiler = settings.compiler()?;
    needs::binutils(project, &compiler)?;
    let source = settings.source(project)?;
    try_edits(project, &source)?;
    let source = source.labelled(compiler.target);
    let cores = settings.cores(project, &[compiler.target])?;
    let byssal = Tree::prepare(project, &source, Malloc::Byssal, &compiler, &cores)?;
    let patches = project.made.join(format!("patches/musl-{}", source.label));
    publish(project, &cores, &source, &patches)?;
    byssal.install(project, &source, &compiler, &cores)?;
    let stock = Tree::prepare(project, &source, Malloc::Stock, &compiler, &cores)?;
    stock.install(project, &source, &compiler, &cores)?;
    Ok(Built {
        source,
        compiler,
        preset: settings.preset,
        byssal,
        stock,
        cores,
        patches,
    })
}

/// `patch`: writes the series for a source and for some machines, without building libc.
///
/// # Errors
/// `Refused` when the edits do not fit.
pub fn patch(
    project: &Project,
    settings: &Settings,
    default: bool,
    dest: Option<&Path>,
) -> Result<PathBuf> {
    needs::programs(project, &["cargo", "rustc"])?;
    let target = settings.machine()?;
    let source = settings.source(project)?;
    try_edits(project, &source)?;
    let source = source.labelled(target);
    let usual = format!("patches/musl-{}", source.label);
    let dest = project.dest(dest, usual.as_ref())?;
    project::check_apart(source.path(), "--dest", &dest)?;
    let cores = settings.cores(project, &[target])?;
    write_series(project, &cores, &source, default, &dest)?;
    project.mark(&dest)?;
    Ok(dest)
}

/// Fits the edits to a tree that is no pinned release, before anything is compiled for it.
///
/// # Errors
/// `Refused` when they do not fit.
pub fn try_edits(project: &Project, source: &Source) -> Result<()> {
    if source.is_pinned() {
        return Ok(());
    }
    let temp = project.scratch()?;
    let tree = source.lay(temp.path())?;
    let patches = edit::read(&project.root, false)?;
    edit::fit(&project.root, &patches, &Cores::none(), source, &tree).map(drop)
}

/// Writes the series at `dest`, unless it is there with the same inputs.
fn publish(project: &Project, cores: &Cores, source: &Source, dest: &Path) -> Result<()> {
    let inputs = Inputs::new()
        .text("source", &source.identity)
        .text("cores", &cores.identity())
        .text("tool", env!("CARGO_PKG_VERSION"))
        .tree(&project.root, "patches")?
        .tree(&project.root, "musl-glue")?
        .tree(&project.root, "src/tool/src/series.rs")?
        .tree(&project.root, "src/tool/src/install.txt")?;
    let name = format!("series-{}", source.label);
    let stamp = Stamp::new(&project.out, &name, inputs.finish());
    let made = [dest.to_path_buf()];
    if stamp.holds(&made) {
        return Ok(());
    }
    write_series(project, cores, source, false, dest)?;
    stamp.note(&made)
}

/// Fits the edits to the source, and writes them as patches, with a text on what to do with them.
/// With `default`, configure takes byssal without being told.
///
/// # Errors
/// `Refused` when they do not fit.
pub fn write_series(
    project: &Project,
    cores: &Cores,
    source: &Source,
    default: bool,
    dest: &Path,
) -> Result<()> {
    let temp = project::temp_beside(dest)?;
    let tree = source.lay(temp.path())?;
    let patches = edit::read(&project.root, default)?;
    let fitted = edit::fit(&project.root, &patches, cores, source, &tree)?;
    let made = temp.path().join("series");
    series::write(&made, &fitted)?;
    install_text(&made, &source.version, default)?;
    project::replace_dir(&made, dest)
}

fn install_text(dir: &Path, version: &str, default: bool) -> Result<()> {
    let chosen = if default {
        "configure takes byssal by itself; with --with-malloc=mallocng it takes musl's own malloc."
    } else {
        "Without --with-malloc=byssal the patched tree builds musl as it was."
    };
    let text = include_str!("install.txt")
        .replace("@VERSION@", version)
        .replace("@DEFAULT@", chosen);
    let path = dir.join("INSTALL");
    fs::write(&path, text).at("writing", &path)
}
