//! The check of the core object sees what must not enter libc.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use byssal_tool::core;
use common::succeed;

fn compile(dir: &Path, text: &str) -> PathBuf {
    let (source, object) = (dir.join("x.c"), dir.join("x.o"));
    fs::write(&source, text).unwrap();
    succeed(
        Command::new("gcc")
            .args(["-c", "-fPIC", "-o"])
            .arg(&object)
            .arg(&source),
    );
    object
}

/// The state of the process, in a section that `#` ends before the compiler's own attributes.
const STATE: &str = r#"__attribute__((used, section(".bss.byssal_process,\"aw\",@nobits #"))) static char state[64];"#;

/// What the check says of a C file with the state, that may define `here` and need `there`.
fn checked(text: &str) -> Result<Vec<String>, String> {
    checked_alone(&format!("{STATE}\n{text}"))
}

/// The same of the file as it is.
fn checked_alone(text: &str) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let object = compile(dir.path(), text);
    let (exports, imports) = (
        ["here".to_owned()],
        ["there".to_owned(), "_GLOBAL_OFFSET_TABLE_".to_owned()],
    );
    let object = fs::read(object).unwrap();
    core::check(&object, &exports, &imports).map_err(|e| e.to_string())
}

#[test]
fn an_object_within_its_contract_passes() {
    let needed = checked("void there(void); void here(void) { there(); }").unwrap();
    assert!(needed.contains(&"there".to_owned()), "{needed:?}");
}

#[test]
fn each_breach_is_named() {
    for (text, want) in [
        (
            "void there(void); void here(void) {} void more(void) { there(); }",
            "defines more as global",
        ),
        ("int nothing;", "does not define here"),
        (
            "void other(void); void here(void) { other(); }",
            "needs other",
        ),
        ("__thread int *t; void here(void) { t = 0; }", "TLS section"),
        (
            "__attribute__((constructor)) static void c(void) {} void here(void) {}",
            "constructors",
        ),
    ] {
        let error = checked(text).expect_err(text);
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn the_state_must_have_left_bss() {
    let error =
        checked_alone("static char state[64]; void here(void) { state[0]++; }").unwrap_err();
    assert!(error.contains("no section .bss.byssal_process"), "{error}");
}
