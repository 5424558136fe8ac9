//! Every locked package builds with the oldest Rust that is promised, Debian's.

mod common;

use std::process::Command;

use byssal_tool::{core, run};
use common::root;

/// Major and minor: a patch release of the compiler brings no feature.
fn number(version: &str) -> Vec<u32> {
    let parts = version.split('.').take(2);
    parts.map(|part| part.parse().unwrap()).collect()
}

#[test]
fn no_locked_package_needs_a_newer_rust() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--all-features",
    ]);
    cargo.args(["--filter-platform", &core::host_target().unwrap()]);
    let json = run::output(&mut cargo).unwrap();
    let promised = env!("CARGO_PKG_RUST_VERSION");
    let mut seen = 0;
    for package in json.split("\"name\":\"").skip(1) {
        let Some((_, after)) = package.split_once("\"rust_version\":\"") else {
            continue;
        };
        let version = after.split('"').next().unwrap();
        // The last name before the field: that of the last target, good enough to find it.
        let name = package.split('"').next().unwrap();
        assert!(
            number(version) <= number(promised),
            "{name} needs Rust {version}, promised is {promised}"
        );
        seen += 1;
    }
    assert!(
        seen > 20,
        "only {seen} packages tell their rust-version: the output is not understood"
    );
}
