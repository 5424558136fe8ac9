//! What is run: the C programs of `programs.toml`, and the interface of the real ones.

use std::path::{Path, PathBuf};

use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::project::{self, Project};
use serde::{Deserialize, Serialize};

/// How long a run may take in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    Quick,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgramKind {
    Synthetic,
    /// Run once for each number of threads, which is its last argument.
    Scaling,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    pub quick: Vec<String>,
    pub full: Vec<String>,
}

impl Arguments {
    pub fn of(&self, size: Size) -> &[String] {
        match size {
            Size::Quick => &self.quick,
            Size::Full => &self.full,
        }
    }
}

/// A C program of ours.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub name: String,
    pub pattern: String,
    pub sources: Vec<String>,
    #[serde(default)]
    pub libs: Vec<String>,
    pub args: Arguments,
    pub threads: u32,
    pub kind: ProgramKind,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    #[serde(default)]
    program: Vec<Program>,
}

/// Reads `tests/bench/programs.toml`.
///
/// # Errors
/// When it cannot be read, or a program in it is not as it must be.
pub fn read(project: &Project) -> Result<Vec<Program>> {
    let path = project.root.join("tests/bench/programs.toml");
    parse(&project::read_text(&path)?).at("reading", &path)
}

fn parse(text: &str) -> std::result::Result<Vec<Program>, String> {
    let catalogue: Catalogue = toml::from_str(text).map_err(|e| e.to_string())?;
    let mut names: Vec<&str> = catalogue.program.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two programs are named {}", twice[0]));
    }
    match catalogue.program.iter().find(|p| p.sources.is_empty()) {
        Some(p) => Err(format!("{} has no sources", p.name)),
        None => Ok(catalogue.program),
    }
}

/// What a program is built with.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The host's compiler and libc; the allocator comes by LD_PRELOAD. Built once for all.
    Host { cc: &'a Path },
    /// A musl toolchain, linked with -static: `cc` is its musl-gcc, one word. Built once for each.
    Musl { cc: &'a Path },
}

impl Target<'_> {
    pub fn cc(&self) -> &Path {
        match self {
            Target::Host { cc } | Target::Musl { cc } => cc,
        }
    }

    /// The flag for the linker.
    pub fn link_flag(&self) -> Option<&'static str> {
        matches!(self, Target::Musl { .. }).then_some("-static")
    }
}

/// One run of a program: what to start. The harness adds LD_PRELOAD, counts and times.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Set in addition to the harness's own environment.
    pub env: Vec<(String, String)>,
    /// What standard input reads; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// Where it runs; an empty directory of its own if absent, made anew for each run.
    pub directory: Option<PathBuf>,
    pub check: Check,
}

/// How the output of a run is judged.
#[derive(Clone, Debug, Default)]
pub enum Check {
    /// Standard output, but for lines that begin with `ops=`, is the same under every allocator.
    #[default]
    SameOutput,
    /// Standard output has this line.
    Line(String),
    /// Standard output has this SHA-256 (in hex).
    Sha256(String),
}

/// A real program could be built, or why not: that row is then "skipped: why".
pub enum Ready {
    Run(Job),
    Skip(String),
}

/// Builds a real program, or finds it on the host, and says how to run it. The path is a directory
/// for it and this target alone, which exists and persists: what is built already may be kept.
pub type Prepare = Box<dyn Fn(&Project, Target, Size, &Path) -> Result<Ready>>;

/// A program that was not written for this benchmark.
pub struct Real {
    pub name: String,
    /// One sentence: what it is and what it does here.
    pub pattern: String,
    pub threads: u32,
    pub prepare: Prepare,
}

/// Where a C file of the catalogue is.
///
/// # Errors
/// `Usage` when it is not there.
pub fn source(project: &Project, name: &str) -> Result<PathBuf> {
    let path = project.root.join("tests/bench/programs").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(
        Kind::Usage,
        format!("programs.toml names {name}, which is not in tests/bench/programs"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"
        [[program]]
        name = "pairs"
        pattern = "One block after the other."
        sources = ["pairs.c"]
        args.quick = ["1000"]
        args.full = ["100000"]
        threads = 1
        kind = "synthetic"
    "#;

    #[test]
    fn a_program_is_read() {
        let programs = parse(ONE).expect("parses");
        assert_eq!(programs[0].args.of(Size::Quick), ["1000"]);
        assert_eq!(programs[0].kind, ProgramKind::Synthetic);
    }

    #[test]
    fn a_name_twice_is_refused() {
        assert!(parse(&ONE.repeat(2)).is_err_and(|e| e.contains("two programs")));
    }

    #[test]
    fn an_unknown_word_is_refused() {
        assert!(parse(&ONE.replace("threads", "thread")).is_err());
    }
}
