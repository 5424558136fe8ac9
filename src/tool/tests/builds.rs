//! The build as a whole: the same bits from any directory, and no work twice.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_tool::build::{self, Settings};
use byssal_tool::core::Preset;
use byssal_tool::cores::Cores;
use byssal_tool::{dist, project};
use common::{byssal, configured, make, outcome, root, succeed};

/// A copy of the sources at `dir`.
fn copy(dir: &Path) -> PathBuf {
    let top = ["out", "target", ".git", ".cache"].map(|n| root().join(n));
    project::copy_tree(&root(), dir, &|p| top.iter().any(|t| t == p)).unwrap();
    dir.to_path_buf()
}

/// The settings of a plain build.
fn settings(workspace: Option<PathBuf>) -> Settings {
    Settings {
        musl: None,
        cc: None,
        target: None,
        jobs: None,
        preset: Preset::Default,
        workspace,
    }
}

#[test]
fn the_core_is_the_same_from_two_directories() {
    let temp = tempfile::tempdir().unwrap();
    let mut cores = Vec::new();
    for name in ["a", "another/place/with a space"] {
        let workspace = copy(&temp.path().join(name));
        let project = project::Project::find(Some(&workspace), None).unwrap();
        let settings = settings(Some(workspace));
        let target = settings.machine().unwrap();
        cores.push(settings.cores(&project, &[target]).unwrap());
    }
    let [one, other] = [&cores[0], &cores[1]].map(|c| c.files());
    assert!(one.values().all(|text| text.len() > 1000) && !one.is_empty());
    assert!(one == other, "the cores differ");
}

#[test]
fn what_is_handed_out_is_the_same_from_two_directories() {
    let temp = tempfile::tempdir().unwrap();
    if let Err(why) = common::musl("1.2.6") {
        println!("skipped: needs musl 1.2.6: {why}");
        return;
    }
    let mut made = Vec::new();
    for name in ["a", "another/place"] {
        let out = temp.path().join(name);
        let settings = settings(None);
        let settings = Settings {
            // Of this machine alone: others may need what is not here.
            target: Some(settings.machine().unwrap().name.clone()),
            ..settings
        };
        let files = dist::make(&common::project(&out), &settings, true, None).unwrap();
        assert_eq!(files.len(), 3, "{files:?}");
        succeed(
            Command::new("sha256sum")
                .args(["-c", "--quiet", "SHA256SUMS"])
                .current_dir(out.join("dist")),
        );
        made.push(
            files
                .iter()
                .map(|f| fs::read(f).unwrap())
                .collect::<Vec<_>>(),
        );
    }
    assert!(made[0] == made[1], "the files differ");
}

#[test]
fn the_one_patch_handed_out_is_of_the_preset_that_was_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let musl = temp.path().join("musl");
    common::likeness(&musl, "1.2.6");
    let project = common::project(&temp.path().join("out"));
    for preset in [Preset::Default, Preset::Hardened] {
        let settings = settings(None);
        let settings = Settings {
            musl: Some(musl.to_str().unwrap().to_owned()),
            target: Some(settings.machine().unwrap().name.clone()),
            preset,
            ..settings
        };
        let files = dist::make(&project, &settings, false, None).unwrap();
        let is_patch = |file: &&PathBuf| file.extension().is_some_and(|e| e == "patch");
        let patch = fs::read_to_string(files.iter().find(is_patch).unwrap()).unwrap();
        let told = format!(", preset {}, for ", preset.name());
        assert!(patch.contains(&told), "{told:?} is not in the patch");
    }
}

