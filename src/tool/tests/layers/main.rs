//! The layers that `src/heap/lib.rs` declares are true: no module uses or calls one of a layer
//! above its own, and no modules use each other in a circle.
//!
//! ```text
//! cargo test -p byssal-tool --test layers -- --show-output    the heap, and that this test can fail
//! LAYERS_OF=DIRECTORY cargo test ...                     the crate whose lib.rs is there
//! ```
//!
//! An arrow goes from a module to each that it names in a path (`source.rs`), and to each that has
//! a function which it calls or takes the address of (`listing.rs`: as the compiler has resolved
//! it, so method calls too, and those in generic bodies that no program uses). A module is a file.
//! `mod.rs` is one as well: it may re-export what stands in its folder, and what stands there must
//! then not name the re-export. `mod x;` is no arrow. The root, `lib.rs`, is above all layers:
//! nothing may use what stands or is re-exported there.
//!
//! A lower layer reaches a higher one only by what the higher one hands down:
//!
//! - A call of a closure or of a function pointer is no arrow. Whoever makes the closure, or takes
//!   the function's address, has the arrow to what it runs.
//! - A call through a trait by a type parameter, by `dyn`, or by `Self` in the trait is an arrow to
//!   the module that declares the trait, wherever it is implemented. If the type is known where the
//!   call stands, it is an arrow to the module of the `impl`.
//! - The `Drop` of a type is an arrow from the module of the type to that of the `impl`.
//!
//! The crate is judged as it ships: without features, and with each that ships, for the machine
//! that the test runs on. A call in a branch that constants rule out in each of these builds is not
//! seen. What only tests, models and counters compile may use everything, and nothing that ships
//! can use it.

mod arrows;
mod declared;
mod listing;
mod made_up;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use arrows::{Arrows, Verdict};
use byssal_tool::run;
use listing::Listing;
use source::Sources;

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// The `cfg` of this machine's compiler, with `more`.
fn cfg(more: &[String]) -> BTreeSet<String> {
    let text = run::output(rustc().args(["--print", "cfg"])).unwrap();
    let lines = text.lines().map(str::to_owned);
    lines.chain(more.iter().cloned()).collect()
}

/// Features of the heap that nothing which ships has.
const NOT_SHIPPED: [&str; 2] = ["model", "count"];

/// A way to build a crate: its `cfg`, and what it then uses of other crates.
#[derive(Default)]
struct Way {
    cfg: Vec<String>,
    feature: String,
    crates: Vec<String>,
}

/// The ways to build a crate: as it is, and with each feature that ships.
fn ways(dir: &Path) -> Vec<Way> {
    let mut ways = vec![Way::default()];
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let manifest: toml::Table = manifest.parse().unwrap();
    let Some(toml::Value::Table(features)) = manifest.get("features") else {
        return ways;
    };
    for (name, needs) in features {
        if NOT_SHIPPED.contains(&name.as_str()) {
            continue;
        }
        let needs = needs.as_array().into_iter().flatten();
        let crates = needs.filter_map(|need| need.as_str()?.strip_prefix("dep:"));
        ways.push(Way {
            cfg: vec![format!("feature=\"{name}\"")],
            feature: name.clone(),
            crates: crates.map(str::to_owned).collect(),
        });
    }
    ways
}

/// Has cargo build what the crate uses of others, in `target`; the compiler's flags to find it.
fn others(dir: &Path, way: &Way, target: &Path) -> Vec<String> {
    if way.crates.is_empty() {
        return vec![];
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--locked", "--lib", "--no-default-features"])
        .args(["--features", &way.feature, "--manifest-path"])
        .arg(dir.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    run::output(&mut cargo).unwrap();
    let mut flags = vec![format!(
        "-Ldependency={}",
        target.join("debug/deps").display()
    )];
    for name in &way.crates {
        let found = fs::read_dir(target.join("debug/deps")).unwrap();
        let prefix = format!("lib{name}-");
        let built = found.map(|entry| entry.unwrap().path()).find(|path| {
            let file = path.file_name().unwrap().to_str().unwrap();
            file.starts_with(&prefix) && file.ends_with(".rlib")
        });
        let built = built.unwrap_or_else(|| panic!("cargo built no {name}"));
        flags.push(format!("--extern={name}={}", built.display()));
    }
    flags
}

/// The compiler's listing of a crate. Bodies are neither inlined nor made of generic ones.
fn compiled(dir: &Path, way: &Way) -> String {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("listing.mir");
    let mut cmd = rustc();
    cmd.current_dir(dir)
        .args(["--edition=2021", "--crate-type=lib", "--crate-name=judged"])
        .args(["-Copt-level=0", "--cap-lints=allow"])
        .arg(format!("--emit=mir={}", file.display()))
        .args(others(dir, way, &out.path().join("target")))
        .arg("lib.rs");
    for cfg in &way.cfg {
        cmd.arg(format!("--cfg={cfg}"));
    }
    run::output(&mut cmd).unwrap();
    fs::read_to_string(&file).unwrap()
}

/// What is to be said of the crate whose `lib.rs` is in `dir`.
fn judge(dir: &Path) -> Verdict {
    let lib = fs::read_to_string(dir.join("lib.rs")).unwrap();
    let layers = declared::layers(&lib).unwrap();
    let mut arrows = Arrows::default();
    for way in ways(dir) {
        let sources = Sources::read(dir, &cfg(&way.cfg)).unwrap();
        let mut listing = Listing::default();
        listing.read(&compiled(dir, &way), &sources);
        arrows.add(&sources, &listing);
    }
    arrows.judge(&layers)
}

#[test]
fn no_layer_of_the_heap_uses_one_above_it() {
    let heap = Path::new(env!("CARGO_MANIFEST_DIR")).join("../heap");
    let dir = env::var_os("LAYERS_OF").map_or(heap, PathBuf::from);
    let verdict = judge(&dir);
    println!("{}", verdict.report);
    assert!(
        verdict.is_clean(),
        "the layers of {} do not hold",
        dir.display()
    );
}
