//! The recipes for build systems (docs/recipes), on small trees in the form of theirs, and what
//! ci/musl-cross-make refuses. Nothing here needs a network.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use byssal_tool::dist;
use byssal_tool::pins::Pins;
use common::{root, succeed};

/// A system as small as it can be; @ stands for musl's version.
struct System {
    name: &'static str,
    /// Paths and texts of its tree.
    files: &'static [(&'static str, &'static str)],
    /// Where the patch must go.
    place: &'static str,
}

const SYSTEMS: &[System] = &[
    System {
        name: "alpine",
        files: &[(
            "main/musl/APKBUILD",
            "pkgver=@\npkgrel=9\nsource=\"a.tar.gz\n\tb.patch\n\t\"\nsha512sums=\"\n0  a\n\"\n",
        )],
        place: "main/musl/byssal.patch",
    },
    System {
        name: "buildroot",
        files: &[("package/musl/musl.mk", "#\nMUSL_VERSION = @\n")],
        place: "package/musl/9999-byssal.patch",
    },
    System {
        name: "chimera",
        files: &[
            (
                "main/musl/template.py",
                "pkgver = \"@\"\npkgrel = 2\n_use_mng = self.profile().wordsize == 32\n\
                 if _use_mng:\n    configure_args += [\"--with-malloc=mallocng\"]\n",
            ),
            ("main/musl/patches/mimalloc-errno.patch", ""),
            (
                "main/musl/patches/0001-plumb-in-support-for-externally-provided-allocator-l.patch",
                "",
            ),
            ("main/musl/patches/lto.patch", ""),
        ],
        place: "main/musl/patches/zz-byssal.patch",
    },
    System {
        name: "gentoo",
        files: &[],
        place: "etc/portage/patches/sys-libs/musl-@/byssal.patch",
    },
    System {
        name: "musl-cross-make",
        files: &[("hashes/musl-@.tar.gz.sha1", "")],
        place: "patches/musl-@/byssal.patch",
    },
    System {
        name: "openwrt",
        files: &[(
            "toolchain/musl/common.mk",
            "PKG_NAME:=musl\nPKG_VERSION:=@\n",
        )],
        place: "toolchain/musl/patches/999-byssal.patch",
    },
    System {
        name: "void",
        files: &[("srcpkgs/musl/template", "version=@\nrevision=3\n")],
        place: "srcpkgs/musl/patches/zz-byssal.patch",
    },
];

/// The version that is patched by default, and the SHA-256 of its tarball.
fn default_musl() -> (String, String) {
    let musl = Pins::read(&root()).unwrap().musl;
    let pinned = musl.release.iter().find(|r| r.version == musl.default);
    let sum = pinned.unwrap().sha256.clone();
    (musl.default, sum)
}

/// A tree of a system, for a version of musl, and beside it a patch as `byssal dist` names it.
struct Tried {
    temp: tempfile::TempDir,
    tree: PathBuf,
    patch: PathBuf,
}

impl Tried {
    fn new(files: &[(&str, &str)], builds: &str) -> Tried {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for (path, text) in files {
            let file = tree.join(path.replace('@', builds));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text.replace('@', builds)).unwrap();
        }
        let name = dist::name(&default_musl().0);
        let patch = temp.path().join(format!("{name}.patch"));
        fs::write(&patch, "the patch\n").unwrap();
        Tried { temp, tree, patch }
    }

    fn add(&self, system: &str) -> Output {
        add(&[system.as_ref(), &self.tree, &self.patch])
    }

    /// The files of the tree.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut next = vec![self.tree.clone()];
        while let Some(dir) = next.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    next.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    found.insert(path.strip_prefix(&self.tree).unwrap().to_owned(), text);
                }
            }
        }
        found
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.tree.join(path)).unwrap()
    }
}

fn add(args: &[&Path]) -> Output {
    let mut recipe = Command::new("sh");
    recipe.arg(root().join("docs/recipes/add-to-tree"));
    recipe.args(args).output().unwrap()
}

/// It ended with that exit code and a complaint that has these words.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn recipe_lays_the_patch_where_the_system_looks_for_it() {
    let musl = default_musl().0;
    for System { name, files, place } in SYSTEMS {
        let tried = Tried::new(files, &musl);
        let output = tried.add(name);
        assert!(output.status.success(), "{name}: {output:?}");
        let place = place.replace('@', &musl);
        assert_eq!(tried.text(&place), "the patch\n", "{name}");
        let once = tried.files();
        assert!(once
            .keys()
            .all(|f| f.extension().is_none_or(|e| e != "new")));
        // Again, with another patch: that one lies there, and all else is as it was.
        fs::write(&tried.patch, "another\n").unwrap();
        assert!(tried.add(name).status.success());
        let mut twice = tried.files();
        assert_eq!(
            twice.insert(place.into(), "the patch\n".into()).unwrap(),
            "another\n"
        );
        assert_eq!(once, twice, "{name}");
    }
}

