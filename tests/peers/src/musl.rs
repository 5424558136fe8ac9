//! Static toolchains: the pinned musl with its own allocators, and with mimalloc put over them.

use std::path::Path;
use std::process::Command;

use byssal_tool::build::Settings;
use byssal_tool::core::Preset;
use byssal_tool::cores::Cores;
use byssal_tool::digest;
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::musl::Compiler;
use byssal_tool::prefix::rename;
use byssal_tool::progress::step;
use byssal_tool::project::{self, Project};
use byssal_tool::run;
use byssal_tool::tree::{Malloc, Tree};

use crate::table::Sources;
use crate::{crates, preload, Peer};

/// Those of a plain `byssal build`, but for the preset.
pub fn settings(preset: Preset) -> Settings {
    Settings {
        musl: None,
        cc: None,
        target: None,
        jobs: None,
        preset,
        workspace: None,
    }
}

/// The pinned musl as it is, with mallocng, or with oldmalloc.
pub fn own(project: &Project, compiler: &Compiler, old: bool) -> Result<Tree> {
    let settings = settings(Preset::Default);
    let source = settings.source(project)?;
    let malloc = if old { Malloc::Old } else { Malloc::Stock };
    let tree = Tree::prepare(project, &source, malloc, compiler, &Cores::none())?;
    tree.install(project, &source, compiler, &Cores::none())?;
    Ok(tree)
}

/// A copy of the stock toolchain whose libc.a begins with mimalloc: the linker takes the first
/// member that defines a name, so that malloc and its family are mimalloc's for the program and
/// for libc alike, and mallocng stays only behind libc's private names. A distribution that builds
/// mimalloc into musl does the same by replacing the directory.
pub fn mimalloc(
    project: &Project,
    peer: &Peer,
    sources: &Sources,
    compiler: &Compiler,
) -> Result<()> {
    let stock = own(project, compiler, false)?;
    let cc = peer.cc();
    let prefix = prefix(&cc)?;
    let found = crates::find(project, sources.package)?;
    let mut flags = preload::flags(&found, sources)?;
    flags.push(digest::file(&stock.prefix.join("lib/libc.a"))?);
    let stamp = preload::stamp(project, peer, &found, &flags, compiler)?;
    let made = ["lib/libc.a", "lib/musl-gcc.specs", "bin/musl-gcc"].map(|f| prefix.join(f));
    if stamp.holds(&made) {
        return Ok(());
    }
    flags.pop();
    let log = project.log(&format!("peer-{}", peer.name));
    run::fresh_log(&log)?;
    step(&format!("{} {}", peer.name, peer.version), || {
        let temp = project::temp_beside(prefix)?;
        let copy = temp.path().join("toolchain");
        let shared = |p: &Path| p.to_string_lossy().ends_with(".so") || is_loader(p);
        project::copy_tree(&stock.prefix, &copy, &shared)?;
        let object = temp.path().join("mimalloc.o");
        let stock_cc = stock.prefix.join("bin/musl-gcc");
        let mut compile = preload::compile(&found, sources, &flags, &stock_cc.to_string_lossy());
        compile.args(["-O3", "-fPIC", "-c", "-o"]).arg(&object);
        // musl's headers do not hold the kernel's.
        for dir in kernel_headers(temp.path())? {
            compile.arg("-idirafter").arg(dir);
        }
        run::logged(&mut compile, &log)?;
        let first = first_member(&copy.join("lib/libc.a"))?;
        let mut ar = Command::new(compiler.program("ar")?);
        ar.arg("rbs")
            .arg(first)
            .arg(copy.join("lib/libc.a"))
            .arg(&object);
        run::logged(&mut ar, &log)?;
        rename(&copy, &stock.prefix, prefix)?;
        project::replace_dir(&copy, prefix)
    })?;
    stamp.note(&made)
}

/// `PREFIX` of `PREFIX/bin/musl-gcc`.
fn prefix(cc: &Path) -> Result<&Path> {
    let prefix = cc.parent().and_then(Path::parent);
    prefix.ok_or_else(|| Error::new(Kind::Usage, format!("{} has no prefix", cc.display())))
}

fn is_loader(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("ld-musl-")
}

/// A directory with links to the kernel's headers alone, which the host keeps among its libc's.
fn kernel_headers(temp: &Path) -> Result<[std::path::PathBuf; 1]> {
    let dir = temp.join("kernel");
    std::fs::create_dir_all(&dir).at("making directory", &dir)?;
    let triple = run::output(Command::new("gcc").arg("-dumpmachine"))?;
    let multi = format!("/usr/include/{}", triple.trim());
    for (name, places) in [
        ("linux", ["/usr/include", &multi]),
        ("asm-generic", ["/usr/include", &multi]),
        ("asm", [multi.as_str(), "/usr/include"]),
    ] {
        if let Some(found) = places
            .iter()
            .map(|p| Path::new(p).join(name))
            .find(|p| p.exists())
        {
            let link = dir.join(name);
            std::os::unix::fs::symlink(&found, &link).at("making link", &link)?;
        }
    }
    Ok([dir])
}

fn first_member(archive: &Path) -> Result<String> {
    let list = run::output(Command::new("ar").arg("t").arg(archive))?;
    let first = list.lines().next();
    first
        .map(str::to_owned)
        .ok_or_else(|| Error::new(Kind::Step, format!("{} is empty", archive.display())))
}