#[test]
fn a_series_that_is_the_default_needs_no_word_to_configure() {
    let temp = tempfile::tempdir().unwrap();
    let source = match common::musl("1.2.6") {
        Ok(source) => source,
        Err(why) => {
            println!("skipped: needs musl 1.2.6: {why}");
            return;
        }
    };
    let project = common::project(&temp.path().join("out"));
    let settings = settings(None);
    let cores = settings.cores(&project, &[settings.machine().unwrap()]);
    let dir = temp.path().join("series");
    build::write_series(&project, &cores.unwrap(), &source, true, &dir).unwrap();
    let tree = source.lay(&temp.path().join("tree")).unwrap();
    let mut patches: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    patches.retain(|p| p.extension().is_some_and(|e| e == "patch"));
    patches.sort();
    for patch in patches {
        succeed(
            Command::new("patch")
                .current_dir(&tree)
                .args(["-p1", "-i"])
                .arg(patch),
        );
    }
    succeed(Command::new("./configure").current_dir(&tree).arg("CC=gcc"));
    let config = fs::read_to_string(tree.join("config.mak")).unwrap();
    assert!(config.contains("MALLOC_DIR = byssal"), "{config}");
}

#[test]
fn a_second_build_does_nothing_but_bring_back_what_is_missing() {
    let (code, text) = outcome(&byssal(&["build"]));
    assert_eq!(code, 0, "{text}");
    let libc = root().join("out/musl-1.2.6/lib/libc.so");
    let before = fs::metadata(&libc).unwrap().modified().unwrap();
    let (code, text) = outcome(&byssal(&["build"]));
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(" ...\n"), "a step ran again:\n{text}");
    assert_eq!(fs::metadata(&libc).unwrap().modified().unwrap(), before);
    // Files that no other test asks for: some of them run at the same time.
    for file in [
        "lib/libbyssal.a",
        "musl-1.2.6/lib/rcrt1.o",
        "stock/musl-1.2.6/include/aio.h",
        "patches/musl-1.2.6/0001-thread-field.patch",
    ] {
        let file = root().join("out").join(file);
        fs::remove_file(&file).unwrap();
        let (code, text) = outcome(&byssal(&["build"]));
        assert_eq!(code, 0, "{text}");
        assert!(file.is_file(), "{} is still missing", file.display());
        assert!(!text.contains(" ...\n"), "a step ran again:\n{text}");
    }
}

#[test]
fn a_tree_with_the_series_builds_without_rust() {
    let temp = tempfile::tempdir().unwrap();
    let settings = settings(None);
    let out = temp.path().join("out");
    let cores = settings.cores(&common::project(&out), &[settings.machine().unwrap()]);
    let Some(tree) = configured(&temp.path().join("tree"), &cores.unwrap()) else {
        return;
    };
    let arch = &settings.machine().unwrap().arch;
    let objects = [format!("{arch}/malloc.lo"), "glue.lo".to_owned()];
    for object in objects.map(|o| format!("obj/src/malloc/byssal/{o}")) {
        // As a build system would: it knows nothing of cargo.
        let mut make = Command::new("make");
        make.current_dir(&tree)
            .arg(object)
            .env("PATH", "/usr/bin:/bin");
        for name in ["MAKEFLAGS", "MAKELEVEL", "CARGO", "RUSTC"] {
            make.env_remove(name);
        }
        succeed(&mut make);
    }
}

#[test]
fn the_thread_offset_follows_the_structure() {
    let temp = tempfile::tempdir().unwrap();
    let Some(tree) = configured(temp.path(), &Cores::none()) else {
        return;
    };
    let header = "obj/src/internal/byssal_offset.h";
    let told = || {
        let (code, text) = make(&tree, header);
        assert_eq!(code, 0, "{text}");
        let text = fs::read_to_string(tree.join(header)).unwrap();
        let number = text
            .strip_prefix("#define BYSSAL_THREAD_OFFSET ")
            .expect(&text);
        number.trim().parse::<i64>().expect(&text)
    };
    let before = told();
    let file = tree.join("src/internal/pthread_impl.h");
    let text = fs::read_to_string(&file).unwrap();
    // A field more, at either end of the structure, as a distribution's patch may have it.
    let more = text.replacen("\tint tid;", "\tlong more[3];\n\tint tid;", 1);
    assert_ne!(more, text);
    fs::write(&file, more).unwrap();
    let above = cfg!(any(
        target_arch = "x86_64",
        target_arch = "x86",
        target_arch = "s390x"
    ));
    let moved = if above {
        3 * size_of::<usize>() as i64
    } else {
        0
    };
    assert_eq!(told() - before, moved);
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
