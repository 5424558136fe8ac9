//! What is compared, and where each lies.

use std::path::{Path, PathBuf};

/// How an allocator comes into a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Linked statically by this compiler wrapper.
    Static(PathBuf),
    /// The host's libc, with this library preloaded.
    Preload(PathBuf),
    /// The host's libc alone.
    Host,
}

/// One allocator.
#[derive(Clone, Debug)]
pub struct Allocator {
    pub name: &'static str,
    pub way: Way,
    /// Held to byssal's bound.
    pub ours: bool,
    pub hardened: bool,
    /// What to run when it is missing.
    remedy: &'static str,
}

/// Workspace root.
pub fn root() -> PathBuf {
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    root.pop();
    root.pop();
    root
}

/// The toolchain of the default preset, like the other tests' `BYSSAL_TOOLCHAIN`.
fn toolchain() -> PathBuf {
    let root = root();
    std::env::var_os("BYSSAL_TOOLCHAIN")
        .map_or_else(|| root.join("out/musl-1.2.6"), |path| root.join(path))
}

impl Allocator {
    /// Nothing if it can be used, else what is missing and the remedy.
    pub fn missing(&self) -> Option<String> {
        match &self.way {
            Way::Static(path) | Way::Preload(path) if !path.exists() => Some(format!(
                "{} is not there; run `{}`",
                path.display(),
                self.remedy
            )),
            _ => None,
        }
    }
}

/// byssal's default preset, as both come to programs.
pub fn own() -> Vec<Allocator> {
    let root = root();
    let ours = |name, way| Allocator {
        name,
        way,
        ours: true,
        hardened: false,
        remedy: "make",
    };
    vec![
        ours("byssal", Way::Static(toolchain().join("bin/musl-gcc"))),
        ours(
            "libbyssal.so",
            Way::Preload(root.join("out/lib/libbyssal.so")),
        ),
    ]
}

/// All, mallocng first: the others are measured against it.
pub fn all() -> Vec<Allocator> {
    let root = root();
    let other = |name, way, remedy| Allocator {
        name,
        way,
        ours: false,
        hardened: false,
        remedy,
    };
    let hardened = |name, way| Allocator {
        name,
        way,
        ours: true,
        hardened: true,
        remedy: "make footprint",
    };
    let peer = |file: &str| Way::Preload(root.join("out/peers/lib").join(file));
    let version = toolchain();
    let version = version.file_name().unwrap_or_default().to_owned();
    let stock = root.join("out/stock").join(&version).join("bin/musl-gcc");
    let strict = root
        .join("out/hardened")
        .join(&version)
        .join("bin/musl-gcc");
    let mut all = vec![other("mallocng", Way::Static(stock), "make")];
    all.extend(own());
    all.extend([
        hardened("hardened", Way::Static(strict)),
        other("glibc", Way::Host, ""),
        other("mimalloc", peer("mimalloc2.so"), "byssal-peers build"),
        other("jemalloc", peer("jemalloc.so"), "byssal-peers build"),
    ]);
    all
}
