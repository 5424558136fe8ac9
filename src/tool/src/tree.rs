//! A musl tree that is laid, patched and configured, and kept so that only what changed is made.

use std::fs;
use std::path::PathBuf;

use crate::cores::Cores;
use crate::digest::{Inputs, Stamp};
use crate::error::{At, Result};
use crate::musl::{self, Compiler};
use crate::progress::step;
use crate::project::{self, Project};
use crate::source::Source;
use crate::{edit, prefix, run};

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
    /// Lays, patches and configures the tree, unless it is there with the same inputs, and puts the
    /// cores in place.
    ///
    /// # Errors
    /// `Refused` when the edits do not fit, `Step` when configure fails.
    pub fn prepare(
        project: &Project,
        source: &Source,
        malloc: Malloc,
        compiler: &Compiler,
        cores: &Cores,
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
                tree.lay(project, source, compiler, cores)
            })?;
            stamp.note(&made)?;
        }
        if malloc == Malloc::Byssal {
            cores.place(&tree.dir)?;
        }
        Ok(tree)
    }

    fn stamp(&self, project: &Project, source: &Source, compiler: &Compiler) -> Result<Stamp> {
        let mut inputs = Inputs::new()
            .text("source", &source.identity)
            .text("compiler", &compiler.identity);
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

    fn lay(
        &self,
        project: &Project,
        source: &Source,
        compiler: &Compiler,
        cores: &Cores,
    ) -> Result<()> {
        let log = self.log(project);
        run::fresh_log(&log)?;
        let temp = project::temp_beside(&self.dir)?;
        let tree = source.lay(temp.path())?;
        if self.malloc == Malloc::Byssal {
            let patches = edit::read(&project.root, false)?;
            let fitted = edit::fit(&project.root, &patches, cores, source, &tree)?;
            edit::apply(&tree, &fitted)?;
        }
        musl::configure(&tree, self.malloc.name(), compiler, &[], &log)?;
        project::replace_dir(&tree, &self.dir)
    }

    /// Makes the tree and installs it to its prefix, unless nothing changed. True when it did.
    ///
    /// # Errors
    /// `Step` when make fails.
    pub fn install(
        &self,
        project: &Project,
        source: &Source,
        compiler: &Compiler,
        cores: &Cores,
    ) -> Result<bool> {
        let core = match self.malloc {
            Malloc::Byssal => cores.identity(),
            Malloc::Stock | Malloc::Old => String::new(),
        };
        let tree = self.stamp(project, source, compiler)?;
        let inputs = Inputs::new()
            .text("tree", tree.inputs())
            .text("prefix", &self.prefix.to_string_lossy())
            .text("core", &core);
        let stamp = Stamp::new(&project.out, &self.step_name("installed"), inputs.finish());
        let made = [self.prefix.clone()];
        if stamp.holds(&made) {
            return Ok(false);
        }
        let log = self.log(project);
        step(&self.named("make and install"), || {
            let making = self.dir.join(MAKING);
            project::write_file(&making, b"")?;
            musl::make(&self.dir, &[], compiler.jobs, &log)?;
            prefix::install(&self.dir, &self.prefix, compiler.target, &log)?;
            fs::remove_file(&making).at("removing", &making)
        })?;
        stamp.note(&made)?;
        Ok(true)
    }
}
