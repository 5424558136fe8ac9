//! The Rust core of the allocator as one object: built, reduced to its contract, checked.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};

use crate::error::{At, Error, Kind, Result};
use crate::musl::Compiler;
use crate::project::{self, Project};
use crate::{digest, run};

/// The package that holds the C ABI of the allocator.
pub const PACKAGE: &str = "byssal-abi";
/// The library file of that package.
pub const STATICLIB: &str = "libbyssal_abi.a";
/// A symbol that only our own object defines: it finds that object in the static library.
const OURS: &str = "__libc_malloc_impl";
/// The section of the state of the process, all zeros, in the object from rustc (whose backend
/// knows by the name that it takes no room in the file) and in ours: linkers place `.lbss` behind
/// all of .bss, where it does not part what else is there.
const STATE: [&str; 2] = [".bss.byssal_process", ".lbss"];

/// Names that a static program may define, too, and yet have libc's aligned_alloc. mallocng has them
/// in members of their own, which such a program does not link; of ours they are weak.
const YIELDING: [&str; 2] = ["__libc_free", "__libc_realloc"];

/// Named sets of knobs, `src/heap/base/config.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    #[default]
    Default,
    Hardened,
}

impl Preset {
    pub fn name(self) -> &'static str {
        match self {
            Preset::Default => "default",
            Preset::Hardened => "hardened",
        }
    }

    /// Whether a static program that never frees gets the core as well, instead of musl's bump
    /// allocator: what the preset promises must hold of every block.
    pub fn serves_all(self) -> bool {
        self == Preset::Hardened
    }

    /// Whether the core draws from the kernel, and looks for forks, for choices that nobody can
    /// foretell.
    pub fn chooses(self) -> bool {
        self == Preset::Hardened
    }

    /// Cargo features for a build that has `base`.
    pub fn features(self, base: &str) -> String {
        match self {
            Preset::Default => base.to_owned(),
            Preset::Hardened => format!("{base},hardened"),
        }
    }
}

/// For libc's core alone: the compiler inlines what makes it smaller, or is marked so. Saves 1.2 KB
/// of each static program for .7 % of the instructions in batches, none in pairs.
const INLINE: &str = "-Cllvm-args=-inline-threshold=0";

/// What the core is made from and for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The directory of the workspace that has the package `byssal-abi`.
    pub workspace: PathBuf,
    pub preset: Preset,
    /// Bytes from the thread pointer to the thread's heap field.
    pub thread_offset: i64,
}

impl Recipe {
    /// Tells this core from any other.
    ///
    /// # Errors
    /// When a source file cannot be read or rustc cannot be run.
    pub fn identity(&self) -> Result<String> {
        let inputs = sources(&self.workspace)?
            .text("preset", self.preset.name())
            .text("thread offset", &self.thread_offset.to_string());
        Ok(inputs.finish())
    }

    /// Builds the object and writes it to `dest`.
    ///
    /// # Errors
    /// `Step` when a build fails or the object breaks its contract.
    pub fn object(
        &self,
        project: &Project,
        compiler: &Compiler,
        dest: &Path,
        log: &Path,
    ) -> Result<()> {
        let root = &project.root;
        let target = host_target()?;
        let target_dir = target_dir(&self.workspace, &project.out)?;
        // What cargo leaves there must be read before another run puts its own in place.
        let _lock = project::lock_dir(&target_dir)?;
        let built = self.staticlib(&target, &target_dir, log)?;
        let temp = project::temp_beside(dest)?;
        let (raw, reduced) = (temp.path().join("raw.o"), temp.path().join("core.o"));
        project::write_file(&raw, &our_member(&built)?)?;
        let exports = names(&root.join("musl-glue/exports.txt"))?;
        let keep = temp.path().join("keep");
        project::write_file(&keep, exports.join("\n").as_bytes())?;
        let mut objcopy = Command::new(compiler.program("objcopy")?);
        // Names of local functions stay: a core dump should be readable.
        objcopy.args(["--strip-debug", "--discard-locals"]);
        for section in [".eh_frame", ".rela.eh_frame", ".rel.eh_frame", ".comment"] {
            objcopy.args(["-R", section]);
        }
        for name in YIELDING {
            objcopy.arg(format!("--weaken-symbol={name}"));
        }
        objcopy
            .arg(format!("--rename-section={}={}", STATE[0], STATE[1]))
            .arg(format!("--keep-global-symbols={}", keep.display()))
            .arg(&raw)
            .arg(&reduced);
        run::logged(&mut objcopy, log)?;
        check(
            &reduced,
            &exports,
            &names(&root.join("musl-glue/imports.txt"))?,
        )?;
        fs::rename(&reduced, dest).at("renaming to", dest)
    }

