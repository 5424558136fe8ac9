//! The build as a whole: the same bits from any directory, and no work twice.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_tool::core::{Preset, Recipe};
use byssal_tool::musl::Compiler;
use byssal_tool::{archive, project};
use common::{byssal, configured, make, outcome, root, succeed};

/// A copy of the sources at `dir`.
fn copy(dir: &Path) -> PathBuf {
    let top = ["out", "target", ".git", ".cache"].map(|n| root().join(n));
    project::copy_tree(&root(), dir, &|p| top.iter().any(|t| t == p)).unwrap();
    dir.to_path_buf()
}

#[test]
fn the_archive_is_the_same_from_two_directories() {
    let temp = tempfile::tempdir().unwrap();
    let compiler = Compiler::find(None, None).unwrap();
    let mut archives = Vec::new();
    for name in ["a", "another/place/with a space"] {
        let workspace = copy(&temp.path().join(name));
        let project = project::Project::find(Some(&workspace), None).unwrap();
        let recipe = Recipe {
            workspace: workspace.clone(),
            preset: Preset::Default,
            thread_offset: 200,
        };
        let dest = workspace.join("made.a");
        archive::make(&project, &recipe, &compiler, &dest, &workspace.join("log")).unwrap();
        archives.push(fs::read(&dest).unwrap());
    }
    assert!(archives[0].len() > 1000, "the archive holds something");
    assert!(archives[0] == archives[1], "the archives differ");
}

#[test]
fn a_second_build_does_nothing() {
    let (code, text) = outcome(&byssal(&["build"]));
    assert_eq!(code, 0, "{text}");
    let libc = root().join("out/musl-1.2.6/lib/libc.so");
    let before = fs::metadata(&libc).unwrap().modified().unwrap();
    let (code, text) = outcome(&byssal(&["build"]));
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(" ...\n"), "a step ran again:\n{text}");
    assert_eq!(fs::metadata(&libc).unwrap().modified().unwrap(), before);
}

#[test]
fn an_archive_made_for_a_tree_completes_it() {
    let temp = tempfile::tempdir().unwrap();
    let Some(tree) = configured(temp.path()) else {
        return;
    };
    let out = temp.path().join("out");
    let args = [
        "archive",
        "--tree",
        tree.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let (code, text) = outcome(&byssal(&args));
    assert_eq!(code, 0, "{text}");
    for target in [
        "obj/src/malloc/byssal/malloc.lo",
        "obj/src/malloc/byssal/glue.lo",
    ] {
        let (code, text) = make(&tree, target);
        assert_eq!(code, 0, "{text}");
    }
}

/// Installs what is built, which is the case already where `make check` runs this.
fn install(args: &[&str]) -> (i32, String) {
    let (code, text) = outcome(&byssal(&["build"]));
    assert_eq!(code, 0, "{text}");
    outcome(&byssal(&[&["install"], args].concat()))
}

#[test]
fn an_installed_toolchain_works_from_its_new_place() {
    let temp = tempfile::tempdir().unwrap();
    let prefix = temp.path().join("usr/musl");
    let (code, text) = install(&["--prefix", prefix.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let old = root().join("out/musl-");
    for file in ["bin/musl-gcc", "lib/musl-gcc.specs"] {
        let text = fs::read_to_string(prefix.join(file)).unwrap();
        assert!(
            !text.contains(old.to_str().unwrap()),
            "{file} names the place it was built in:\n{text}"
        );
    }
    for flags in [&["-static"][..], &[]] {
        let program = temp.path().join("program");
        let source = root().join("src/tool/probes/hooks.c");
        let mut cc = Command::new(prefix.join("bin/musl-gcc"));
        succeed(
            cc.current_dir(temp.path())
                .args(flags)
                .arg("-o")
                .arg(&program)
                .arg(source),
        );
        succeed(Command::new(&program).arg("return"));
    }
    let bytes = fs::read(temp.path().join("program")).unwrap();
    let loader = prefix.join("lib/ld-musl-");
    let loader = loader.to_str().unwrap().as_bytes();
    assert!(
        bytes.windows(loader.len()).any(|w| w == loader),
        "the program asks for another loader"
    );
}

#[test]
fn destdir_goes_before_the_prefix_and_into_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().to_str().unwrap();
    let (code, text) = install(&["--prefix", "/opt/musl", "--destdir", dest]);
    assert_eq!(code, 0, "{text}");
    let wrapper = fs::read_to_string(temp.path().join("opt/musl/bin/musl-gcc")).unwrap();
    assert!(
        wrapper.contains("\"/opt/musl/lib/musl-gcc.specs\""),
        "{wrapper}"
    );
    let (code, text) = install(&["--prefix", "relative"]);
    assert_eq!(code, 2, "{text}");
}

/// Members that hold malloc in musl's own libc.a. Whoever puts another allocator there deletes them.
const MALLOC_MEMBERS: &[&str] = &[
    "aligned_alloc",
    "calloc",
    "donate",
    "free",
    "libc_calloc",
    "lite_malloc",
    "malloc",
    "malloc_usable_size",
    "memalign",
    "posix_memalign",
    "realloc",
    "reallocarray",
    "valloc",
];

#[test]
fn deleting_mallocs_members_from_libc_a_leaves_no_allocator() {
    let temp = tempfile::tempdir().unwrap();
    let library = temp.path().join("libc.a");
    let built = root().join("out/musl-1.2.6/lib/libc.a");
    fs::copy(built, &library).expect("no toolchain: run `make` first");
    for member in MALLOC_MEMBERS {
        for name in [format!("{member}.o"), format!("{member}.lo")] {
            // One after the other: there are two of some names.
            for _ in 0..2 {
                let status = Command::new("ar")
                    .arg("d")
                    .arg(&library)
                    .arg(&name)
                    .status();
                assert!(status.unwrap().success());
            }
        }
    }
    let names = Command::new("nm").arg(&library).output().unwrap();
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    for name in [
        "malloc",
        "free",
        "__libc_malloc_impl",
        "__libc_free",
        "__malloc_donate",
    ] {
        let defined = [" T ", " W "].map(|kind| format!("{kind}{name}\n"));
        assert!(!defined.iter().any(|d| names.contains(d)), "{name} is left");
    }
}