#[test]
fn recipe_refuses_a_tree_with_another_musl_and_leaves_it_as_it_was() {
    for System { name, files, .. } in SYSTEMS.iter().filter(|s| !s.files.is_empty()) {
        for builds in ["1.1.24", "1.2"] {
            let tried = Tried::new(files, builds);
            let before = tried.files();
            assert_refused(&tried.add(name), 5, &[&default_musl().0]);
            assert_eq!(before, tried.files(), "{name}");
        }
        let empty = Tried::new(&[], "");
        assert_refused(&empty.add(name), 5, &["is no checkout of", name]);
        assert!(empty.files().is_empty());
    }
}

#[test]
fn recipe_refuses_wrong_usage() {
    let tried = Tried::new(&[], "");
    let (tree, patch) = (tried.tree.as_path(), tried.patch.as_path());
    let misnamed = tried.temp.path().join("byssal.patch");
    fs::write(&misnamed, "").unwrap();
    let nowhere = tried.temp.path().join("nowhere");
    for (args, words) in [
        (&[][..], "usage: "),
        (&["plan9".as_ref(), tree, patch], "plan9"),
        (
            &["void".as_ref(), &nowhere, patch],
            "nowhere is no directory",
        ),
        (&["void".as_ref(), tree, &nowhere], "byssal dist --default"),
        (
            &["void".as_ref(), tree, &misnamed],
            "byssal-VERSION-musl-VERSION.patch",
        ),
    ] {
        assert_refused(&add(args), 2, &[words]);
    }
    assert!(tried.files().is_empty());
}

#[test]
fn alpine_takes_the_patch_as_its_last_source() {
    let tried = Tried::new(SYSTEMS[0].files, &default_musl().0);
    assert!(tried.add("alpine").status.success());
    let mut shell = Command::new("sh");
    shell
        .current_dir(tried.tree.join("main/musl"))
        .args(["-c", ". ./APKBUILD && echo $source $pkgrel"]);
    let said = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    assert_eq!(said, "a.tar.gz b.patch byssal.patch 10\n");
}

#[test]
fn chimera_loses_its_own_allocator_and_nothing_else() {
    let tried = Tried::new(SYSTEMS[2].files, &default_musl().0);
    assert!(tried.add("chimera").status.success());
    let files = tried.files();
    let names: Vec<_> = files.keys().map(|f| f.to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "main/musl/patches/lto.patch",
            "main/musl/patches/zz-byssal.patch",
            "main/musl/template.py",
        ]
    );
    let template = tried.text("main/musl/template.py");
    assert!(template.contains("\n_use_mng = True\n"), "{template}");
    assert!(
        template.contains("[\"--with-malloc=byssal\"]"),
        "{template}"
    );
    assert!(template.contains("\npkgrel = 3\n"), "{template}");
}

#[test]
fn void_has_its_revision_raised() {
    let tried = Tried::new(SYSTEMS[6].files, &default_musl().0);
    assert!(tried.add("void").status.success());
    assert!(tried
        .text("srcpkgs/musl/template")
        .ends_with("\nrevision=4\n"));
}

#[test]
fn dockerfile_takes_the_pinned_musl() {
    let (musl, sum) = default_musl();
    let file = fs::read_to_string(root().join("docs/recipes/Dockerfile")).unwrap();
    let tarball = format!("musl-{musl}.tar.gz");
    for word in [
        format!("COPY {tarball} byssal-*-musl-{musl}.patch "),
        format!("echo {sum} {tarball} "),
        format!("tar xf {tarball} "),
    ] {
        assert!(file.contains(&word), "no {word:?} in the Dockerfile");
    }
}

#[test]
fn overlay_is_nix() {
    let overlay = root().join("docs/recipes/overlay.nix");
    if !byssal_tool::run::exists("nix-instantiate") {
        println!("skipped: overlay.nix: nix-instantiate is not installed (Debian's nix-bin)");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    fs::copy(overlay, temp.path().join("overlay.nix")).unwrap();
    fs::write(temp.path().join("byssal.patch"), "").unwrap();
    let expression = "(import ./overlay.nix { } { musl = { overrideAttrs = change: \
                      change { patches = [ \"theirs\" ]; }; }; }).musl.patches";
    let mut nix = Command::new("nix-instantiate");
    nix.current_dir(temp.path()).env("HOME", temp.path());
    nix.env("NIX_STATE_DIR", temp.path().join("state"));
    nix.env("NIX_STORE_DIR", temp.path().join("store"));
    let output = nix
        .args(["--eval", "--strict", "-E", expression])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.starts_with("[ \"theirs\" ") && said.contains("/byssal.patch ]"),
        "{output:?}"
    );
}

#[test]
fn musl_cross_make_wants_a_checkout() {
    let script = root().join("ci/musl-cross-make");
    for shell_script in [script.clone(), root().join("docs/recipes/add-to-tree")] {
        succeed(Command::new("bash").arg("-n").arg(shell_script));
    }
    let empty = tempfile::tempdir().unwrap();
    let mut without = Command::new(&script);
    without.env_remove("MUSL_CROSS_MAKE");
    assert_refused(&without.output().unwrap(), 2, &["MUSL_CROSS_MAKE=DIR"]);
    let mut wrong = Command::new(&script);
    wrong.env("MUSL_CROSS_MAKE", empty.path());
    assert_refused(
        &wrong.output().unwrap(),
        2,
        &["it is no checkout", "Makefile"],
    );
}
