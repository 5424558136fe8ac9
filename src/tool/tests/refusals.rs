//! What the tool must not do: use a wrong file, patch a wrong tree, leave half-made things.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use byssal_tool::cores::Cores;
use byssal_tool::musl::Compiler;
use byssal_tool::pins::Pins;
use byssal_tool::source::Source;
use byssal_tool::{digest, edit, project, run};
use common::{byssal, configured, likeness, make, outcome, project_with_pins, succeed};
use flate2::write::GzEncoder;
use flate2::Compression;

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
    outcome(&fetch_in(dir, content, sha256).output().unwrap())
}

/// The command that does so.
fn fetch_in(dir: &Path, content: &[u8], sha256: &str) -> Command {
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
    fetch
}

/// The hash of that content, by way of a file in `dir`.
fn hash_of(dir: &Path, content: &[u8]) -> String {
    let file = dir.join("right");
    fs::write(&file, content).unwrap();
    digest::file(&file).unwrap()
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
    let sha256 = hash_of(temp.path(), b"the pinned content");
    let cached = temp.path().join("project/.cache/musl-1.2.6.tar.gz");
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    fs::write(&cached, b"something else").unwrap();
    let (code, text) = fetch_from(temp.path(), b"the pinned content", &sha256);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not used"), "{text}");
    assert_eq!(fs::read(&cached).unwrap(), b"the pinned content");
}

#[test]
fn what_fetch_prints_is_a_path_and_where_it_cannot_be_printed_that_is_an_error() {
    if !can_download() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let sha256 = hash_of(temp.path(), b"the pinned content");
    let mut fetch = fetch_in(temp.path(), b"the pinned content", &sha256);
    let out = fetch.output().unwrap();
    let path = temp.path().join("project/.cache/musl-1.2.6.tar.gz");
    assert_eq!(out.stdout, format!("{}\n", path.display()).into_bytes());
    let full = fs::File::create("/dev/full").unwrap();
    let (code, text) = outcome(&fetch.stdout(full).output().unwrap());
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("stdout"), "{text}");
}

/// A file, and a directory with one in it, in `dir`: what they hold must stay.
fn foreign(dir: &Path) -> [PathBuf; 2] {
    let [file, tree] = ["file", "tree"].map(|name| dir.join(name));
    fs::create_dir(&tree).unwrap();
    for file in [&file, &tree.join("mine")] {
        fs::write(file, "mine").unwrap();
    }
    [file, tree]
}

/// Whether both are as `foreign` made them.
fn is_whole([file, tree]: &[PathBuf; 2]) -> bool {
    let stays = |file: &Path| fs::read(file).is_ok_and(|text| text == b"mine");
    stays(file) && stays(&tree.join("mine")) && fs::read_dir(tree).unwrap().count() == 1
}

#[test]
fn what_byssal_did_not_make_is_neither_replaced_nor_removed() {
    let temp = tempfile::tempdir().unwrap();
    let musl = temp.path().join("musl");
    likeness(&musl, "1.2.6");
    let all = foreign(temp.path());
    for there in &all {
        let [there, musl] = [there, &musl].map(|path| path.to_str().unwrap());
        for args in [
            &["patch", "--musl", musl, "--dest", there][..],
            &["dist", "--musl", musl, "--dest", there],
            &["profile", "--dest", there, "/bin/sh"],
            &["--out", there, "clean"],
            &["--out", there, "patch", "--musl", musl],
        ] {
            let (code, text) = outcome(&byssal(args));
            assert_eq!(code, 2, "{args:?}: {text}");
            assert!(
                text.contains(there) && text.contains("what to do"),
                "{text}"
            );
            assert!(is_whole(&all), "{args:?}: {text}");
        }
    }
}

/// A project of the test's own in `dir`, and a likeness of musl. What must stay is theirs alone.
fn project_and_musl(dir: &Path) -> [PathBuf; 2] {
    let [project, musl] = ["project", "musl"].map(|name| dir.join(name));
    project_with_pins(&project, &pins(dir, &"0".repeat(64)));
    likeness(&musl, "1.2.6");
    [project, musl]
}

