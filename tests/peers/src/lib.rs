//! Everything that byssal is compared with: built, probed, and ready to serve a program.
//!
//! ```text
//! table      the list: names, versions, flags
//! crates     where cargo keeps a crate's sources
//! preload    a shared library out of them
//! musl       static toolchains out of the pinned musl
//! probe      whose malloc is it really, and does it work
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_tool::build::{self, Built};
use byssal_tool::core::Preset;
use byssal_tool::error::{Error, Result};
use byssal_tool::library;
use byssal_tool::musl::Compiler;
use byssal_tool::pins::Pins;
use byssal_tool::project::{lock_dir, Project};
use byssal_tool::tree::{Malloc, Tree};
use byssal_tool::{needs, run};

mod crates;
mod musl;
mod preload;
mod probe;
pub mod table;

pub use table::Kind;
use table::{Make, Row};

/// An allocator, and how a program gets it.
pub struct Peer {
    pub name: &'static str,
    /// The allocator's own; of glibc and tcmalloc what the machine has.
    pub version: String,
    pub kind: Kind,
    /// Made to withstand misuse, not only fast.
    pub hardened: bool,
    /// The flags of its own that it was built with, for the reader.
    pub flags: String,
    /// Preload: the library, `None` for glibc itself. Static: the toolchain's musl-gcc.
    pub file: Option<PathBuf>,
    make: Make,
}

impl Peer {
    /// Starts a program of the host with this allocator; a static one is what it was linked as.
    pub fn command(&self, program: &Path) -> Command {
        let mut cmd = Command::new(program);
        if let (Kind::Preload, Some(library)) = (self.kind, &self.file) {
            cmd.env("LD_PRELOAD", library);
        }
        cmd
    }

    /// The compiler for programs that are to run with it; link static ones with `-static`.
    pub fn cc(&self) -> PathBuf {
        match (self.kind, &self.file) {
            (Kind::Static, Some(cc)) => cc.clone(),
            _ => PathBuf::from("gcc"),
        }
    }

    /// An allocator that programs have linked in, which somebody else builds: its name, version and
    /// flags, and whether it is byssal, and hardened.
    pub fn linked(
        name: &'static str,
        version: String,
        flags: &str,
        ours: bool,
        hardened: bool,
    ) -> Peer {
        Peer {
            name,
            version,
            kind: Kind::Linked,
            hardened,
            flags: flags.to_owned(),
            file: None,
            make: Make::Linked { ours },
        }
    }

    /// Whether it is byssal itself.
    pub fn ours(&self) -> bool {
        matches!(self.make, Make::Byssal { .. } | Make::Linked { ours: true })
    }
}

/// All allocators, built or not.
///
/// # Errors
/// When the pins cannot be read.
pub fn all(project: &Project) -> Result<Vec<Peer>> {
    let musl = Pins::read(&project.root)?.musl.default;
    Ok(table::ROWS
        .iter()
        .map(|row| Peer {
            name: row.name,
            version: version(row, &musl),
            kind: row.kind,
            hardened: row.hardened,
            flags: flags(row),
            file: place(project, row, &musl),
            make: row.make,
        })
        .collect())
}

fn version(row: &Row, musl: &str) -> String {
    let told = |cmd: &mut Command| run::output(cmd).unwrap_or_default().trim().to_owned();
    match (row.version, row.make) {
        (Some(version), _) => version.to_owned(),
        (None, Make::Host) => told(Command::new("getconf").arg("GNU_LIBC_VERSION"))
            .trim_start_matches("glibc ")
            .to_owned(),
        (None, Make::Package { package, .. }) => {
            told(Command::new("dpkg-query").args(["-W", "-f=${Version}", package]))
        }
        (None, _) => format!("musl {musl}"),
    }
}

fn flags(row: &Row) -> String {
    match row.make {
        Make::Sources(sources) | Make::MuslMimalloc(sources) => {
            let config = sources.config.map(|c| format!(" {c}")).unwrap_or_default();
            format!("{}{config}", sources.flags.join(" "))
        }
        Make::Jemalloc => preload::JEMALLOC_CONFIGURE.join(" "),
        Make::Byssal { hardened: true } => "preset hardened".into(),
        Make::Byssal { hardened: false } => "preset default".into(),
        Make::Host | Make::Package { .. } | Make::Mallocng | Make::Oldmalloc => String::new(),
        Make::Linked { .. } => String::new(),
    }
}

/// Where the library or the compiler of a row will be.
fn place(project: &Project, row: &Row, musl: &str) -> Option<PathBuf> {
    let out = &project.out;
    let gcc = |prefix: PathBuf| Some(prefix.join(format!("musl-{musl}/bin/musl-gcc")));
    match (row.make, row.kind) {
        (Make::Host | Make::Linked { .. }, _) | (_, Kind::Linked) => None,
        (Make::Package { file, .. }, _) => preload::installed(file),
        (Make::Byssal { hardened }, kind) => {
            let out = if hardened {
                out.join("hardened")
            } else {
                out.clone()
            };
            match kind {
                Kind::Preload => Some(out.join("lib/libbyssal.so")),
                Kind::Static | Kind::Linked => gcc(out),
            }
        }
        (Make::Mallocng, _) => gcc(out.join("stock")),
        (Make::Oldmalloc, _) => gcc(out.join("oldmalloc")),
        (Make::MuslMimalloc(_), _) => gcc(out.join("peers").join(row.name)),
        (Make::Sources(_) | Make::Jemalloc, _) => {
            Some(out.join(format!("peers/lib/{}.so", row.name)))
        }
    }
}

