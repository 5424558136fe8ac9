//! The columns: each allocator, how programs are compiled for it and started on it.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    pub column: &'static str,
    /// Which of the column's ways.
    pub way: Way,
    /// Prefix of the toolchain, for programs on musl.
    pub toolchain: Option<PathBuf>,
    /// Names its folder of programs.
    pub folder: &'static str,
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
        let toolchain = (!matches!(way, Way::Host(_))).then(|| toolchain.clone());
        Allocator {
            column,
            way,
            toolchain,
            folder,
            remedy,
        }
    })
}

/// byssal, both presets, each way.
pub fn ours() -> Vec<Allocator> {
    [byssal(DEFAULT), byssal(HARDENED)].concat()
}

/// What byssal is compared with.
pub fn peers() -> Vec<Allocator> {
    let preload = |column, file: &str| Allocator {
        column,
        way: Way::Host(Some(root().join("out/peers/lib").join(file))),
        toolchain: None,
        folder: "host",
        remedy: "cargo run -p byssal-peers -- build",
    };
    vec![
        Allocator {
            column: MALLOCNG,
            way: Way::Static,
            toolchain: Some(given("BYSSAL_STOCK", "out/stock/musl-1.2.6")),
            folder: "stock-static",
            remedy: "make",
        },
        Allocator {
            column: "glibc",
            way: Way::Host(None),
            toolchain: None,
            folder: "host",
            remedy: "",
        },
        preload("mimalloc secure", "mimalloc2-secure.so"),
        preload(HARDENED_MALLOC, "hardened_malloc.so"),
    ]
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
        let needed = self.toolchain.as_ref().map(|t| t.join("bin/musl-gcc"));
        let absent = needed.into_iter().chain(library).find(|p| !p.exists())?;
        Some(format!(
            "{} is missing; run: {}",
            absent.display(),
            self.remedy
        ))
    }

    /// The command that compiles `source` to `program`.
    pub fn compile(&self, source: &Path, program: &Path) -> Command {
        let host = || std::env::var_os("CC").unwrap_or_else(|| "gcc".into());
        let mut command = match &self.toolchain {
            Some(toolchain) => Command::new(toolchain.join("bin/musl-gcc")),
            None => Command::new(host()),
        };
        command.args(FLAGS);
        match (&self.way, &self.toolchain) {
            (Way::Static, _) => {
                command.arg("-static");
            }
            (Way::Dynamic, Some(toolchain)) => {
                // A toolchain that is not installed names a loader where another musl may live.
                let loader = toolchain.join("lib/libc.so");
                command.arg(format!("-Wl,--dynamic-linker={}", loader.display()));
            }
            _ => {}
        }
        command.arg("-o").arg(program).arg(source);
        command
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
