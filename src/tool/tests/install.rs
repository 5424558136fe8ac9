//! `make install` copies, often as root, and leaves the checkout alone. Here the checkout is a
//! likeness: what make and the tool read, and a toolchain of a few small files.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_tool::core::Preset;
use byssal_tool::install::Ready;
use byssal_tool::project::{self, Project};
use common::{outcome, root};

/// A user that owns nothing, by the number that Linux has for that.
const NOBODY: u32 = 65534;

struct Checkout {
    temp: tempfile::TempDir,
    make: PathBuf,
}

impl Checkout {
    /// A checkout in which nothing is built but the tool.
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        mode(temp.path(), 0o755);
        for part in ["patches", "musl-glue"] {
            let dest = temp.path().join("checkout").join(part);
            project::copy_tree(&root().join(part), &dest, &|_| false).unwrap();
        }
        let path = std::env::var_os("PATH").unwrap();
        let make = std::env::split_paths(&path).map(|dir| dir.join("make"));
        let checkout = Checkout {
            make: make.into_iter().find(|make| make.is_file()).unwrap(),
            temp,
        };
        let tool = checkout.dir().join("target/debug/byssal");
        fs::create_dir_all(tool.parent().unwrap()).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_byssal"), tool).unwrap();
        fs::copy(root().join("Makefile"), checkout.dir().join("Makefile")).unwrap();
        fs::create_dir(checkout.home()).unwrap();
        checkout
    }

    /// The same with a toolchain of `preset` that a whole `make` has left.
    fn built(preset: Preset) -> Self {
        let checkout = Checkout::new();
        let prefix = checkout.dir().join("out/musl-1.2.6");
        let wrapper = format!("exec gcc -specs \"{}/lib/x\"\n", prefix.display());
        for (file, text) in [
            ("lib/libc.a", "archive"),
            ("lib/libc.so", "library"),
            ("bin/musl-gcc", &wrapper),
        ] {
            project::write_file(&prefix.join(file), text.as_bytes()).unwrap();
        }
        mode(&prefix.join("bin/musl-gcc"), 0o700);
        fs::write(checkout.dir().join("out/.lock"), "").unwrap();
        let project = Project::find(Some(&checkout.dir()), None).unwrap();
        Ready::of(&project, "1.2.6", preset).note().unwrap();
        checkout
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("checkout")
    }

    fn home(&self) -> PathBuf {
        self.temp.path().join("home")
    }

    /// `make install` where no program can be found: no cargo, no compiler, nothing.
    fn make(&self, settings: &[&str]) -> Command {
        let mut make = Command::new(&self.make);
        make.arg("install").args(settings).current_dir(self.dir());
        make.env_clear()
            .env("PATH", "/nonexistent")
            .env("HOME", self.home());
        make
    }

    fn install(&self, settings: &[&str]) -> (i32, String) {
        outcome(&self.make(settings).output().unwrap())
    }

    /// Every file of the checkout and of the home: who owns it, and when it was last changed.
    fn state(&self) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
        let mut all = BTreeMap::new();
        let mut dirs = vec![self.dir(), self.home()];
        while let Some(path) = dirs.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                dirs.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
            let state = (meta.uid(), meta.size(), meta.ctime(), meta.ctime_nsec());
            all.insert(path, state);
        }
        all
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn it_needs_no_program_and_leaves_the_checkout_alone() {
    let checkout = Checkout::built(Preset::Default);
    let before = checkout.state();
    let prefix = checkout.temp.path().join("usr/musl");
    let (code, text) = checkout.install(&[&format!("PREFIX={}", prefix.display())]);
    assert_eq!(code, 0, "{text}");
    let destdir = checkout.temp.path().join("package");
    let (code, text) = checkout.install(&[
        &format!("DESTDIR={}", destdir.display()),
        "PREFIX=/opt/musl",
    ]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(before, checkout.state());
    for (dest, named) in [
        (prefix.clone(), prefix.to_str().unwrap()),
        (destdir.join("opt/musl"), "/opt/musl"),
    ] {
        let wrapper = fs::read_to_string(dest.join("bin/musl-gcc")).unwrap();
        assert_eq!(wrapper, format!("exec gcc -specs \"{named}/lib/x\"\n"));
        assert_eq!(
            fs::read_to_string(dest.join("lib/libc.so")).unwrap(),
            "library"
        );
        // The builder's umask may have kept others out; what is installed is for them too.
        assert_eq!(mode_of(&dest.join("bin/musl-gcc")), 0o755);
        assert_eq!(mode_of(&dest.join("lib")), 0o755);
    }
}

#[test]
fn what_is_not_built_is_not_installed() {
    let empty = Checkout::new();
    let prefix = empty.temp.path().join("prefix");
    let prefix = format!("PREFIX={}", prefix.display());
    let check = |checkout: &Checkout, settings: &[&str], remedy: &str| {
        let (before, settings) = (checkout.state(), [&[prefix.as_str()], settings].concat());
        let (code, text) = checkout.install(&settings);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(remedy), "{text}");
        assert_eq!(before, checkout.state());
    };
    check(&empty, &[], "run: make (without sudo)");
    fs::remove_file(empty.dir().join("target/debug/byssal")).unwrap();
    check(&empty, &[], "run: make (without sudo)");

    let built = Checkout::built(Preset::Hardened);
    check(&built, &["MUSL=1.2.5"], "run: make MUSL=1.2.5 (");
    check(&built, &["PRESET=default"], "run: make PRESET=default (");
    // Which one a tarball is is seen when it is unpacked, and that is not done in the checkout.
    let [tree, tarball] = ["tree", "x.tar"].map(|name| built.temp.path().join(name));
    common::likeness(&tree, "1.2.6");
    common::packed(&tree, &tarball);
    let musl = format!("MUSL={}", tarball.display());
    check(&built, &[&musl], &format!("run: make {musl} ("));
    assert_eq!(built.install(&[&prefix, "PRESET=hardened"]).0, 0);
    fs::remove_file(built.dir().join("out/musl-1.2.6/bin/musl-gcc")).unwrap();
    check(&built, &[], "run: make (");
    let built = Checkout::built(Preset::Hardened);
    // A make that was stopped on its way, or failed.
    fs::write(built.dir().join("out/musl-1.2.6/lib/libc.a"), "another").unwrap();
    check(&built, &[], "run: make (");
}

