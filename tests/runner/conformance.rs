//! The table of docs/conformance.md: each row names a test, and each test that is named exists.
//!
//! A test stands in backquotes as `program:function`: a program of the catalogue and a function of
//! its source (`main` if it has no other), or `misuse/program`.

use std::fs;
use std::path::Path;

use crate::catalogue::{programs, Program};
use crate::mode::root;
use crate::Outcome;

/// A name and what it runs.
pub type Test = (&'static str, fn() -> Outcome);

/// The page's own test, and the test of that test.
pub fn tests() -> Vec<Test> {
    vec![
        ("every-row-names-tests-that-exist", page),
        ("wrong-names-are-noticed", wrong_names),
    ]
}

fn page() -> Outcome {
    let path = root().join("docs/conformance.md");
    match fs::read_to_string(&path) {
        Ok(text) => outcome(faults(&text)),
        Err(error) => Outcome::Failed(format!("{}: {error}", path.display())),
    }
}

fn outcome(faults: Vec<String>) -> Outcome {
    if faults.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Failed(faults.join("\n"))
    }
}

/// What is wrong with the tables of a page.
fn faults(text: &str) -> Vec<String> {
    let all = programs();
    let mut faults = Vec::new();
    let mut rows = 0;
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| requirement");
    for line in text.lines().filter(is_row) {
        rows += 1;
        let cell = line.trim_end_matches(['|', ' ']).rsplit('|').next();
        let named: Vec<&str> = cell
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        if named.is_empty() {
            faults.push(format!("no test in: {line}"));
        }
        faults.extend(named.iter().filter_map(|name| fault(name, &all)));
    }
    if rows == 0 {
        faults.push("no rows".to_owned());
    }
    faults
}

/// What is wrong with the name of a test.
fn fault(name: &str, all: &[Program]) -> Option<String> {
    let (program, function) = name.split_once(':').unwrap_or((name, "main"));
    let Some(program) = all.iter().find(|known| known.name() == program) else {
        return Some(format!("{name}: no program {program} in the catalogue"));
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(program.source());
    let text = match fs::read_to_string(&source) {
        Ok(text) => text,
        Err(error) => return Some(format!("{name}: {}: {error}", source.display())),
    };
    // A definition begins its line and takes no semicolon.
    let call = format!("{function}(");
    let defines = |line: &str| {
        line.split_once(&call).is_some_and(|(before, rest)| {
            !line.starts_with(char::is_whitespace)
                && before.ends_with([' ', '*'])
                && !rest.ends_with(';')
        })
    };
    (!text.lines().any(defines)).then(|| format!("{name}: {} defines no such", source.display()))
}

fn wrong_names() -> Outcome {
    let wrong = [
        "| r | `api_basics:no_such_function` |",
        "| r | `no_such_program:main` |",
        "| r | none |",
        "nothing",
    ];
    for text in wrong {
        if faults(text).is_empty() {
            return Outcome::Failed(format!("not noticed: {text}"));
        }
    }
    outcome(faults(
        "| r | `api_basics:zero_sizes`, `misuse/double_free` |",
    ))
}
