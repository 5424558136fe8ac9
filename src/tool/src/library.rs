//! The allocator as a library, for LD_PRELOAD and for linking: beside the host's libc, and beside
//! the musl that was built.
//!
//! Both files are made of one relocatable object with only the malloc family global, so that
//! libbyssal.a can also be linked into Rust programs, which have a panic handler of their own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::archive::ArchiveFile;
use object::{FileKind, Object, ObjectSymbol};

use crate::build::{Built, Settings};
use crate::core::{self, Preset, PACKAGE, STATICLIB};
use crate::digest::{self, Inputs, Stamp};
use crate::elf::Elf;
use crate::error::{At, Error, Kind, Result};
use crate::musl::Compiler;
use crate::progress::step;
use crate::project::{self, Project};
use crate::run;

/// A library that was made.
pub struct Library {
    pub what: &'static str,
    pub path: PathBuf,
}

/// One libc to be beside.
pub struct Beside {
    what: &'static str,
    /// Tells the builds from each other.
    pub name: String,
    pub cc: PathBuf,
    /// The libc, where it is one that we built.
    libc: Option<PathBuf>,
    /// Cargo features of its build.
    features: &'static str,
    pub dest: PathBuf,
}

impl Beside {
    /// The host's libc.
    pub fn host(compiler: &Compiler, dest: PathBuf) -> Self {
        Beside {
            what: "library",
            name: "host".into(),
            cc: PathBuf::from(&compiler.cc),
            libc: None,
            features: "library",
            dest,
        }
    }

    /// The musl that was built.
    pub fn musl(built: &Built, dest: PathBuf) -> Self {
        Beside {
            what: "for musl",
            name: format!("musl-{}", built.source.label),
            cc: built.byssal.prefix.join(built.compiler.wrapper()),
            libc: Some(built.byssal.prefix.join("lib/libc.so")),
            features: "library,tlsdesc",
            dest,
        }
    }

    /// Whether it is musl.
    pub fn is_musl(&self) -> bool {
        self.libc.is_some()
    }

    /// What tells a library from those of other sources, compilers and libcs.
    ///
    /// # Errors
    /// When a file cannot be read or the compiler cannot be run.
    pub fn inputs(
        &self,
        project: &Project,
        settings: &Settings,
        compiler: &Compiler,
    ) -> Result<Inputs> {
        let inputs = core::sources(&settings.workspace(project))?
            .text("preset", settings.preset.name())
            .text("compiler", &compiler.identity)
            .text("cc", &self.cc.to_string_lossy())
            .tree(&project.root, "musl-glue/library-exports.txt")?
            .tree(&project.root, "musl-glue/cxx-exports.txt")?;
        Ok(match &self.libc {
            Some(libc) => inputs.text("libc", &digest::file(libc)?),
            None => inputs,
        })
    }
}

/// Builds libbyssal.so and libbyssal.a for the musl that was built, and if that is for this machine
/// for the host's libc, too.
///
/// # Errors
/// `Step` when one does not build.
pub fn build(project: &Project, settings: &Settings, built: &Built) -> Result<Vec<Library>> {
    let both = [
        Beside::host(&built.compiler, project.made.join("lib")),
        Beside::musl(built, built.byssal.prefix.join("lib")),
    ];
    let mut made = Vec::new();
    let wanted = if built.compiler.target.is_own() {
        &both[..]
    } else {
        &both[1..]
    };
    for beside in wanted {
        for path in one(project, settings, &built.compiler, beside)? {
            made.push(Library {
                what: beside.what,
                path,
            });
        }
    }
    Ok(made)
}

