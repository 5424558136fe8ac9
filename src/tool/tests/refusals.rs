//! What the tool must not do: use a wrong file, patch a wrong tree, leave half-made things.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use byssal_tool::{digest, run};
use common::{byssal, configured, likeness, make, outcome, project_with_pins, succeed};

#[test]
fn old_and_unknown_versions_are_refused_with_the_reason() {
    let (code, text) = outcome(&byssal(&["fetch", "--musl", "1.2.1"]));
    assert_eq!(code, 5, "{text}");
    assert!(
        text.contains("__malloc_atfork") && text.contains("1.2.6"),
        "{text}"
    );
    let (code, text) = outcome(&byssal(&["fetch", "--musl", "9.9.9"]));
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("no pin"), "{text}");
    let (code, text) = outcome(&byssal(&["fetch", "--musl", "/no/such/thing"]));
    assert_eq!(code, 4, "{text}");
}

#[test]
fn a_tree_older_than_1_2_2_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for version in ["1.2.1", "1.1.24"] {
        let tree = temp.path().join(version);
        likeness(&tree, version);
        let (code, text) = outcome(&byssal(&["patch", "--musl", tree.to_str().unwrap()]));
        assert_eq!(code, 5, "{text}");
    }
}

fn pins(site: &Path, sha256: &str) -> String {
    let family = |name: &str| {
        format!(
            "[{name}]\ndefault = \"1.2.6\"\nsite = \"file://{}\"\npackage = \"no-such-package-of-byssal\"\n\
             suites = []\n\n[[{name}.release]]\nversion = \"1.2.6\"\nsha256 = \"{sha256}\"\n\n",
            site.display()
        )
    };
    family("musl") + &family("lua")
}

/// Fetches in a project whose pin is `sha256`, from a site that has `content`.
fn fetch_from(dir: &Path, content: &[u8], sha256: &str) -> (i32, String) {
    let site = dir.join("site");
    fs::create_dir_all(&site).unwrap();
    fs::write(site.join("musl-1.2.6.tar.gz"), content).unwrap();
    project_with_pins(&dir.join("project"), &pins(&site, sha256));
    let mut fetch = Command::new(env!("CARGO_BIN_EXE_byssal"));
    fetch
        .arg("fetch")
        .current_dir(dir.join("project"))
        .env_remove("BYSSAL_CACHE");
    fetch.env("XDG_CACHE_HOME", dir.join("none"));
    outcome(&fetch.output().unwrap())
}

/// Whether there is a program that downloads; says so if not.
fn can_download() -> bool {
    let can = ["curl", "wget", "python3"].into_iter().any(run::exists);
    if !can {
        println!("skipped: none of curl, wget, python3 is installed");
    }
    can
}

#[test]
fn a_download_with_a_wrong_hash_is_neither_used_nor_kept() {
    if !can_download() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (code, text) = fetch_from(temp.path(), b"not what was pinned", &"0".repeat(64));
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("not the pinned"), "{text}");
    let kept = fs::read_dir(temp.path().join("project/.cache"))
        .unwrap()
        .count();
    assert_eq!(kept, 0, "something is left in the cache");
}

#[test]
fn a_download_with_the_right_hash_replaces_a_wrong_one_in_the_cache() {
    if !can_download() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let right = temp.path().join("right");
    fs::write(&right, b"the pinned content").unwrap();
    let sha256 = digest::file(&right).unwrap();
    let cached = temp.path().join("project/.cache/musl-1.2.6.tar.gz");
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    fs::write(&cached, b"something else").unwrap();
    let (code, text) = fetch_from(temp.path(), b"the pinned content", &sha256);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not used"), "{text}");
    assert_eq!(fs::read(&cached).unwrap(), b"the pinned content");
}

/// `patch` on a likeness of musl that `change` has changed.
fn patch_changed(change: impl Fn(&Path)) -> (i32, String, usize) {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    likeness(&tree, "1.2.6");
    change(&tree);
    let dest = temp.path().join("series");
    let args = [
        "patch",
        "--musl",
        tree.to_str().unwrap(),
        "--dest",
        dest.to_str().unwrap(),
    ];
    let (code, text) = outcome(&byssal(&args));
    let left = fs::read_dir(temp.path()).unwrap().count() - 1;
    (code, text, left)
}

#[test]
fn an_unpinned_tree_is_patched_with_a_warning_when_every_edit_fits() {
    let (code, text, left) = patch_changed(|_| {});
    assert_eq!((code, left), (0, 1), "{text}");
    assert!(text.contains("warning"), "{text}");
}

