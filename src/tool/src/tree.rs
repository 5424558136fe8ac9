//! A musl tree that is laid, patched and configured, and kept so that only what changed is made.

use std::fs;
use std::path::PathBuf;

use crate::core::Recipe;
use crate::digest::{Inputs, Stamp};
use crate::error::{At, Error, Kind, Result};
use crate::musl::{self, Compiler};
use crate::progress::step;
use crate::project::{self, Project};
use crate::source::Source;
use crate::{archive, edit, prefix, probe, run, series};

/// File of a kept tree that holds the thread offset which the compiler told.
const OFFSET: &str = ".byssal-thread-offset";
/// Directory of a kept tree that holds the series which made it.
const SERIES: &str = ".byssal-series";

/// File of a kept tree that is there while make works in it: a killed make may have left an object
/// that is not whole.
const MAKING: &str = ".byssal-making";

/// Which malloc a tree has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malloc {
    Byssal,
    Stock,
    /// musl's older one, to compare with.
    Old,
}

impl Malloc {
    fn name(self) -> &'static str {
        match self {
            Malloc::Byssal => "byssal",
            Malloc::Stock => "mallocng",
            Malloc::Old => "oldmalloc",
        }
    }

    /// Where the toolchain with this malloc is made.
    pub fn prefix(self, project: &Project, label: &str) -> PathBuf {
        match self {
            Malloc::Byssal => project.made.join(format!("musl-{label}")),
            Malloc::Stock => project.made.join(format!("stock/musl-{label}")),
            Malloc::Old => project.made.join(format!("oldmalloc/musl-{label}")),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Malloc::Byssal => "byssal",
            Malloc::Stock => "stock",
            Malloc::Old => "oldmalloc",
        }
    }
}

/// A configured tree under `out/build`, and the prefix that it will be installed to.
#[derive(Clone, Debug)]
pub struct Tree {
    pub dir: PathBuf,
    pub prefix: PathBuf,
    pub malloc: Malloc,
    pub label: String,
}

impl Tree {
    /// Lays, patches and configures the tree, unless it is there with the same inputs.
    ///
    /// # Errors
    /// `Refused` when the edits do not fit, `Step` when configure fails.
    pub fn prepare(
        project: &Project,
        source: &Source,
        malloc: Malloc,
        compiler: &Compiler,
    ) -> Result<Self> {
        let label = &source.label;
        let prefix = malloc.prefix(project, label);
        let dir = project
            .out
            .join(format!("build/musl-{label}-{}", malloc.what()));
        let tree = Tree {
            dir,
            prefix,
            malloc,
            label: label.clone(),
        };
        let stamp = tree.stamp(project, source, compiler)?;
        let made = [tree.dir.join("config.mak")];
        if !stamp.holds(&made) || tree.dir.join(MAKING).exists() {
            step(&tree.named("patch and configure"), || {
                tree.lay(project, source, compiler)
            })?;
            stamp.note(&made)?;
        }
        Ok(tree)
    }

    fn stamp(&self, project: &Project, source: &Source, compiler: &Compiler) -> Result<Stamp> {
        let mut inputs = Inputs::new()
            .text("source", &source.identity)
            .text("compiler", &compiler.identity()?);
        if self.malloc == Malloc::Byssal {
            inputs = inputs
                .tree(&project.root, "patches")?
                .tree(&project.root, "musl-glue")?;
        }
        Ok(Stamp::new(
            &project.out,
            &self.step_name("tree"),
            inputs.finish(),
        ))
    }

    fn named(&self, what: &str) -> String {
        format!("musl {} ({}): {what}", self.label, self.malloc.what())
    }