/// Builds libbyssal.so and libbyssal.a for one libc.
///
/// # Errors
/// `Step` when one does not build.
pub fn one(
    project: &Project,
    settings: &Settings,
    compiler: &Compiler,
    beside: &Beside,
) -> Result<[PathBuf; 2]> {
    let workspace = settings.workspace(project);
    let made = ["libbyssal.so", "libbyssal.a"].map(|f| beside.dest.join(f));
    let stamp = Stamp::new(
        &project.out,
        &format!("library-{}", beside.name),
        beside.inputs(project, settings, compiler)?.finish(),
    );
    if stamp.holds(&made) {
        return Ok(made);
    }
    let log = project.log(&format!("library-{}", beside.name));
    run::fresh_log(&log)?;
    step(
        &format!("libbyssal.so and libbyssal.a ({})", beside.name),
        || {
            let target_dir = core::target_dir(&workspace, &project.out)?;
            let _lock = project::lock_dir(&target_dir)?;
            let target_dir = target_dir.join(&beside.name);
            let target = compiler.target.rust()?;
            let features = settings.preset.features(beside.features);
            let whole = cargo(
                &workspace,
                &target,
                (PACKAGE, &features),
                beside,
                &target_dir,
                &log,
            )?;
            let whole = whole.join(STATICLIB);
            let temp = project::temp_beside(&beside.dest.join("libbyssal"))?;
            archive(project, compiler, &whole, temp.path(), &log)?;
            let mut exports = exports(project, "library-exports.txt")?;
            if settings.preset == Preset::Hardened {
                exports.extend(operators(project, &whole)?);
            }
            shared(&exports, compiler, beside, &whole, temp.path(), &log)?;
            for path in &made {
                let name = path.file_name().unwrap_or_default();
                fs::rename(temp.path().join(name), path).at("renaming to", path)?;
            }
            Ok(())
        },
    )?;
    stamp.note(&made)?;
    Ok(made)
}

/// Makes the static library of a package with some features: ours, and whatever of Rust's own.
/// Gives the directory that it is in.
///
/// # Errors
/// `Step` when it does not build.
pub fn cargo(
    workspace: &Path,
    target: &str,
    (package, features): (&str, &str),
    beside: &Beside,
    target_dir: &Path,
    log: &Path,
) -> Result<PathBuf> {
    let mut cmd = core::cargo(workspace, target)?;
    cmd.args([
        "rustc",
        "-p",
        package,
        "--lib",
        "--profile",
        "archive",
        "--no-default-features",
    ])
    .args(["--features", features, "--crate-type", "staticlib"])
    .args(["--target", target, "--target-dir"])
    .arg(target_dir)
    .env(format!("CC_{}", target.replace('-', "_")), &beside.cc);
    run::logged(&mut cmd, log)?;
    Ok(target_dir.join(target).join("archive"))
}

/// The names of a list in musl-glue.
///
/// # Errors
/// When it cannot be read.
pub fn exports(project: &Project, list: &str) -> Result<Vec<String>> {
    core::names(&project.root.join("musl-glue").join(list))
}

/// Names of C++'s operators, which tell what size_t is on the machine that the archive is for.
fn operators(project: &Project, whole: &Path) -> Result<Vec<String>> {
    let names = exports(project, "cxx-exports.txt")?;
    let bytes = fs::read(whole).at("reading", whole)?;
    let archive = ArchiveFile::parse(&*bytes).at("reading", whole)?;
    let is_long = archive.members().flatten().all(|member| {
        let data = member.data(&*bytes).unwrap_or_default();
        FileKind::parse(data).is_ok_and(|kind| kind == FileKind::Elf64)
    });
    if is_long {
        return Ok(names);
    }
    Ok(names.iter().map(|name| name.replace('m', "j")).collect())
}

/// Makes one object, `name`, of what `exports` need: its only global names that are not hidden.
///
/// # Errors
/// `Step` when that fails, or something is missing.
pub fn object(
    compiler: &Compiler,
    exports: &[String],
    whole: &Path,
    dir: &Path,
    name: &str,
    log: &Path,
) -> Result<PathBuf> {
    let path = |name: &str| dir.join(name);
    let mut ld = Command::new(compiler.program("ld")?);
    ld.args(["-r", "-o"])
        .arg(path("all.o"))
        .args(exports.iter().map(|e| format!("-u{e}")))
        .arg(whole);
    run::logged(&mut ld, log)?;
    // Made by the compiler in groups of which the linker keeps one, by the name; hidden.
    let thunks = "\n__x86.get_pc_thunk.*\n";
    project::write_file(&path("keep"), (exports.join("\n") + thunks).as_bytes())?;
    let mut objcopy = Command::new(compiler.program("objcopy")?);
    objcopy.args(["--strip-debug", "--discard-locals", "-R", ".comment", "-w"]);
    // mips calls names of its own object in another way than global ones: those that were compiled
    // as global, our C code's, cannot be made local. They are hidden, and begin with `byssal_`.
    if !compiler.target.arch.starts_with("mips") {
        objcopy.arg(format!("--keep-global-symbols={}", path("keep").display()));
    }
    run::logged(objcopy.arg(path("all.o")).arg(path(name)), log)?;
    check(&path(name), exports)?;
    Ok(path(name))
}