/// Builds and probes the allocators of these names (all, if there are none), unless they are there
/// already. Gives them in the order of the table.
///
/// # Errors
/// `Usage` for a name that is not in the table; else which allocator failed, and how.
pub fn prepare(project: &Project, names: &[&str]) -> Result<Vec<Peer>> {
    let known = all(project)?;
    if let Some(wrong) = names.iter().find(|n| known.iter().all(|p| p.name != **n)) {
        let list: Vec<&str> = known.iter().map(|p| p.name).collect();
        return Err(Error::new(
            byssal_tool::error::Kind::Usage,
            format!("there is no allocator {wrong}"),
        )
        .remedy(format!("the names are: {}", list.join(" "))));
    }
    needs::programs(project, &["gcc", "g++", "make", "nm", "ar"])?;
    let compiler = Compiler::find(None, None, None)?;
    for peer in &known {
        if names.is_empty() || names.contains(&peer.name) {
            one(project, peer, &compiler).map_err(|e| Error {
                what: format!("{}: {}", peer.name, e.what),
                ..e
            })?;
        }
    }
    // Versions and places of what was installed only now are known only now.
    let wanted = |p: &Peer| names.is_empty() || names.contains(&p.name);
    Ok(all(project)?.into_iter().filter(wanted).collect())
}

fn one(project: &Project, peer: &Peer, compiler: &Compiler) -> Result<()> {
    // The trees of musl are shared with the tool; the others only among ourselves.
    let _lock = match peer.make {
        Make::Byssal { .. } | Make::Mallocng | Make::Oldmalloc | Make::MuslMimalloc(_) => {
            project.lock()?
        }
        _ => lock_dir(&project.out.join("peers/lock").join(peer.name))?,
    };
    let mut file = peer.file.clone();
    match peer.make {
        Make::Host | Make::Linked { .. } => {}
        Make::Package {
            package,
            file: name,
        } => file = Some(preload::package(project, package, name)?),
        Make::Sources(sources) => preload::sources(project, peer, &sources, compiler)?,
        Make::Jemalloc => preload::jemalloc(project, peer, compiler)?,
        Make::Byssal { hardened } => byssal(project, hardened, compiler)?,
        Make::Mallocng => drop(musl::own(project, compiler, false)?),
        Make::Oldmalloc => drop(musl::own(project, compiler, true)?),
        Make::MuslMimalloc(sources) => musl::mimalloc(project, peer, &sources, compiler)?,
    }
    probe::probe(project, peer, file.as_deref(), compiler)
}

/// The toolchain and the libraries of byssal, as `byssal build` makes them; the hardened ones in a
/// directory of their own, without another stock musl beside them.
fn byssal(project: &Project, hardened: bool, compiler: &Compiler) -> Result<()> {
    if !hardened {
        let settings = musl::settings(Preset::Default);
        let built = build::build(project, &settings)?;
        return library::build(project, &settings, &built).map(drop);
    }
    let stock = musl::own(project, compiler, false)?;
    let out = project.out.join("hardened");
    let project = Project::find(Some(&project.root), Some(&out))?;
    let _lock = project.lock()?;
    let settings = musl::settings(Preset::Hardened);
    let source = settings.source(&project)?;
    let cores = settings.cores(&project, &[compiler.target])?;
    let tree = Tree::prepare(&project, &source, Malloc::Byssal, compiler, &cores)?;
    tree.install(&project, &source, compiler, &cores)?;
    let built = Built {
        source,
        compiler: compiler.clone(),
        patches: project.made.join("patches"),
        byssal: tree,
        stock,
        cores,
        preset: Preset::Hardened,
    };
    library::build(&project, &settings, &built).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Project {
        Project::find(Some(Path::new(env!("CARGO_MANIFEST_DIR"))), None).expect("in the checkout")
    }

    #[test]
    fn names_are_unique_and_places_differ() {
        let peers = all(&project()).expect("the list");
        for (i, one) in peers.iter().enumerate() {
            for other in &peers[..i] {
                assert_ne!(one.name, other.name);
                assert!(one.file.is_none() || one.file != other.file, "{}", one.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list() {
        let error = prepare(&project(), &["nomalloc"]).err().expect("refused");
        assert!(error
            .remedy
            .is_some_and(|r| r.contains("hardened_malloc-light")));
    }

    #[test]
    fn a_preload_sets_the_library_and_nothing_else_does() {
        for peer in all(&project()).expect("the list") {
            let cmd = peer.command(Path::new("true"));
            let sets = cmd.get_envs().any(|(name, _)| name == "LD_PRELOAD");
            assert_eq!(sets, peer.kind == Kind::Preload && peer.file.is_some());
        }
    }
}