    fn staticlib(&self, target: &str, target_dir: &Path, log: &Path) -> Result<PathBuf> {
        let mut cmd = cargo(&self.workspace, target);
        cmd.args([
            "rustc",
            "-p",
            PACKAGE,
            "--profile",
            "archive",
            "--no-default-features",
        ])
        .args([
            "--features",
            &self.preset.features("musl"),
            "--crate-type",
            "staticlib",
        ])
        .args(["--target", target])
        .arg("--target-dir")
        .arg(target_dir)
        .args(["--", INLINE])
        .env("BYSSAL_THREAD_OFFSET", self.thread_offset.to_string());
        run::logged(&mut cmd, log)?;
        Ok(target_dir.join(target).join("archive").join(STATICLIB))
    }
}

/// A cargo whose flags are those of code that goes into libc, whatever the caller's are.
pub fn cargo(workspace: &Path, target: &str) -> Command {
    let mut flags = vec![
        "-Crelocation-model=pic",
        "-Crelro-level=off",
        "-Cforce-unwind-tables=no",
    ];
    if target.starts_with("aarch64") {
        // Else a constructor of libgcc enters libc.so.
        flags.push("-Ctarget-feature=-outline-atomics");
    }
    let mut flags: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    flags.extend(sysroot_remap());
    let mut cmd = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cmd.current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cmd
}

/// Where cargo works for the objects that we make: the caller's directory, or `target` of the
/// workspace, or below `out` if that cannot be written.
///
/// # Errors
/// When none can be made.
pub fn target_dir(workspace: &Path, out: &Path) -> Result<PathBuf> {
    let given = env::var_os("CARGO_TARGET_DIR").filter(|d| !d.is_empty());
    let dir = match given {
        Some(dir) => project::absolute(Path::new(&dir))?,
        None => workspace.join("target"),
    };
    let dir = dir.join("archive");
    let usable = |dir: &Path| {
        fs::create_dir_all(dir)
            .and_then(|()| tempfile::tempfile_in(dir))
            .is_ok()
    };
    Ok(if usable(&dir) {
        dir
    } else {
        out.join("build/target")
    })
}

/// Where the library sources are installed differs between machines; what is built must not.
fn sysroot_remap() -> Option<String> {
    let sysroot = run::output(rustc().args(["--print", "sysroot"])).ok()?;
    let commit = rustc_line("commit-hash: ").ok()?;
    Some(format!(
        "--remap-path-prefix={}/lib/rustlib/src/rust=/rustc/{commit}",
        sysroot.trim()
    ))
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn rustc_line(field: &str) -> Result<String> {
    let version = run::output(rustc().arg("-vV"))?;
    let line = version.lines().find_map(|l| l.strip_prefix(field));
    line.map(str::to_owned)
        .ok_or_else(|| Error::new(Kind::Step, format!("rustc -vV tells no {field:?}")))
}

/// The target that Rust code is built for: that of rustc itself.
///
/// # Errors
/// When rustc cannot be run.
pub fn host_target() -> Result<String> {
    rustc_line("host: ")
}

/// All sources that the Rust side is made from, and the compiler.
///
/// # Errors
/// When one cannot be read.
pub fn sources(workspace: &Path) -> Result<digest::Inputs> {
    let mut inputs = digest::Inputs::new().text("rustc", &run::output(rustc().arg("-vV"))?);
    for part in ["src/heap", "src/abi", "Cargo.toml", "Cargo.lock"] {
        if workspace.join(part).exists() {
            inputs = inputs.tree(workspace, part)?;
        }
    }
    Ok(inputs)
}

/// The names in a list file: one a line, `#` begins a comment.
///
/// # Errors
/// When the file cannot be read.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let text = project::read_text(path)?;
    let words = text
        .lines()
        .map(|l| l.split('#').next().unwrap_or("").trim());
    Ok(words.filter(|w| !w.is_empty()).map(str::to_owned).collect())
}