/// Makes libbyssal.a of the malloc family.
fn archive(
    project: &Project,
    compiler: &Compiler,
    whole: &Path,
    dir: &Path,
    log: &Path,
) -> Result<()> {
    let exports = exports(project, "library-exports.txt")?;
    let object = object(compiler, &exports, whole, dir, "byssal.o", log)?;
    let mut ar = Command::new(compiler.program("ar")?);
    ar.arg("rcD").arg(dir.join("libbyssal.a")).arg(object);
    run::logged(&mut ar, log)
}

/// Makes libbyssal.so, which exports these names: the malloc family and, in the preset that checks
/// sizes, C++'s operators.
fn shared(
    exports: &[String],
    compiler: &Compiler,
    beside: &Beside,
    whole: &Path,
    dir: &Path,
    log: &Path,
) -> Result<()> {
    let object = object(compiler, exports, whole, dir, "shared.o", log)?;
    let so = dir.join("libbyssal.so");
    link(beside, &[object.as_os_str()], exports, &so, log)
}

/// Links a shared library of `parts`, objects and other words for the linker, which exports just
/// the names of `exports`.
///
/// # Errors
/// `Step` when it cannot be linked, or exports others.
pub fn link(
    beside: &Beside,
    parts: &[&OsStr],
    exports: &[String],
    so: &Path,
    log: &Path,
) -> Result<()> {
    let name = so.file_name().unwrap_or_default().to_string_lossy();
    let mut cc = Command::new(&beside.cc);
    cc.arg("-shared").arg(format!("-Wl,-soname,{name}")).args([
        "-Wl,-z,relro,-z,now,-z,defs",
        "-Wl,-Bsymbolic-functions",
        // Its constructor before all others: then its handler of fork takes the lock after those
        // of other libraries have waited for theirs (glibc; musl's loader has no such order).
        "-Wl,-z,initfirst",
        // dlclose leaves it: threads that used it have a destructor in it, and blocks live on.
        "-Wl,-z,nodelete",
    ]);
    // musl's crti.o brings _init and _fini as global names: the list holds for them too.
    let script = format!("{{ global: {}; local: *; }};", exports.join("; "));
    let exported = so.with_file_name("exported");
    project::write_file(&exported, script.as_bytes())?;
    // Not by -Wl, which would part the path at a comma.
    cc.args(["-Xlinker", "--version-script", "-Xlinker"]);
    cc.arg(exported).arg("-o").arg(so).args(parts);
    // dlsym is in a library of its own in glibc before 2.34.
    run::logged(cc.arg("-ldl"), log)?;
    let seen: Vec<String> = Elf::read(so)?
        .exported
        .into_iter()
        .map(|e| e.name)
        .collect();
    let extra: Vec<&String> = seen.iter().filter(|n| !exports.contains(n)).collect();
    if extra.is_empty() && seen.len() == exports.len() {
        return Ok(());
    }
    Err(
        Error::new(Kind::Step, format!("{name} exports {}", seen.join(" ")))
            .remedy("it must export the names of its lists, *exports.txt, and no others"),
    )
}

/// All of the malloc family must be there, and nothing of Rust be missing.
fn check(path: &Path, exports: &[String]) -> Result<()> {
    let bytes = fs::read(path).at("reading", path)?;
    let file = object::File::parse(&*bytes)
        .map_err(|e| Error::new(Kind::Step, format!("{}: {e}", path.display())))?;
    let mut wrong = Vec::new();
    for export in exports {
        if !file
            .symbols()
            .any(|s| s.is_definition() && s.name() == Ok(export))
        {
            wrong.push(format!("does not define {export}"));
        }
    }
    for name in file
        .symbols()
        .filter(|s| s.is_undefined())
        .filter_map(|s| s.name().ok())
    {
        if name.starts_with("_ZN") || name.starts_with("_R") || name.starts_with("rust_") {
            wrong.push(format!("needs {name} of Rust's libraries"));
        }
        // What gcc calls for atomic operations on aarch64 asks for what musl before 1.2.6 hides.
        if name.starts_with("__aarch64_") {
            wrong.push(format!("needs {name} of libgcc"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Step,
        format!(
            "the library's object is not whole:\n    {}",
            wrong.join("\n    ")
        ),
    )
    .remedy(
        "src/abi must define the names of musl-glue/library-exports.txt, and call no such library",
    ))
}
