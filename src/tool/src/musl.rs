//! musl's own build: configure, make, install, and what its configuration says.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Kind, Result};
use crate::prefix::PLACE;
use crate::target::Target;
use crate::{digest, project, run};

/// The C compiler and how it is run.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// One word: a name in `PATH` or an absolute path.
    pub cc: String,
    pub jobs: usize,
    pub family: Family,
    /// The machine that it compiles for.
    pub target: &'static Target,
    /// Tells it from others: see `identity`.
    pub identity: String,
}

/// Which of musl's wrappers a compiler needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Gcc,
    Clang,
}

/// Characters of a compiler's name that no shell and no make takes for its own.
const PLAIN: &str = "/-_.+,:@%=~";

impl Compiler {
    /// Takes the compiler that was asked for; or a cross compiler for the machine that was; or gcc,
    /// or cc.
    ///
    /// # Errors
    /// `Usage` for a command that musl's Makefile would not run as it is, or that is not like gcc;
    /// `Missing` when it is not there.
    pub fn find(
        cc: Option<&str>,
        target: Option<&'static Target>,
        jobs: Option<usize>,
    ) -> Result<Self> {
        let cc = &match (cc.filter(|c| !c.is_empty()), target) {
            (Some(asked), _) => asked.to_owned(),
            (None, Some(target)) if !target.is_own() => cross(target)?,
            _ => if run::exists("gcc") { "gcc" } else { "cc" }.to_owned(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || PLAIN.contains(c);
        // A name with a directory is meant from here, not from musl's tree.
        let cc = if cc.contains('/') && cc.chars().all(plain) {
            project::absolute(Path::new(cc))?.display().to_string()
        } else {
            cc.clone()
        };
        if cc.starts_with('-') || !cc.chars().all(plain) {
            return Err(Error::new(
                Kind::Usage,
                format!("CC={cc:?} is not one plain word, and neither musl's make nor its wrapper could run it"),
            )
            .remedy(
                "put it into a script in a directory without spaces, and give that: \
                 printf '#!/bin/sh\\nexec COMMAND \"$@\"\\n' > /tmp/mycc; chmod +x /tmp/mycc; make CC=/tmp/mycc",
            ));
        }
        if !run::exists(&cc) {
            return Err(
                Error::new(Kind::Missing, format!("the C compiler {cc} is not there"))
                    .remedy("install gcc or clang, or name another with CC="),
            );
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (family, target) = (Family::of(&cc)?, Target::of_compiler(&cc)?);
        Ok(Compiler {
            family,
            identity: identity(&cc, target)?,
            target,
            jobs: jobs.unwrap_or(cores),
            cc,
        })
    }

    /// The wrapper in a toolchain that compiles with this compiler.
    pub fn wrapper(&self) -> &'static str {
        match self.family {
            Family::Gcc => "bin/musl-gcc",
            Family::Clang => "bin/musl-clang",
        }
    }

    /// The macros that it defines by itself, as text.
    ///
    /// # Errors
    /// When it cannot be run, or is no compiler.
    pub fn macros(&self) -> Result<String> {
        macros(&self.cc)
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

/// What a compiler says of itself, the file that is run, and what is asked of it for its machine:
/// changes with its version and configuration, with the text of a script, and with the flags of
/// targets.toml. A script that runs another compiler has that one's version.
fn identity(cc: &str, target: &Target) -> Result<String> {
    let version = run::output(Command::new(cc).arg("--version"))?;
    let machine = run::output(Command::new(cc).arg("-dumpmachine"))?;
    // Whoever may run it and not read it has its version.
    let file = run::found(cc).and_then(|path| digest::file(&path).ok());
    let file = file.unwrap_or_default();
    Ok(format!("{cc}\n{file}\n{version}{machine}{target:?}"))
}

/// A cross compiler for a machine: under its own name, or under those of the distribution's.
fn cross(target: &Target) -> Result<String> {
    let triples = std::iter::once(&target.name).chain(&target.compilers);
    let names: Vec<String> = triples.map(|t| format!("{t}-gcc")).collect();
    names
        .iter()
        .find(|n| run::exists(n))
        .cloned()
        .ok_or_else(|| {
            let package = target.compilers.first().map(|t| t.replace('_', "-"));
            let debian = package.map_or(String::new(), |p| {
                format!("install one (Debian: apt-get install gcc-{p}), or ")
            });
            Error::new(
                Kind::Missing,
                format!(
                    "no compiler for {} is there: none of {}",
                    target.name,
                    names.join(", ")
                ),
            )
            .remedy(format!("{debian}name one with CC= or CROSS_COMPILE="))
        })
}

impl Family {
    fn of(cc: &str) -> Result<Self> {
        let unlike = |why: &str| {
            Error::new(
                Kind::Usage,
                format!("CC={cc} is neither gcc nor clang: {why}"),
            )
            .remedy("leave CC out for gcc, or give the name or path of a gcc or a clang")
        };
        let macros = macros(cc).map_err(|e| unlike(&e.what))?;
        if macros.contains("#define __clang__ ") {
            Ok(Family::Clang)
        } else if macros.contains("#define __GNUC__ ") {
            Ok(Family::Gcc)
        } else {
            Err(unlike("it does not define __GNUC__"))
        }
    }
}

fn macros(cc: &str) -> Result<String> {
    run::output(Command::new(cc).args(["-dM", "-E", "-x", "c", "/dev/null"]))
}

/// Runs configure in the tree, for the prefix that `prefix::install` replaces.
///
/// # Errors
/// `Step` when configure fails.
pub fn configure(
    tree: &Path,
    malloc: &str,
    compiler: &Compiler,
    more: &[&str],
    log: &Path,
) -> Result<()> {
    let mut cmd = Command::new("./configure");
    cmd.current_dir(tree)
        .arg(format!("--prefix={PLACE}"))
        .arg(format!("--syslibdir={PLACE}/lib"))
        .arg(format!("--with-malloc={malloc}"))
        .arg(format!("CC={}", compiler.cc))
        .arg(match compiler.family {
            Family::Gcc => "--enable-wrapper=gcc",
            // The wrapper of a gcc that is there serves with a libc by clang, too.
            Family::Clang if run::exists("gcc") => "--enable-wrapper=all",
            Family::Clang => "--enable-wrapper=clang",
        })
        .args(more);
    if let Some(flags) = &compiler.target.flags {
        cmd.arg(format!("CFLAGS={flags}"));
    }
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