/// The member of the static library that is ours; the others are Rust's own.
fn our_member(library: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(library).at("reading", library)?;
    let bad = |e: object::Error| Error::new(Kind::Step, format!("{}: {e}", library.display()));
    let archive = ArchiveFile::parse(&*bytes).map_err(bad)?;
    let mut found = Vec::new();
    for member in archive.members() {
        let data = member.map_err(bad)?.data(&*bytes).map_err(bad)?;
        let Ok(file) = object::File::parse(data) else {
            continue;
        };
        if file
            .symbols()
            .any(|s| s.is_definition() && s.name() == Ok(OURS))
        {
            found.push(data.to_vec());
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        n => Err(Error::new(
            Kind::Step,
            format!(
                "{}: {n} members define {OURS}, expected one",
                library.display()
            ),
        )
        .remedy("profile `archive` must have lto = \"fat\" and codegen-units = 1")),
    }
}

/// Gives the names that the object needs. Checks the contract: global names exactly `exports`, undefined ones within `imports`, nothing
/// that needs the dynamic linker's help in libc.so, the state where it costs least.
///
/// # Errors
/// `Step`, with all that is wrong.
pub fn check(path: &Path, exports: &[String], imports: &[String]) -> Result<Vec<String>> {
    let bytes = fs::read(path).at("reading", path)?;
    let file = object::File::parse(&*bytes)
        .map_err(|e| Error::new(Kind::Step, format!("{}: {e}", path.display())))?;
    let mut wrong = Vec::new();
    let (mut defined, mut needed) = (Vec::new(), Vec::new());
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or("").to_owned();
        if symbol.is_undefined() && !name.is_empty() {
            if !imports.contains(&name) {
                wrong.push(format!(
                    "needs {name}, which is not in musl-glue/imports.txt"
                ));
            }
            needed.push(name.clone());
        }
        if symbol.is_global() && symbol.is_definition() {
            defined.push(name);
        }
    }
    wrong.extend(
        exports
            .iter()
            .filter(|n| !defined.contains(n))
            .map(|n| format!("does not define {n}")),
    );
    wrong.extend(
        defined
            .iter()
            .filter(|n| !exports.contains(n))
            .map(|n| format!("defines {n} as global")),
    );
    let state = file.section_by_name(STATE[1]).map(|s| s.kind());
    if state != Some(SectionKind::UninitializedData) {
        wrong.push(format!("has no section {} of zeros", STATE[1]));
    }
    for section in file.sections() {
        let name = section.name().unwrap_or("");
        let constructor = [
            ".init_array",
            ".fini_array",
            ".preinit_array",
            ".ctors",
            ".dtors",
        ];
        if constructor.iter().any(|c| name.starts_with(c)) {
            wrong.push(format!(
                "has a section {name}: libc.so runs no constructors of its own"
            ));
        }
        if let SectionFlags::Elf { sh_flags } = section.flags() {
            if sh_flags & u64::from(object::elf::SHF_TLS) != 0 {
                wrong.push(format!("has a TLS section {name}: libc.so cannot have one"));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(needed);
    }
    Err(Error::new(
        Kind::Step,
        format!(
            "the core object breaks its contract:\n    {}",
            wrong.join("\n    ")
        ),
    )
    .remedy("see musl-glue/glue.h; the lists are musl-glue/exports.txt and imports.txt"))
}