/// The tool in such a project.
fn byssal_in(project: &Path, args: &[&str]) -> (i32, String) {
    let mut cmd = Command::new(env!("CARGO_BIN_EXE_byssal"));
    outcome(&cmd.args(args).current_dir(project).output().unwrap())
}

#[test]
fn no_way_through_out_leads_to_what_byssal_did_not_make() {
    let temp = tempfile::tempdir().unwrap();
    let [project, musl] = project_and_musl(temp.path());
    let musl = musl.to_str().unwrap();
    let all = foreign(&project);
    // The first time nothing of it is there, and then the link leads to out/log.
    for is_there in [false, true] {
        for args in [
            &["--out", "out/..", "clean"][..],
            &["--out", "out/../tree", "clean"],
            &["--out", "link/../../tree", "clean"],
            &["patch", "--musl", musl, "--dest", "out/../tree"],
            &["patch", "--musl", musl, "--dest", "link/../../tree"],
        ] {
            let (code, text) = byssal_in(&project, args);
            assert_eq!(code, 2, "{args:?}, {is_there}: {text}");
            assert!(is_whole(&all), "{args:?}: {text}");
            let root = project.join("patches/pins.toml");
            assert!(root.is_file(), "{args:?}: {text}");
        }
        if !is_there {
            fs::create_dir_all(project.join("out/log")).unwrap();
            symlink("out/log", project.join("link")).unwrap();
        }
    }
}

#[test]
fn no_result_takes_the_place_of_all_that_byssal_made() {
    let temp = tempfile::tempdir().unwrap();
    let [project, musl] = project_and_musl(temp.path());
    let musl = musl.to_str().unwrap();
    let made = project.join("out/log/x");
    project::write_file(&made, b"made").unwrap();
    let marked = temp.path().join("marked");
    // What byssal made where it was told, and then the user had it work in that.
    project::write_file(&marked.join(".byssal"), b"").unwrap();
    let inside = marked.join("out");
    let [marked, inside] = [&marked, &inside].map(|path| path.to_str().unwrap());
    for args in [
        &["patch", "--musl", musl, "--dest", "out"][..],
        &["dist", "--musl", musl, "--dest", "out/log/.."],
        &["profile", "--dest", "out", "/bin/sh"],
        &["--out=out/other", "patch", "--musl", musl, "--dest=out"],
        &["--out", "elsewhere", "patch", "--musl", musl, "--dest=out"],
        &["--out", inside, "patch", "--musl", musl, "--dest", marked],
    ] {
        let (code, text) = byssal_in(&project, args);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert!(text.contains("all that byssal made"), "{args:?}: {text}");
        assert!(made.is_file(), "{args:?}: {text}");
    }
}

#[test]
fn behind_a_link_what_it_leads_to_is_meant() {
    let temp = tempfile::tempdir().unwrap();
    let [project, musl] = project_and_musl(temp.path());
    let (musl, all) = (musl.to_str().unwrap(), foreign(temp.path()));
    for link in ["out", "dest"] {
        symlink(&all[1], project.join(link)).unwrap();
    }
    for args in [
        &["clean"][..],
        &["--out=out", "clean"],
        &["patch", "--musl", musl, "--dest=dest"],
    ] {
        let (code, text) = byssal_in(&project, args);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert!(is_whole(&all), "{args:?}: {text}");
    }
    let big = temp.path().join("big");
    fs::create_dir_all(big.join("log")).unwrap();
    fs::write(big.join(".lock"), "").unwrap();
    fs::remove_file(project.join("out")).unwrap();
    symlink(&big, project.join("out")).unwrap();
    // The second time the link leads to nothing any more.
    for _ in 0..2 {
        let (code, text) = byssal_in(&project, &["clean"]);
        assert_eq!(code, 0, "{text}");
        assert!(!big.exists(), "{text}");
        assert!(project.join("out").is_symlink(), "{text}");
    }
}

