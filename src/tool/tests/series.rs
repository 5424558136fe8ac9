//! The series against every pinned release that can be had here.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use byssal_tool::cores::Cores;
use byssal_tool::{edit, project, run, series};
use common::{musl, root, succeed, versions};

/// The files of the series in `dir`, in order.
fn patches_in(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "patch"));
    files.sort();
    files
}

fn git(dir: &Path, args: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(dir).args(args);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
    ] {
        git.env(name, value);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "t")
            .env(format!("GIT_{who}_EMAIL"), "t@localhost");
    }
    git
}

/// Both trees have the same files with the same content.
fn assert_same(a: &Path, b: &Path) {
    succeed(
        Command::new("diff")
            .args(["-r", "-q", "-x", ".git"])
            .arg(a)
            .arg(b),
    );
}

#[test]
fn series_gives_the_edited_tree_by_git_am_and_by_patch() {
    let patches = edit::read(&root(), true).unwrap();
    let mut tried = 0;
    for version in versions() {
        let source = match musl(&version) {
            Ok(source) => source,
            Err(why) => {
                println!("skipped: edits against musl {version}: {why}");
                continue;
            }
        };
        let temp = tempfile::tempdir().unwrap();
        let lay = |name: &str| source.lay(&temp.path().join(name)).unwrap();
        let edited = lay("edited");
        let fitted = edit::fit(&root(), &patches, &Cores::none(), &source, &edited).unwrap();
        assert_eq!(fitted.len(), patches.len());
        edit::apply(&edited, &fitted).unwrap();
        let dir = temp.path().join("series");
        series::write(&dir, &fitted).unwrap();
        let files = patches_in(&dir);
        assert_eq!(files.len(), patches.len());

        if run::exists("patch") {
            let tree = lay("by-patch");
            for file in &files {
                let mut patch = Command::new("patch");
                succeed(
                    patch
                        .current_dir(&tree)
                        .args(["-p1", "--fuzz=0", "-i"])
                        .arg(file),
                );
            }
            assert_same(&edited, &tree);
        } else {
            println!("skipped: patch -p1 on musl {version}: patch is not installed");
        }
        if run::exists("git") {
            let tree = lay("by-git");
            succeed(&mut git(&tree, &["init", "-q"]));
            succeed(&mut git(&tree, &["add", "-Af"]));
            succeed(&mut git(&tree, &["commit", "-q", "-m", "pristine"]));
            succeed(git(&tree, &["am", "-q"]).args(&files));
            assert_same(&edited, &tree);
            let log = run::output(&mut git(&tree, &["log", "--reverse", "--format=%s"])).unwrap();
            let subjects: Vec<&str> = log.lines().skip(1).collect();
            assert_eq!(
                subjects,
                patches
                    .iter()
                    .map(|p| p.subject.as_str())
                    .collect::<Vec<_>>()
            );
        } else {
            println!("skipped: git am on musl {version}: git is not installed");
        }
        let again = edit::fit(&root(), &patches, &Cores::none(), &source, &edited)
            .err()
            .expect("a patched tree must be refused");
        assert!(
            again.to_string().contains("there must be one")
                || again.to_string().contains("already"),
            "{again}"
        );
        tried += 1;
    }
    println!("tried {tried} versions");
    if tried == 0 {
        println!("skipped: edits against musl: no pinned version can be had here");
    }
}

#[test]
fn series_is_the_same_every_time() {
    let temp = tempfile::tempdir().unwrap();
    let patches = edit::read(&root(), true).unwrap();
    let mut texts = Vec::new();
    for name in ["a", "a-longer-name"] {
        let tree = temp.path().join(name);
        common::likeness(&tree, "1.2.6");
        let pins = byssal_tool::pins::Pins::read(&root()).unwrap();
        let project = common::project(temp.path());
        let source =
            byssal_tool::source::Source::find(&project, &pins, &tree.to_string_lossy()).unwrap();
        let laid = source.lay(&temp.path().join("laid").join(name)).unwrap();
        texts.push(series::whole(
            &edit::fit(&root(), &patches, &Cores::none(), &source, &laid).unwrap(),
        ));
    }
    assert_eq!(texts[0], texts[1]);
    let cores = texts[0].matches("\n---\n").count();
    assert_eq!(cores, patches.len(), "one patch, one body");
    let glue = project::read_text(&root().join("musl-glue/glue.c")).unwrap();
    let added = texts[0]
        .lines()
        .filter_map(|l| l.strip_prefix('+'))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        added.contains(glue.trim_end()),
        "glue.c goes into the series whole"
    );
}
