//! The columns: each allocator, how programs are compiled for it and started on it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Flags of every program: builtins off, because compilers elide malloc and free pairs.
const FLAGS: &[&str] = &["-fno-builtin", "-O1", "-g", "-Wall", "-Wextra", "-pthread"];

/// How a program gets the allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Linked `-static` by a toolchain.
    Static,
    /// Linked with a toolchain's libc.so.
    Dynamic,
    /// By LD_PRELOAD on the host's libc; without a library it is the host's own.
    Host(Option<PathBuf>),
}

/// One allocator in one way.
#[derive(Clone, Debug)]
pub struct Allocator {
    /// The column.
    pub column: String,
    /// Which of the column's ways.
    pub way: Way,
    /// The C compiler, for programs that are not the host's.
    pub compiler: Option<PathBuf>,
    /// The loader, for dynamic programs of that compiler.
    pub loader: Option<PathBuf>,
    /// Names its folder of programs.
    pub folder: String,
    /// How to get it when it is missing.
    pub remedy: &'static str,
}

/// Names of columns.
pub const DEFAULT: &str = "byssal";
pub const HARDENED: &str = "byssal hardened";
pub const MALLOCNG: &str = "mallocng";
pub const HARDENED_MALLOC: &str = "hardened_malloc";

/// Workspace root: two folders above this package.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// A path of the environment, or one below the root.
fn given(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| root().join(default), |path| root().join(path))
}

/// A preset of byssal in its three ways.
fn byssal(column: &'static str) -> [Allocator; 3] {
    let hardened = column == HARDENED;
    let (toolchain, library, folders, remedy) = if hardened {
        (
            given("BYSSAL_HARDENED", "out/hardened/musl-1.2.6"),
            given("BYSSAL_HARDENED_LIB", "out/hardened/lib"),
            ["hardened-static", "hardened-dynamic", "host"],
            "target/debug/byssal build --preset hardened --out out/hardened",
        )
    } else {
        (
            given("BYSSAL_TOOLCHAIN", "out/musl-1.2.6"),
            given("BYSSAL_LIB", "out/lib"),
            ["default-static", "default-dynamic", "host"],
            "make",
        )
    };
    let ways = [
        Way::Static,
        Way::Dynamic,
        Way::Host(Some(library.join("libbyssal.so"))),
    ];
    let mut index = 0;
    ways.map(|way| {
        let folder = folders[index];
        index += 1;
        let dynamic = way == Way::Dynamic;
        Allocator {
            column: column.to_owned(),
            compiler: (!matches!(way, Way::Host(_))).then(|| toolchain.join("bin/musl-gcc")),
            // A toolchain that is not installed names a loader where another musl may live.
            loader: dynamic.then(|| toolchain.join("lib/libc.so")),
            way,
            folder: folder.to_owned(),
            remedy,
        }
    })
}

/// byssal, both presets, each way.
pub fn ours() -> Vec<Allocator> {
    [byssal(DEFAULT), byssal(HARDENED)].concat()
}

/// An allocator that programs of the host get by LD_PRELOAD; without a library it is the host's.
pub fn preloaded(column: &str, library: Option<PathBuf>, remedy: &'static str) -> Allocator {
    Allocator {
        column: column.to_owned(),
        way: Way::Host(library),
        compiler: None,
        loader: None,
        folder: "host".to_owned(),
        remedy,
    }
}

/// An allocator that is in the libc of a compiler, for static programs.
pub fn linked(column: &str, compiler: PathBuf, folder: &str, remedy: &'static str) -> Allocator {
    Allocator {
        column: column.to_owned(),
        way: Way::Static,
        compiler: Some(compiler),
        loader: None,
        folder: folder.to_owned(),
        remedy,
    }
}

/// What byssal is compared with.
pub fn peers() -> Vec<Allocator> {
    let stock = given("BYSSAL_STOCK", "out/stock/musl-1.2.6").join("bin/musl-gcc");
    let preload = |column, file: &str| {
        let library = root().join("out/peers/lib").join(file);
        preloaded(column, Some(library), "cargo run -p byssal-peers -- build")
    };
    vec![
        linked(MALLOCNG, stock, "stock-static", "make"),
        preloaded("glibc", None, ""),
        preload("mimalloc secure", "mimalloc2-secure.so"),
        preload(HARDENED_MALLOC, "hardened_malloc.so"),
    ]
}

/// The C++ compiler of the host, if there is one.
fn cxx() -> Option<&'static OsString> {
    static FOUND: OnceLock<Option<OsString>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let compiler = std::env::var_os("CXX").unwrap_or_else(|| "g++".into());
        let answer = Command::new(&compiler).arg("--version").output();
        answer.is_ok_and(|a| a.status.success()).then_some(compiler)
    });
    found.as_ref()
}

/// Why programs in C++ are not tried on the host, if they are not.
pub fn without_cxx() -> Option<String> {
    cxx()
        .is_none()
        .then(|| "there is no g++ (nor what CXX names); rows of C++ are n/a".to_owned())
}

impl Allocator {
    /// The column's way, for people.
    pub fn way_name(&self) -> &'static str {
        match self.way {
            Way::Static => "static",
            Way::Dynamic => "dynamic",
            Way::Host(_) => "preload",
        }
    }

    /// What is missing, with the remedy.
    pub fn missing(&self) -> Option<String> {
        let library = match &self.way {
            Way::Host(library) => library.clone(),
            _ => None,
        };
        let needed = self.compiler.clone().into_iter();
        let absent = needed.chain(library).find(|p| !p.exists())?;
        Some(format!(
            "{} is missing; run: {}",
            absent.display(),
            self.remedy
        ))
    }

    /// The command that compiles a program, to a file of its name in `folder`; None for one in C++
    /// where there is no C++: musl-gcc has none.
    pub fn compile(&self, program: &str, folder: &Path) -> Option<Command> {
        let sources = root().join("tests/misuse");
        let source = sources.join(format!("{program}.c"));
        let host = || std::env::var_os("CC").unwrap_or_else(|| "gcc".into());
        let in_cxx = program.starts_with("cxx_");
        let mut command = match &self.compiler {
            Some(_) if in_cxx => return None,
            Some(compiler) => Command::new(compiler),
            None if in_cxx => Command::new(cxx()?),
            None => Command::new(host()),
        };
        command.args(FLAGS).arg("-o").arg(folder.join(program));
        if self.way == Way::Static {
            command.arg("-static");
        }
        if let Some(loader) = &self.loader {
            command.arg(format!("-Wl,--dynamic-linker={}", loader.display()));
        }
        if in_cxx {
            command.args(["-x", "c"]).arg(source);
            command.args(["-x", "c++"]).arg(sources.join("cxx.cpp"));
        } else {
            command.arg(source);
        }
        Some(command)
    }

    /// The command that starts a program.
    pub fn start(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_remove("LD_PRELOAD");
        if let Way::Host(Some(library)) = &self.way {
            command.env("LD_PRELOAD", library);
        }
        // mimalloc tells of what it sees and then ignores only when asked to.
        command.env("MIMALLOC_SHOW_ERRORS", "1");
        command
    }
}