#[test]
fn checking_writes_nothing_through_out_before_the_tool_has() {
    let temp = tempfile::tempdir().unwrap();
    let [project, _] = project_and_musl(temp.path());
    let [_, foreign] = foreign(temp.path());
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let script = common::root().join("ci/check");
    fs::create_dir(project.join("ci")).unwrap();
    fs::copy(script, project.join("ci/check")).unwrap();
    let target = Path::new(env!("CARGO_BIN_EXE_byssal")).ancestors().nth(2);
    for (leads_to, code, left) in [(&empty, 4, 1), (&foreign, 2, 1)] {
        let out = project.join("out");
        symlink(leads_to, &out).unwrap();
        let mut check = Command::new("bash");
        check.arg(project.join("ci/check"));
        check.args(["--musl", "/no/such/musl"]);
        check.env("CARGO_TARGET_DIR", target.unwrap());
        let (got, text) = outcome(&check.output().unwrap());
        assert_eq!(got, code, "{text}");
        assert_eq!(fs::read_dir(leads_to).unwrap().count(), left, "{text}");
        fs::remove_file(out).unwrap();
    }
}

#[test]
fn what_byssal_made_where_it_was_told_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let [musl, dest, link] = ["musl", "series", "link"].map(|name| temp.path().join(name));
    likeness(&musl, "1.2.6");
    symlink(&dest, &link).unwrap();
    let [musl, made, through] = [&musl, &dest, &link].map(|path| path.to_str().unwrap());
    for made in [made, made, through] {
        let (code, text) = outcome(&byssal(&["patch", "--musl", musl, "--dest", made]));
        assert_eq!(code, 0, "{text}");
        assert!(dest.join("INSTALL").is_file(), "{text}");
        assert!(link.is_symlink(), "{text}");
        fs::remove_file(dest.join("INSTALL")).unwrap();
    }
}

#[test]
fn a_place_for_results_within_the_musl_tree_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let [project, musl] = project_and_musl(temp.path());
    let [tree, dest, out] = [&musl, &musl.join("new/series"), &musl.join("out")]
        .map(|path| path.to_str().unwrap().to_owned());
    for (args, place) in [
        (["patch", "--musl", &tree, "--dest", &dest], &dest),
        (["dist", "--musl", &tree, "--dest", &dest], &dest),
        (["patch", "--musl", &tree, "--out", &out], &out),
    ] {
        let (code, text) = byssal_in(&project, &args);
        assert_eq!(code, 2, "{args:?}: {text}");
        for named in [&format!("{place} "), &format!("{tree},"), "what to do"] {
            assert!(text.contains(named), "{named}: {text}");
        }
        for made in ["new", "out"] {
            assert!(!musl.join(made).exists(), "{args:?}: {text}");
        }
    }
}

/// Every file of a likeness of musl in `dir`, with its content.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = project::files(dir, &|_| true).unwrap().into_iter();
    let read = |name: PathBuf| (dir.join(&name), fs::read(dir.join(name)).unwrap());
    files.map(read).collect()
}

