//! What the tests of the tool share. Each test file uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use byssal_tool::cores::Cores;
use byssal_tool::edit;
use byssal_tool::pins::Pins;
use byssal_tool::project::{self, Project};
use byssal_tool::source::Source;

/// The checkout that the tests run in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The project with everything that it makes under `out`.
pub fn project(out: &Path) -> Project {
    Project::find(Some(&root()), Some(out)).unwrap()
}

/// A pinned musl, or why it cannot be had here (then the caller prints "skipped: ...").
pub fn musl(version: &str) -> Result<Source, String> {
    let project = project(Path::new("/nonexistent"));
    let pins = Pins::read(&project.root).unwrap();
    Source::find(&project, &pins, version).map_err(|e| e.to_string().replace('\n', " "))
}

/// The pinned and supported versions.
pub fn versions() -> Vec<String> {
    let pins = Pins::read(&root()).unwrap();
    pins.musl
        .supported()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Runs the tool.
pub fn byssal(args: &[&str]) -> Output {
    let mut cmd = Command::new(env!("CARGO_BIN_EXE_byssal"));
    cmd.args(args).current_dir(root()).output().unwrap()
}

/// Exit code, and both outputs as one text.
pub fn outcome(output: &Output) -> (i32, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Runs a command that must succeed.
pub fn succeed(cmd: &mut Command) {
    let out = cmd.output().unwrap();
    let (code, text) = outcome(&out);
    assert!(out.status.success(), "{cmd:?} gave {code}:\n{text}");
}

/// A project of its own with our edits and glue, whose pins the test writes.
pub fn project_with_pins(dir: &Path, pins: &str) {
    for part in ["patches", "musl-glue"] {
        project::copy_tree(&root().join(part), &dir.join(part), &|_| false).unwrap();
    }
    fs::write(dir.join("patches/pins.toml"), pins).unwrap();
}

/// A tree with just the lines that the edits look for: not musl, and so no pinned release.
pub fn likeness(dir: &Path, version: &str) {
    let files = [
        ("VERSION", version.to_owned()),
        ("Makefile", "LIBC_OBJS = x\n\nlib/libc.so: $(LOBJS)\n".to_owned()),
        (
            "src/internal/pthread_impl.h",
            "struct p {\n\tvoid *stdio_locks;\n};\nhidden void __pthread_tsd_run_dtors();\n".to_owned(),
        ),
        (
            "src/thread/pthread_create.c",
            "weak_alias(dummy_0, __do_orphaned_stdio_locks);\n\n\t/* This atomic potentially competes */\n"
                .to_owned(),
        ),
        (
            "configure",
            "malloc_dir=mallocng\nchoose malloc implementation [mallocng]\n".to_owned(),
        ),
        (
            "src/exit/exit.c",
            "weak_alias(dummy, __stdio_exit);\n\n{\n\t__libc_exit_fini();\n}\n".to_owned(),
        ),
        (
            "src/malloc/lite_malloc.c",
            "weak_alias(__simple_malloc, __libc_malloc_impl);\n".to_owned(),
        ),
    ];
    for (file, text) in files {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A tarball of a tree, at `musl/` in it.
pub fn packed(tree: &Path, tarball: &Path) {
    let mut tar = tar::Builder::new(fs::File::create(tarball).unwrap());
    tar.append_dir_all("musl", tree).unwrap();
    tar.finish().unwrap();
}

/// A patched and configured tree of the default musl, with these cores; `None` when it cannot be
/// had.
pub fn configured(dir: &Path, cores: &Cores) -> Option<PathBuf> {
    let source = match musl("1.2.6") {
        Ok(source) => source,
        Err(why) => {
            println!("skipped: needs musl 1.2.6: {why}");
            return None;
        }
    };
    let tree = source.lay(dir).unwrap();
    let patches = edit::read(&root(), false).unwrap();
    let fitted = edit::fit(&root(), &patches, cores, &source, &tree).unwrap();
    edit::apply(&tree, &fitted).unwrap();
    succeed(
        Command::new("./configure")
            .current_dir(&tree)
            .args(["--with-malloc=byssal", "CC=gcc"]),
    );
    Some(tree)
}

/// Runs musl's make.
pub fn make(tree: &Path, target: &str) -> (i32, String) {
    let mut make = Command::new("make");
    make.current_dir(tree)
        .arg(target)
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    outcome(&make.output().unwrap())
}
