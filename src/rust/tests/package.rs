//! The package that `cargo package` makes has all it needs, and no network is asked for it.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

/// Runs a command; what it said, if it failed.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let said = String::from_utf8_lossy(err).into_owned() + &String::from_utf8_lossy(out);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

#[test]
fn an_example_builds_from_the_package_without_a_network() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = tempfile::tempdir().unwrap();
    let made = place.path().join("made");
    let mut package = Command::new(env!("CARGO"));
    package
        .current_dir(root)
        .args(["package", "--offline", "--allow-dirty", "--target-dir"]);
    run(package.arg(&made));

    let name = concat!("byssal-", env!("CARGO_PKG_VERSION"));
    let archive = made.join("package").join(format!("{name}.crate"));
    run(Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .current_dir(place.path()));
    let unpacked = place.path().join(name);
    for file in [
        "LICENSE",
        "process.rs",
        "word.rs",
        "heap/class.rs",
        "inspect/stats.rs",
    ] {
        let about = fs::symlink_metadata(unpacked.join(file)).unwrap();
        assert!(about.is_file(), "{file} is no file of the package's own");
    }
    let lock = fs::read_to_string(unpacked.join("Cargo.lock")).unwrap();
    assert!(
        !lock.contains("name = \"cc\""),
        "the package needs a C compiler"
    );

    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(&unpacked)
        .args(["run", "--quiet", "--offline", "--locked"]);
    build.args(["--features", "stats", "--example", "words", "--target-dir"]);
    build
        .arg(&made)
        .stdin(File::open(root.join("lib.rs")).unwrap());
    let output = run(&mut build);
    let counted = String::from_utf8(output.stdout).unwrap();
    assert_eq!(counted.lines().count(), 10, "{counted}");
}