#[test]
fn a_tree_of_links_is_patched_in_a_copy_of_what_they_lead_to() {
    let temp = tempfile::tempdir().unwrap();
    let [mine, farm] = ["mine", "farm"].map(|name| temp.path().join(name));
    likeness(&mine, "1.2.6");
    for name in project::files(&mine, &|_| true).unwrap() {
        let link = farm.join(&name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        // As `cp -rs` makes them, and such as would lead to nothing in a copy.
        let up = "../".repeat(name.components().count());
        match name.starts_with("src") {
            true => symlink(mine.join(&name), link).unwrap(),
            false => symlink(Path::new(&up).join("mine").join(&name), link).unwrap(),
        }
    }
    let before = contents(&mine);
    let project = common::project(&temp.path().join("out"));
    let pins = Pins::read(&project.root).unwrap();
    let find = || Source::find(&project, &pins, farm.to_str().unwrap()).unwrap();
    let source = find();
    let tree = source.lay(&temp.path().join("copy")).unwrap();
    let patches = edit::read(&project.root, false).unwrap();
    let fitted = edit::fit(&project.root, &patches, &Cores::none(), &source, &tree).unwrap();
    edit::apply(&tree, &fitted).unwrap();
    assert_eq!(before, contents(&mine));
    let edited = "src/internal/pthread_impl.h";
    let [ours, theirs] = [&tree, &mine].map(|dir| fs::read(dir.join(edited)).unwrap());
    assert_ne!(ours, theirs);
    // What is changed behind a link is a change of the tree.
    fs::write(mine.join("VERSION"), "1.2.6\n").unwrap();
    assert_ne!(source.identity, find().identity);
}

#[test]
fn no_edit_goes_through_a_link_out_of_the_tree() {
    let elsewhere = tempfile::tempdir().unwrap();
    let thread = elsewhere.path().join("thread");
    let (code, text, left) = patch_changed(|tree| {
        fs::rename(tree.join("src/thread"), &thread).unwrap();
        symlink(&thread, tree.join("src/thread")).unwrap();
    });
    assert_eq!((code, left), (5, 0), "{text}");
    for named in ["src/thread/pthread_create.c", "out of the tree", "cp -rL"] {
        assert!(text.contains(named), "{text}");
    }
}

/// A tarball whose entry `name` is a link, behind the files of `tree`, if it is given, at `musl/`.
fn packed_link(tarball: &Path, tree: Option<&Path>, name: &str, target: &Path) {
    let mut tar = tar::Builder::new(fs::File::create(tarball).unwrap());
    if let Some(tree) = tree {
        tar.append_dir_all("musl", tree).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, name, target).unwrap();
    tar.finish().unwrap();
}

#[test]
fn no_link_in_a_tarball_leads_to_a_tree_of_the_users() {
    let temp = tempfile::tempdir().unwrap();
    let [musl, rest, tarball] = ["musl", "rest", "x.tar"].map(|name| temp.path().join(name));
    for dir in [&musl, &rest] {
        likeness(dir, "1.2.6");
    }
    fs::remove_dir_all(rest.join("src/thread")).unwrap();
    let patch = || outcome(&byssal(&["patch", "--musl", tarball.to_str().unwrap()]));
    packed_link(&tarball, None, "musl", &musl);
    let (code, text) = patch();
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("x.tar: holds nothing but a link"), "{text}");
    packed_link(
        &tarball,
        Some(&rest),
        "musl/src/thread",
        &musl.join("src/thread"),
    );
    let (code, text) = patch();
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("out of the tree"), "{text}");
}

#[test]
fn the_label_of_a_tree_goes_by_where_it_lies() {
    let temp = tempfile::tempdir().unwrap();
    let [tree, other, link] = ["tree", "other", "link"].map(|name| temp.path().join(name));
    for dir in [&tree, &other] {
        likeness(dir, "1.2.6");
    }
    symlink(&tree, &link).unwrap();
    let project = common::project(&temp.path().join("out"));
    let pins = Pins::read(&project.root).unwrap();
    let label =
        |path: &Path| Source::find(&project, &pins, path.to_str().unwrap()).map(|s| s.label);
    let one = label(&tree).unwrap();
    for same in ["tree/", "other/../tree", "./tree/.", "link"] {
        assert_eq!(label(&temp.path().join(same)).unwrap(), one, "{same}");
    }
    assert_ne!(label(&other).unwrap(), one);
}

/// The next line that a run of the tool says.
fn next_line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line
}

#[test]
fn whoever_waited_for_a_clean_does_not_work_beside_the_next() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let first = project::lock_dir(&out).unwrap();
    let mut waits = Command::new(env!("CARGO_BIN_EXE_byssal"));
    waits.args(["clean", "--out"]).arg(&out);
    waits.current_dir(common::root()).stderr(Stdio::piped());
    let mut waits = waits.spawn().unwrap();
    let mut said = BufReader::new(waits.stderr.take().unwrap());
    assert!(next_line(&mut said).contains("waiting"));
    // It has opened the lock file that goes now, and there is a new one before it gets the old one.
    fs::remove_dir_all(&out).unwrap();
    let second = project::lock_dir(&out).unwrap();
    drop(first);
    let line = next_line(&mut said);
    assert!(line.contains("waiting"), "works beside another: {line:?}");
    assert!(out.join(".lock").is_file());
    drop(second);
    assert!(waits.wait().unwrap().success());
    assert!(!out.exists());
}