    fn step_name(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.label, self.malloc.what())
    }

    pub fn log(&self, project: &Project) -> PathBuf {
        project.log(&format!("musl-{}-{}", self.label, self.malloc.what()))
    }

    fn lay(&self, project: &Project, source: &Source, compiler: &Compiler) -> Result<()> {
        let log = self.log(project);
        run::fresh_log(&log)?;
        let temp = project::temp_beside(&self.dir)?;
        let tree = source.lay(temp.path())?;
        if self.malloc == Malloc::Byssal {
            let patches = edit::read(&project.root)?;
            let fitted = edit::fit(&project.root, &patches, source, &tree)?;
            edit::apply(&tree, &fitted)?;
            series::write(&tree.join(SERIES), &fitted)?;
        }
        musl::configure(&tree, self.malloc.name(), compiler, &[], &log)?;
        if self.malloc == Malloc::Byssal {
            let offset = probe::thread_offset(&tree, &log)?;
            project::write_file(&tree.join(OFFSET), offset.to_string().as_bytes())?;
        }
        project::replace_dir(&tree, &self.dir)
    }

    /// Bytes from the thread pointer to the heap field in this tree.
    ///
    /// # Errors
    /// When the tree is not a prepared one with byssal.
    pub fn thread_offset(&self) -> Result<i64> {
        let path = self.dir.join(OFFSET);
        let text = project::read_text(&path)?;
        text.trim()
            .parse()
            .map_err(|e| Error::new(Kind::System, format!("{}: {e}", path.display())))
    }

    /// The directory of the series that made this tree.
    pub fn series(&self) -> PathBuf {
        self.dir.join(SERIES)
    }

    /// Where this tree expects the archive of the core.
    ///
    /// # Errors
    /// When the tree is not configured.
    pub fn archive(&self) -> Result<PathBuf> {
        Ok(self
            .dir
            .join("src/malloc/byssal")
            .join(musl::archive_name(&self.dir)?))
    }

    /// Builds the core for this tree and puts it in place, unless it is there already.
    /// Gives its path.
    ///
    /// # Errors
    /// `Step` when the build fails.
    pub fn place_core(
        &self,
        project: &Project,
        recipe: &Recipe,
        compiler: &Compiler,
    ) -> Result<PathBuf> {
        let dest = self.archive()?;
        let inputs = Inputs::new()
            .text("core", &recipe.identity()?)
            .text("header", &archive::header(recipe))
            .text("compiler", &compiler.identity()?)
            .tree(&project.root, "musl-glue")?;
        let stamp = Stamp::new(&project.out, &self.step_name("core"), inputs.finish());
        let made = [dest.clone()];
        if stamp.holds(&made) {
            return Ok(dest);
        }
        let log = project.log("archive");
        run::fresh_log(&log)?;
        let what = format!(
            "allocator core, preset {}, thread offset {}",
            recipe.preset.name(),
            recipe.thread_offset
        );
        step(&what, || {
            archive::make(project, recipe, compiler, &dest, &log)
        })?;
        stamp.note(&made)?;
        Ok(dest)
    }

    /// Makes the tree and installs it to its prefix, unless nothing changed. True when it did.
    ///
    /// # Errors
    /// `Step` when make fails.
    pub fn install(&self, project: &Project, source: &Source, compiler: &Compiler) -> Result<bool> {
        let core = match self.malloc {
            Malloc::Byssal => crate::digest::file(&self.archive()?)?,
            Malloc::Stock | Malloc::Old => String::new(),
        };
        let tree = self.stamp(project, source, compiler)?;
        let inputs = Inputs::new()
            .text("tree", tree.inputs())
            .text("prefix", &self.prefix.to_string_lossy())
            .text("core", &core);
        let stamp = Stamp::new(&project.out, &self.step_name("installed"), inputs.finish());
        let made = ["lib/libc.a", "lib/libc.so", compiler.wrapper()].map(|f| self.prefix.join(f));
        if stamp.holds(&made) {
            return Ok(false);
        }
        let log = self.log(project);
        step(&self.named("make and install"), || {
            let making = self.dir.join(MAKING);
            project::write_file(&making, b"")?;
            musl::make(&self.dir, &[], compiler.jobs, &log)?;
            prefix::install(&self.dir, &self.prefix, &log)?;
            fs::remove_file(&making).at("removing", &making)
        })?;
        stamp.note(&made)?;
        Ok(true)
    }
}