#[test]
fn an_anchor_that_is_missing_or_there_twice_stops_everything() {
    let header = "src/internal/pthread_impl.h";
    let (code, text, left) = patch_changed(|tree| {
        fs::write(
            tree.join(header),
            "hidden void __pthread_tsd_run_dtors();\n",
        )
        .unwrap();
    });
    assert_eq!((code, left), (5, 0), "{text}");
    assert!(
        text.contains(header) && text.contains("no line contains"),
        "{text}"
    );
    let (code, text, left) = patch_changed(|tree| {
        let twice = "\tvoid *stdio_locks;\n\n\tvoid *stdio_locks;\nhidden void __pthread_tsd_run_dtors();\n";
        fs::write(tree.join(header), twice).unwrap();
    });
    assert_eq!((code, left), (5, 0), "{text}");
    assert!(text.contains("2 lines") && text.contains("1, 3"), "{text}");
}

#[test]
fn a_tree_with_our_files_is_refused() {
    let (code, text, left) = patch_changed(|tree| {
        fs::create_dir_all(tree.join("src/malloc/byssal")).unwrap();
        fs::write(tree.join("src/malloc/byssal/glue.c"), "").unwrap();
    });
    assert_eq!((code, left), (5, 0), "{text}");
    assert!(text.contains("already"), "{text}");
}

#[test]
fn a_compiler_of_several_words_is_refused_with_the_way_out() {
    let (code, text) = outcome(&byssal(&["build", "--cc", "gcc -O2"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("script"), "{text}");
}

#[test]
fn libc_test_without_a_path_says_where_it_is() {
    let (code, text) = outcome(&byssal(&["libc-test"]));
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("nsz.repo.hu") && text.contains("known good"),
        "{text}"
    );
}

#[test]
fn a_missing_archive_stops_make_with_a_word_on_where_to_get_it() {
    let temp = tempfile::tempdir().unwrap();
    let Some(tree) = configured(temp.path()) else {
        return;
    };
    for target in ["lib/libc.a", "lib/libc.so", "obj/src/malloc/byssal/glue.lo"] {
        let (code, text) = make(&tree, target);
        assert_ne!(code, 0, "{text}");
        assert!(
            text.contains("is missing") && text.contains("byssal -- archive"),
            "{text}"
        );
    }
}

#[test]
fn a_core_made_for_another_thread_layout_stops_make() {
    let temp = tempfile::tempdir().unwrap();
    let Some(tree) = configured(temp.path()) else {
        return;
    };
    let arch = byssal_tool::musl::archive_name(&tree).unwrap();
    let offset = byssal_tool::probe::thread_offset(&tree, &temp.path().join("log")).unwrap();
    let build = |stated: i64| {
        let header = temp.path().join("core.h");
        fs::write(
            &header,
            format!("#define BYSSAL_THREAD_OFFSET ({stated})\n"),
        )
        .unwrap();
        let archive = tree.join("src/malloc/byssal").join(&arch);
        let _ = fs::remove_file(&archive);
        let _ = fs::remove_file(tree.join("obj/src/internal/byssal_core.h"));
        succeed(Command::new("ar").arg("rc").arg(&archive).arg(&header));
        make(&tree, "obj/src/malloc/byssal/glue.lo")
    };
    let (code, text) = build(offset + 8);
    assert_ne!(code, 0, "{text}");
    assert!(text.contains("another struct pthread"), "{text}");
    let (code, text) = build(offset);
    assert_eq!(code, 0, "the right offset must do: {text}");
}

#[test]
fn a_killed_build_leaves_nothing_under_a_final_name() {
    if let Err(why) = common::musl("1.2.6") {
        println!("skipped: needs musl 1.2.6: {why}");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let mut build = Command::new(env!("CARGO_BIN_EXE_byssal"));
    build
        .args(["build", "--out"])
        .arg(&out)
        .current_dir(common::root());
    let mut build = build
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Once there is a log, the work has begun; it takes a minute more.
    let start = Instant::now();
    while !out.join("log/musl-1.2.6-byssal.log").exists()
        && start.elapsed() < Duration::from_secs(60)
    {
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(300));
    assert!(
        build.try_wait().unwrap().is_none(),
        "the build has ended before it could be killed"
    );
    // Its children too: they are a process group of their own.
    let group = i32::try_from(build.id()).unwrap();
    // SAFETY: kill touches no memory, and the group is the child's, which nobody has waited for.
    assert_eq!(unsafe { libc::kill(-group, libc::SIGKILL) }, 0);
    build.wait().unwrap();
    for name in [
        "musl-1.2.6",
        "stock",
        "patches",
        "stamps/installed-1.2.6-byssal",
        "lib",
    ] {
        assert!(!out.join(name).exists(), "{name} is there");
    }
}