#[test]
fn clean_takes_the_pinned_tarballs_out_of_a_cache_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let [project, cache] = ["project", "cache"].map(|name| temp.path().join(name));
    project_with_pins(&project, &pins(temp.path(), &"0".repeat(64)));
    fs::create_dir_all(project.join("out/log")).unwrap();
    fs::create_dir(&cache).unwrap();
    for name in ["musl-1.2.6.tar.gz", "lua-1.2.6.tar.gz", "mine"] {
        fs::write(cache.join(name), "mine").unwrap();
    }
    let mut clean = Command::new(env!("CARGO_BIN_EXE_byssal"));
    clean.args(["clean", "--cache"]).current_dir(&project);
    let (code, text) = outcome(&clean.env("BYSSAL_CACHE", &cache).output().unwrap());
    assert_eq!(code, 0, "{text}");
    assert!(!project.join("out").exists());
    let left: Vec<_> = fs::read_dir(&cache).unwrap().flatten().collect();
    assert!(left.len() == 1 && left[0].file_name() == "mine", "{left:?}");
}

/// `patch` on a likeness of musl that `change` has changed.
fn patch_changed(change: impl Fn(&Path)) -> (i32, String, usize) {
    written_of("patch", change)
}

/// A command that writes a series of a likeness of musl that `change` has changed: exit code, what
/// it said, and how much it left.
fn written_of(command: &str, change: impl Fn(&Path)) -> (i32, String, usize) {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    likeness(&tree, "1.2.6");
    change(&tree);
    let dest = temp.path().join("series");
    let args = [
        command,
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
    for command in ["patch", "dist"] {
        let (code, text, left) = written_of(command, |tree| {
            let rest = "hidden void __pthread_tsd_run_dtors();\n";
            fs::write(tree.join(header), rest).unwrap();
        });
        assert_eq!((code, left), (5, 0), "{text}");
        assert!(
            text.contains(header) && text.contains("no line contains"),
            "{text}"
        );
        assert!(!text.contains("allocator core"), "compiled before: {text}");
    }
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
fn a_machine_without_a_core_stops_make() {
    let temp = tempfile::tempdir().unwrap();
    let Some(tree) = configured(temp.path(), &Cores::none()) else {
        return;
    };
    for target in ["lib/libc.a", "lib/libc.so", "obj/src/malloc/byssal/glue.lo"] {
        let (code, text) = make(&tree, target);
        assert_ne!(code, 0, "{text}");
        assert!(text.contains("no core for this machine"), "{text}");
    }
}

#[test]
fn a_tree_with_another_allocator_in_it_is_refused_with_its_line() {
    let (code, text, left) = patch_changed(|tree| {
        let file = tree.join("src/internal/pthread_impl.h");
        let text = fs::read_to_string(&file).unwrap();
        let changed = text.replace("stdio_locks;\n", "stdio_locks;\n\tvoid *malloc_tls;\n");
        fs::write(&file, changed).unwrap();
    });
    assert_eq!((code, left), (5, 0), "{text}");
    assert!(
        text.contains("malloc_tls") && text.contains("another allocator"),
        "{text}"
    );
    assert!(
        !text.contains("allocator core"),
        "the core was compiled for it:\n{text}"
    );
}

#[test]
fn an_unknown_machine_is_refused_with_the_known_ones() {
    for args in [
        ["build", "--target", "sh4-linux-musl"],
        ["patch", "--target", "x"],
    ] {
        let (code, text) = outcome(&byssal(&args));
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("aarch64-linux-musl"), "{text}");
    }
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

/// The tool with these variables in its environment.
fn byssal_with(variables: &[(&str, &str)], args: &[&str]) -> (i32, String) {
    let mut cmd = Command::new(env!("CARGO_BIN_EXE_byssal"));
    cmd.args(args)
        .current_dir(common::root())
        .envs(variables.iter().copied());
    outcome(&cmd.output().unwrap())
}

#[test]
fn a_number_of_jobs_is_a_number_that_make_takes() {
    for jobs in ["0", "-1", "x", "", "99999999999999999999"] {
        let (code, text) = outcome(&byssal(&["fetch", &format!("--jobs={jobs}")]));
        assert_eq!(code, 2, "JOBS={jobs}: {text}");
        assert!(text.contains("JOBS") || jobs.is_empty(), "{text}");
    }
}

#[test]
fn a_prefix_that_a_toolchain_cannot_have_is_refused() {
    for (prefix, why) in [
        ("", "is empty"),
        ("relative", "not absolute"),
        ("/", "the root"),
        ("/a#b", "'#'"),
        ("/a\nb", "'\\n'"),
    ] {
        let (code, text) = outcome(&byssal(&["install", &format!("--prefix={prefix}")]));
        assert_eq!(code, 2, "PREFIX={prefix}: {text}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn what_is_no_compiler_for_this_machine_is_refused_before_anything_is_built() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    let out = format!("--out={}", out.display());
    for (cc, code, why) in [
        ("no-such-compiler", 3, "is not there"),
        ("/bin/false", 2, "neither gcc nor clang"),
        ("/a b/cc", 2, "not one plain word"),
        ("gcc -m32", 2, "not one plain word"),
    ] {
        let (got, text) = outcome(&byssal(&["build", "--cc", cc, &out]));
        assert_eq!(got, code, "CC={cc}: {text}");
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_compiler_is_another_once_its_script_has_changed() {
    let temp = tempfile::tempdir().unwrap();
    let cc = temp.path().join("cc");
    let cc = cc.to_str().unwrap();
    let identity = |flags: &str| {
        // By another process: a file that this one has open for writing cannot be run.
        let text = format!("#!/bin/sh\nexec gcc {flags} \"$@\"\n");
        let write = r#"printf %s "$2" >"$1" && chmod +x "$1""#;
        succeed(Command::new("sh").args(["-c", write, "sh", cc, &text]));
        Compiler::find(Some(cc), None, None).unwrap().identity
    };
    assert_eq!(identity("-O2"), identity("-O2"));
    assert_ne!(identity("-O2"), identity("-O1"));
}

#[test]
fn missing_binutils_are_named_before_anything_is_built() {
    let temp = tempfile::tempdir().unwrap();
    for program in ["gcc", "make", "cargo", "rustc"] {
        let Some(found) = run::found(program) else {
            println!("skipped: {program} is not installed");
            return;
        };
        symlink(found, temp.path().join(program)).unwrap();
    }
    let out = temp.path().join("out");
    let out_flag = format!("--out={}", out.display());
    // No apt-get either, which would install them.
    let path = [("PATH", temp.path().to_str().unwrap())];
    let (code, text) = byssal_with(&path, &["build", "--musl=/no/such/musl", &out_flag]);
    assert_eq!(code, 3, "{text}");
    for named in [
        "ar, ld, objcopy, ranlib, size, as",
        "apt-get install",
        " binutils",
    ] {
        assert!(text.contains(named), "{named}: {text}");
    }
    assert!(!out.join("build").exists(), "{text}");
}

#[test]
fn settings_pass_through_make_as_they_are_written() {
    for musl in [
        "it's",
        "a\"b",
        "$x$(y)`z`",
        "back\\slash",
        "line\nbreak",
        "-x",
    ] {
        let mut make = Command::new("make");
        make.current_dir(common::root())
            .args(["fetch", &format!("MUSL={musl}")])
            .env_remove("MAKEFLAGS");
        let (code, text) = outcome(&make.output().unwrap());
        assert_ne!(code, 0, "{text}");
        let want = format!("MUSL={musl:?} is neither");
        assert!(text.contains(&want), "{want}: {text}");
    }
}

#[test]
fn a_damaged_tarball_is_told_of_in_plain_words() {
    let temp = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..4096u32).map(|i| (i * 7 + i / 256) as u8).collect();
    for (name, start) in [
        ("plain.tar", &b""[..]),
        ("x.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
        ("x.tar.xz", b"\xfd7zXZ\0"),
    ] {
        let file = temp.path().join(name);
        fs::write(&file, [start, &noise].concat()).unwrap();
        let (code, text) = outcome(&byssal(&["patch", "--musl", file.to_str().unwrap()]));
        if code == 3 && name.ends_with(".xz") && text.contains("cannot run xz") {
            println!("skipped: xz is not installed");
            continue;
        }
        assert_eq!(code, 4, "{text}");
        assert!(
            text.contains(name) && text.contains("get it again"),
            "{text}"
        );
        let odd = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(odd), "{text:?}");
        let ours = text.replace(temp.path().to_str().unwrap(), "");
        assert!(!ours.contains(".tmp"), "names a temporary path: {text}");
    }
}

/// Has the command write no file beyond that many bytes, as on a disk that is full then.
fn limited(cmd: &mut Command, bytes: u64) -> &mut Command {
    // SAFETY: what runs between fork and exec only calls the kernel.
    unsafe {
        cmd.pre_exec(move || {
            // Then the write fails, and the process goes on.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    }
}

#[test]
fn no_room_to_unpack_is_no_damage_of_the_tarball() {
    let temp = tempfile::tempdir().unwrap();
    let [project, musl] = project_and_musl(temp.path());
    let tarball = temp.path().join("x.tar");
    fs::write(musl.join("long"), vec![b'x'; 1 << 16]).unwrap();
    common::packed(&musl, &tarball);
    let mut tried = vec![tarball.clone()];
    if run::exists("xz") {
        succeed(Command::new("xz").arg("-k").arg(&tarball));
        tried.push(temp.path().join("x.tar.xz"));
    } else {
        println!("skipped: xz is not installed");
    }
    for tarball in tried {
        let mut cmd = Command::new(env!("CARGO_BIN_EXE_byssal"));
        cmd.args(["fetch", "--musl"]).arg(&tarball);
        let out = limited(cmd.current_dir(&project), 1 << 14).output();
        let (code, text) = outcome(&out.unwrap());
        assert_eq!(code, 1, "{text}");
        for named in [
            tarball.to_str().unwrap(),
            "out/build/",
            "too large",
            "--out",
        ] {
            assert!(text.contains(named), "{named}: {text}");
        }
        assert!(!text.contains("damaged"), "{text}");
    }
}

#[test]
fn what_a_killed_run_left_is_removed_and_nothing_is_left_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let [project, musl] = project_and_musl(temp.path());
    let tarball = temp.path().join("x.tar");
    common::packed(&musl, &tarball);
    fs::write(musl.join("Makefile"), "all:\n").unwrap();
    // No process has that number: there are none above 2^22.
    let stale = project.join("out/build/.byssal-tmp-4200000-x");
    for (musl, code) in [(&tarball, 0), (&musl, 5)] {
        fs::create_dir_all(&stale).unwrap();
        let mut cmd = Command::new(env!("CARGO_BIN_EXE_byssal"));
        cmd.args([if code == 0 { "fetch" } else { "patch" }, "--musl"]);
        cmd.arg(musl)
            .current_dir(&project)
            .env("TMPDIR", "/nonexistent");
        let (got, text) = outcome(&cmd.output().unwrap());
        assert_eq!(got, code, "{text}");
        let left: Vec<_> = fs::read_dir(project.join("out/build")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_tarball_may_be_packed_in_several_parts() {
    let temp = tempfile::tempdir().unwrap();
    let [tree, plain, packed] = ["musl", "x.tar", "x.tar.gz"].map(|name| temp.path().join(name));
    likeness(&tree, "1.2.6");
    common::packed(&tree, &plain);
    let mut file = fs::File::create(&packed).unwrap();
    // Within an entry.
    for part in fs::read(&plain).unwrap().chunks(2000) {
        let mut member = GzEncoder::new(&mut file, Compression::fast());
        member.write_all(part).unwrap();
        member.finish().unwrap();
    }
    let project = common::project(&temp.path().join("out"));
    let pins = Pins::read(&project.root).unwrap();
    let source = Source::find(&project, &pins, packed.to_str().unwrap()).unwrap();
    let laid = source.lay(&temp.path().join("laid")).unwrap();
    let names = |dir: &Path| project::files(dir, &|_| true).unwrap();
    assert_eq!(names(&laid), names(&tree));
}

#[test]
fn a_failed_download_tells_what_the_client_said_last() {
    let temp = tempfile::tempdir().unwrap();
    let site = temp.path().join("nothing-here");
    let project = temp.path().join("project");
    project_with_pins(&project, &pins(&site, &"0".repeat(64)));
    // Only python3, and no apt: the way of a machine without curl and wget.
    let path = temp.path().join("path");
    fs::create_dir(&path).unwrap();
    let python = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join("python3"))
        .find(|p| p.is_file());
    let Some(python) = python else {
        println!("skipped: python3 is not installed");
        return;
    };
    std::os::unix::fs::symlink(python, path.join("python3")).unwrap();
    let variables = [
        ("PATH", path.to_str().unwrap()),
        ("HOME", temp.path().to_str().unwrap()),
        ("XDG_CACHE_HOME", ""),
        ("BYSSAL_CACHE", ""),
    ];
    let root = format!("--root={}", project.display());
    let (code, text) = byssal_with(&variables, &["fetch", &root]);
    assert_eq!(code, 4, "{text}");
    assert!(
        !text.contains("Traceback") && !text.contains("import"),
        "{text}"
    );
    assert!(text.contains("nothing-here"), "{text}");
}

#[test]
fn messages_about_a_patched_tree_name_the_tree_of_the_user() {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("mine");
    likeness(&tree, "1.2.6");
    fs::create_dir_all(tree.join("src/malloc/byssal")).unwrap();
    fs::write(tree.join("src/malloc/byssal/glue.c"), "").unwrap();
    let (code, text) = outcome(&byssal(&["patch", "--musl", tree.to_str().unwrap()]));
    assert_eq!(code, 5, "{text}");
    let named = tree.join("src/malloc/byssal/glue.c is there already");
    assert!(text.contains(named.to_str().unwrap()), "{text}");
    assert!(!text.contains(".byssal-tmp"), "{text}");
}

#[test]
fn an_unpacked_release_is_known_and_a_change_is_named() {
    let Ok(source) = common::musl("1.2.6") else {
        println!("skipped: needs musl 1.2.6");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let tree = source.lay(temp.path()).unwrap();
    let find = || outcome(&byssal(&["fetch", "--musl", tree.to_str().unwrap()]));
    // What a build and git leave is no change.
    fs::create_dir_all(tree.join("obj/src")).unwrap();
    fs::write(tree.join("config.mak"), "").unwrap();
    let (code, text) = find();
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("warning"), "{text}");
    fs::write(tree.join("Makefile"), "all:\n").unwrap();
    fs::remove_file(tree.join("COPYRIGHT")).unwrap();
    let (code, text) = find();
    assert_eq!(code, 0, "{text}");
    let named = format!("{} differs from musl 1.2.6", tree.display());
    assert!(text.contains(&named), "{text}");
    assert!(text.contains("COPYRIGHT (missing), Makefile;"), "{text}");
    fs::write(tree.join("VERSION"), "../../elsewhere\n").unwrap();
    let (code, text) = find();
    assert_eq!(code, 5, "{text}");
}

#[test]
fn the_old_toolchain_is_there_after_a_build_that_fails() {
    if let Err(why) = common::musl("1.2.6") {
        println!("skipped: needs musl 1.2.6: {why}");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("out");
    for file in [
        "musl-1.2.6/lib/libc.a",
        "lib/libbyssal.so",
        "patches/musl-1.2.6/INSTALL",
        // By this the directory is known as one of the tool's.
        ".lock",
    ] {
        let file = out.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "old").unwrap();
    }
    // A compiler that looks good and fails at the first file of musl itself.
    let cc = temp.path().join("cc");
    let script =
        "#!/bin/sh\ncase \"$*\" in *src/*) echo broken >&2; exit 1;; esac\nexec gcc \"$@\"\n";
    fs::write(&cc, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&cc, mode).unwrap();
    let out_flag = format!("--out={}", out.display());
    let (code, text) = outcome(&byssal(&["build", "--cc", cc.to_str().unwrap(), &out_flag]));
    assert_eq!(code, 6, "{text}");
    for file in [
        "musl-1.2.6/lib/libc.a",
        "lib/libbyssal.so",
        "patches/musl-1.2.6/INSTALL",
    ] {
        assert_eq!(fs::read_to_string(out.join(file)).unwrap(), "old", "{file}");
    }
}
