//! musl's own build: configure, make, install, and what its configuration says.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::{project, run};

/// The C compiler and how it is run.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// One word: a name in `PATH` or a path.
    pub cc: String,
    pub jobs: usize,
}

impl Compiler {
    /// Takes the compiler that was asked for, or gcc, or cc.
    ///
    /// # Errors
    /// `Usage` for a command of several words, `Missing` when it does not run.
    pub fn find(cc: Option<&str>, jobs: Option<usize>) -> Result<Self> {
        let cc = cc
            .filter(|c| !c.is_empty())
            .unwrap_or(if run::exists("gcc") { "gcc" } else { "cc" });
        if cc.split_whitespace().count() != 1 {
            return Err(Error::new(Kind::Usage, format!("CC={cc:?} is of several words, and musl-gcc could not run it"))
                .remedy("put it into a script: printf '#!/bin/sh\\nexec COMMAND \"$@\"\\n' > mycc; chmod +x mycc; CC=$PWD/mycc"));
        }
        if !run::exists(cc) {
            return Err(
                Error::new(Kind::Missing, format!("the C compiler {cc} is not there"))
                    .remedy("install gcc, or name another with CC="),
            );
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Compiler {
            cc: cc.to_owned(),
            jobs: jobs.unwrap_or(cores),
        })
    }

    /// What it says of itself; changes with its version and its configuration.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn identity(&self) -> Result<String> {
        let version = run::output(Command::new(&self.cc).arg("--version"))?;
        let machine = run::output(Command::new(&self.cc).arg("-dumpmachine"))?;
        let flags: Vec<String> = ["CFLAGS", "LDFLAGS", "CPPFLAGS", "REALGCC"]
            .iter()
            .map(|name| format!("{name}={}", env::var(name).unwrap_or_default()))
            .collect();
        Ok(format!(
            "{}\n{version}{machine}{}",
            self.cc,
            flags.join("\n")
        ))
    }

    /// The program that belongs to this compiler, such as its target's objcopy.
    ///
    /// # Errors
    /// When the compiler cannot be run.
    pub fn program(&self, name: &str) -> Result<String> {
        let path = run::output(Command::new(&self.cc).arg(format!("-print-prog-name={name}")))?;
        Ok(path.trim().to_owned())
    }
}

/// Runs configure in the tree.
///
/// # Errors
/// `Step` when configure fails.
pub fn configure(
    tree: &Path,
    prefix: &Path,
    malloc: &str,
    compiler: &Compiler,
    more: &[&str],
    log: &Path,
) -> Result<()> {
    let mut cmd = Command::new("./configure");
    cmd.current_dir(tree)
        .arg(format!("--prefix={}", prefix.display()))
        .arg(format!("--syslibdir={}", prefix.join("lib").display()))
        .arg(format!("--with-malloc={malloc}"))
        .arg(format!("CC={}", compiler.cc))
        .args(more);
    if let Some(cross) = compiler.cc.strip_suffix("-gcc") {
        cmd.arg(format!("CROSS_COMPILE={cross}-"));
    }
    run::logged(&mut cmd, log)
}

/// Runs make in the tree.
///
/// # Errors
/// `Step` when make fails.
pub fn make(tree: &Path, args: &[&str], jobs: usize, log: &Path) -> Result<()> {
    let mut cmd = Command::new("make");
    cmd.current_dir(tree).arg(format!("-j{jobs}")).args(args);
    // Variables of a make that runs this tool are not meant for musl's.
    for name in [
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEOVERRIDES",
        "PREFIX",
        "DESTDIR",
    ] {
        cmd.env_remove(name);
    }
    run::logged(&mut cmd, log)
}

/// A variable of a configured tree, from its config.mak.
///
/// # Errors
/// When the tree is not configured.
pub fn variable(tree: &Path, name: &str) -> Result<String> {
    let path = tree.join("config.mak");
    let text = project::read_text(&path)?;
    let value = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.trim_start().strip_prefix('='));
    value.map(|v| v.trim().to_owned()).ok_or_else(|| {
        Error::new(
            Kind::Step,
            format!("{} does not set {name}", path.display()),
        )
    })
}

/// The name of the core's archive in this tree: `byssal-ARCH.a`.
///
/// # Errors
/// When the tree is not configured.
pub fn archive_name(tree: &Path) -> Result<String> {
    Ok(format!(
        "byssal-{}{}.a",
        variable(tree, "ARCH")?,
        variable(tree, "SUBARCH")?
    ))
}