#[test]
fn only_installing_is_for_sudo() {
    let checkout = Checkout::built(Preset::Default);
    let mut owner = fs::metadata(checkout.dir()).unwrap().uid();
    if owner == 0 {
        owner = NOBODY;
        chown(checkout.dir(), Some(owner), None).unwrap();
    }
    // Whoever runs this, make is told that it is root.
    let id = checkout.home().join("id");
    fs::write(&id, "#!/bin/sh\necho 0\n").unwrap();
    mode(&id, 0o755);
    let path = format!("{}:/usr/bin:/bin", checkout.home().display());
    let prefix = checkout.temp.path().join("prefix");
    let sudo = |goal: &str| {
        let mut make = Command::new(&checkout.make);
        make.args([goal, "CARGO=false", &format!("PREFIX={}", prefix.display())]);
        make.env_clear();
        make.env("PATH", &path).env("SUDO_UID", owner.to_string());
        outcome(&make.current_dir(checkout.dir()).output().unwrap())
    };
    for goal in ["all", "check", "bench"] {
        let (code, text) = sudo(goal);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("run make without sudo"), "{text}");
    }
    let (code, text) = sudo("install");
    assert_eq!(code, 0, "{text}");
}

#[test]
fn without_rights_it_says_what_to_do() {
    let checkout = Checkout::built(Preset::Default);
    // Whoever installs can read what is built.
    mode(&checkout.dir().join("out/musl-1.2.6/bin/musl-gcc"), 0o755);
    let locked = checkout.temp.path().join("locked");
    fs::create_dir(&locked).unwrap();
    mode(&locked, 0o555);
    let prefix = locked.join("musl");
    let mut make = checkout.make(&[&format!("PREFIX={}", prefix.display())]);
    if fs::metadata(checkout.dir()).unwrap().uid() == 0 {
        make.uid(NOBODY);
    }
    let (code, text) = outcome(&make.output().unwrap());
    assert_eq!(code, 2, "{text}");
    for word in [
        prefix.to_str().unwrap(),
        "sudo make install",
        "PREFIX=$HOME",
    ] {
        assert!(text.contains(word), "{text}");
    }
}
