//! The Rust core of the allocator for one machine: compiled, checked against its contract, and
//! made into assembly that a tree of musl can carry.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};

use crate::assembly::{self, Changes};
use crate::digest::{self, Stamp};
use crate::error::{At, Error, Kind, Result};
use crate::progress::step;
use crate::project::{self, Project};
use crate::run;
use crate::target::Target;

/// The package that holds the C ABI of the allocator.
pub const PACKAGE: &str = "byssal-abi";
/// The library file of that package.
pub const STATICLIB: &str = "libbyssal_abi.a";
/// A symbol that only our own object defines: it finds that object in the static library.
const OURS: &str = "__libc_malloc_impl";
/// How the names begin that glue.c defines: hidden, so that no call goes over a table.
const GLUE: &str = "__byssal_";
/// The section of the state of the process, all zeros, as rustc has it (whose backend knows by the
/// name that it takes no room in the file) and in the text: linkers place `.lbss` behind all of
/// .bss, where it does not part what else is there.
pub const STATE: [&str; 2] = [".bss.byssal_process", ".lbss"];

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

/// Thread offsets that the core is compiled for to find where they stand: two that every machine's
/// instructions have room for.
const OFFSETS: [i64; 2] = [-184, -248];

/// What a core is made from and for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The directory of the workspace that has the package `byssal-abi`.
    pub workspace: PathBuf,
    pub preset: Preset,
    pub target: &'static Target,
}

/// A core for one machine.
#[derive(Clone, Debug)]
pub struct Core {
    pub target: &'static Target,
    /// Assembly for the C preprocessor.
    pub text: String,
    /// What rustc's own assembler makes of the compiler's text for the first of `OFFSETS`: what
    /// is assembled of the text here must be the same.
    pub object: PathBuf,
}

impl Core {
    /// Has the preprocessor put the offset in that `object` was made for.
    pub fn known_offset() -> String {
        format!("-DBYSSAL_THREAD_OFFSET={}", OFFSETS[0])
    }
}

impl Recipe {
    /// Tells this core from any other.
    ///
    /// # Errors
    /// When a source file cannot be read or rustc cannot be run.
    fn identity(&self, project: &Project) -> Result<String> {
        let inputs = sources(&self.workspace)?
            .text("preset", self.preset.name())
            .text("rust", &self.target.rust()?)
            .text("target", &format!("{:?}", self.target))
            .text("reduced by", include_str!("assembly.rs"))
            .tree(&project.root, "musl-glue/exports.txt")?
            .tree(&project.root, "musl-glue/imports.txt")?;
        Ok(inputs.finish())
    }

    /// Compiles the core, unless it is there already.
    ///
    /// # Errors
    /// `Step` when a build fails or the object breaks its contract.
    pub fn make(&self, project: &Project) -> Result<Core> {
        let name = format!("core-{}-{}", self.target.name, self.preset.name());
        let dir = project.out.join("build").join(&name);
        let [text, object] = ["core.S", "core.o"].map(|f| dir.join(f));
        let made = [text.clone(), object.clone()];
        let stamp = Stamp::new(&project.out, &name, self.identity(project)?);
        if !stamp.holds(&made) {
            let log = project.log(&name);
            run::fresh_log(&log)?;
            let what = format!(
                "allocator core, {}, preset {}",
                self.target.name,
                self.preset.name()
            );
            step(&what, || self.compile(project, &made, &log))?;
            stamp.note(&made)?;
        }
        Ok(Core {
            target: self.target,
            text: project::read_text(&text)?,
            object,
        })
    }

    /// Writes text and object of the core.
    fn compile(&self, project: &Project, [text, object]: &[PathBuf; 2], log: &Path) -> Result<()> {
        let target_dir = target_dir(&self.workspace, &project.out)?;
        // What cargo leaves there must be read before another run puts its own in place.
        let _lock = project::lock_dir(&target_dir)?;
        let other = self.assembly(OFFSETS[1], &target_dir, log)?;
        let one = self.assembly(OFFSETS[0], &target_dir, log)?;
        let texts = [project::read_text(&one)?, project::read_text(&other)?];
        let texts = texts.map(|text| assembly::code(&text));
        if self.target.unmeasured.is_none() {
            let plain = one.with_extension("plain.s");
            project::write_file(&plain, texts[0].as_bytes())?;
            self.assemble(&plain, &target_dir, log)?;
        }
        let target = self.target.rust()?;
        let ours = our_member(&target_dir.join(target).join("archive").join(STATICLIB))?;
        let glue = project.root.join("musl-glue");
        let exports = names(&glue.join("exports.txt"))?;
        let needed = check(&ours, &exports, &names(&glue.join("imports.txt"))?)?;
        let hidden: Vec<&str> = needed
            .iter()
            .map(|n| &**n)
            .filter(|n| n.starts_with(GLUE))
            .collect();
        let changes = Changes {
            line: self.target.line.as_ref(),
            weak: &YIELDING,
            hidden: &hidden,
            state: STATE,
        };
        let reduced = assembly::reduced([&texts[0], &texts[1]], OFFSETS, &changes)?;
        project::write_file(object, &ours)?;
        project::write_file(text, reduced.as_bytes())
    }

