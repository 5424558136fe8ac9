//! The build as a whole: the same bits from any directory, and no work twice.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use byssal_tool::core::{Preset, Recipe};
use byssal_tool::musl::Compiler;
use byssal_tool::{archive, project};
use common::{byssal, outcome, root};

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
    let start = Instant::now();
    let (code, text) = outcome(&byssal(&["build"]));
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains(" ...\n"), "a step ran again:\n{text}");
    assert_eq!(fs::metadata(&libc).unwrap().modified().unwrap(), before);
    assert!(
        start.elapsed().as_secs() < 20,
        "{:?} for nothing",
        start.elapsed()
    );
}