    /// Has the core compiled for a thread offset, and gives the file of its assembly.
    fn assembly(&self, offset: i64, target_dir: &Path, log: &Path) -> Result<PathBuf> {
        let target = self.target.rust()?;
        let text = target_dir.join(format!("{target}-{}{offset}.s", self.preset.name()));
        let mut cmd = self.rustc(&target, &self.preset.features("musl"), target_dir)?;
        cmd.args(["--", INLINE])
            .arg(format!("--emit=link,asm={}", text.display()))
            .env("BYSSAL_THREAD_OFFSET", offset.to_string());
        run::logged(&mut cmd, log)?;
        Ok(text)
    }

    /// Has rustc's own assembler make an object of a text. (The one that it makes of the core is
    /// no measure: it generates code for text and object apart, and now and then not the same.)
    fn assemble(&self, text: &Path, target_dir: &Path, log: &Path) -> Result<()> {
        let target = self.target.rust()?;
        let mut cmd = self.rustc(&target, "assembled", target_dir)?;
        run::logged(cmd.env("BYSSAL_ASSEMBLY", text), log)
    }

    /// `cargo rustc` for the package, with some of its features.
    fn rustc(&self, target: &str, features: &str, target_dir: &Path) -> Result<Command> {
        let mut cmd = cargo(&self.workspace, target)?;
        cmd.args(["rustc", "-p", PACKAGE, "--profile", "archive"])
            .args(["--no-default-features", "--features", features])
            .args(["--crate-type", "staticlib", "--target", target])
            .arg("--target-dir")
            .arg(target_dir);
        Ok(cmd)
    }
}

/// A cargo whose flags are those of code that goes into libc, whatever the caller's are. Where
/// rustc has no `core` for the target, it is built from its sources.
///
/// # Errors
/// `Missing` when these are not there.
pub fn cargo(workspace: &Path, target: &str) -> Result<Command> {
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
    // The way to unstable features is open to the nightly channel only, or to who is told so.
    if ["powerpc", "mips"].iter().any(|p| target.starts_with(p)) {
        cmd.env("RUSTC_BOOTSTRAP", "1");
    }
    if !has_core(target)? {
        let library = Path::new(sysroot()?.trim()).join("lib/rustlib/src/rust/library");
        if !library.join("core/src/lib.rs").is_file() {
            return Err(no_core(target, &library));
        }
        cmd.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
    }
    Ok(cmd)
}

/// Whether rustc came with a compiled `core` for the target.
fn has_core(target: &str) -> Result<bool> {
    let dir = run::output(rustc().args(["--print", "target-libdir", "--target", target]))
        .map_err(|e| no_target(target, &e))?;
    let entries = fs::read_dir(dir.trim()).into_iter().flatten().flatten();
    let mut names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    Ok(names.any(|n| n.starts_with("libcore-") && n.ends_with(".rlib")))
}

fn no_target(target: &str, why: &Error) -> Error {
    Error::new(
        Kind::Missing,
        format!("rustc does not know the target {target}: {}", why.what),
    )
    .remedy("take a newer rustc (RUSTC=, CARGO=), or another target: docs/targets.md")
}

fn no_core(target: &str, library: &Path) -> Error {
    Error::new(
        Kind::Missing,
        format!(
            "rustc has no `core` for {target}, and not the sources of it: {} is not there",
            library.display()
        ),
    )
    .remedy(format!(
        "install one of them: rustup target add {target}; rustup component add rust-src; \
         apt-get install rust-src (Debian); apk add rust-src (Alpine)"
    ))
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
    let sysroot = sysroot().ok()?;
    let commit = rustc_line("commit-hash: ").ok()?;
    Some(format!(
        "--remap-path-prefix={}/lib/rustlib/src/rust=/rustc/{commit}",
        sysroot.trim()
    ))
}

fn sysroot() -> Result<String> {
    run::output(rustc().args(["--print", "sysroot"]))
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// rustc and its version, as it says.
///
/// # Errors
/// When it cannot be run.
pub fn rustc_version() -> Result<String> {
    Ok(run::output(rustc().arg("--version"))?.trim().to_owned())
}

fn rustc_line(field: &str) -> Result<String> {
    let version = run::output(rustc().arg("-vV"))?;
    let line = version.lines().find_map(|l| l.strip_prefix(field));
    line.map(str::to_owned)
        .ok_or_else(|| Error::new(Kind::Step, format!("rustc -vV tells no {field:?}")))
}

/// The target that rustc itself runs on.
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

/// Gives the names that an object of the core needs. Checks the contract: global names exactly
/// `exports`, undefined ones within `imports`, nothing that needs the dynamic linker's help in
/// libc.so, the state in one of the sections of `STATE`.
///
/// # Errors
/// `Step`, with all that is wrong.
pub fn check(object: &[u8], exports: &[String], imports: &[String]) -> Result<Vec<String>> {
    let file = object::File::parse(object)
        .map_err(|e| Error::new(Kind::Step, format!("the core object: {e}")))?;
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
    let state = STATE.iter().find_map(|name| file.section_by_name(name));
    if state.map(|s| s.kind()) != Some(SectionKind::UninitializedData) {
        wrong.push(format!("has no section {} of zeros", STATE[0]));
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
