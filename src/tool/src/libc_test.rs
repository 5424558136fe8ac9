//! Runs musl's libc-test against stock musl and against ours, both built by the same compiler, and
//! compares what fails. It does not qualify an allocator (one whose free does nothing passes it);
//! it shows that nothing else broke.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::build::Built;
use crate::error::{At, Error, Kind, Result};
use crate::progress::{say, step};
use crate::project::{self, Project};
use crate::tree::Tree;
use crate::{prefix, run};

/// The commit of libc-test that the list of known failures was made with.
const GOOD: &str = "18e28496adee3d84fefdda6efcb9c5b8996a2398";
/// Runs of a test that failed with one libc and not with the other.
const AGAIN: u32 = 5;

/// How a test differs between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Fails with both, or only with stock musl.
    Known,
    Fixed,
    /// Fails with one of them, but not always.
    Flaky,
    New,
}

/// Where libc-test is to be had, for a user without it.
pub fn where_from() -> Error {
    Error::new(
        Kind::Usage,
        "libc-test needs the path of a checkout of libc-test",
    )
    .remedy(format!(
        "it is kept at nsz.repo.hu (git, repository libc-test); commit {GOOD} is known good:\n    \
         git clone git://nsz.repo.hu:45100/repo/libc-test && git -C libc-test checkout {GOOD}\n    \
         make libc-test LIBC_TEST=$PWD/libc-test"
    ))
}

/// Refuses what is no checkout, before anything is built for it.
///
/// # Errors
/// `Usage`, with the way to one.
pub fn check(checkout: &Path) -> Result<()> {
    if checkout.join("src/common/runtest.c").is_file() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Usage,
        format!("{} is no checkout of libc-test", checkout.display()),
    )
    .remedy(where_from().remedy.unwrap_or_default()))
}

/// Runs it and prints the table.
///
/// # Errors
/// `Gate` when a test fails with ours only.
pub fn compare(project: &Project, built: &Built, checkout: &Path) -> Result<()> {
    let stock = Run::start(project, built, &built.stock, "stock", checkout)?;
    let ours = Run::start(project, built, &built.byssal, "byssal", checkout)?;
    if stock.tests == 0 || stock.tests != ours.tests {
        return Err(Error::new(
            Kind::Step,
            format!("stock ran {} tests, ours {}", stock.tests, ours.tests),
        )
        .remedy(format!("see {} and its neighbour", ours.log.display())));
    }
    let reasons = reasons(&project.root.join("ci/libc-test-known.txt"))?;
    say(&format!(
        "libc-test, musl {}: {} tests",
        built.source.label, ours.tests
    ));
    let mut counts = BTreeMap::new();
    for test in stock.failed.union(&ours.failed) {
        let (verdict, note) = judge(test, &stock, &ours, &reasons);
        say(&format!(
            "  {:<6} {test}: {note}",
            format!("{verdict:?}").to_lowercase()
        ));
        *counts.entry(format!("{verdict:?}")).or_insert(0) += 1;
    }
    let count = |v: Verdict| counts.get(&format!("{v:?}")).copied().unwrap_or(0);
    let new = count(Verdict::New);
    say(&format!(
        "  new failures {new}, fixed {}, flaky {}, known {}; stock fails {}, ours {}",
        count(Verdict::Fixed),
        count(Verdict::Flaky),
        count(Verdict::Known),
        stock.failed.len(),
        ours.failed.len()
    ));
    if new == 0 {
        return Ok(());
    }
    Err(
        Error::new(Kind::Gate, format!("libc-test: {new} new failures")).remedy(format!(
            "run one alone: {}/src/common/runtest.exe {0}/src/TEST.exe",
            ours.dir.display()
        )),
    )
}

/// One libc's run, in a copy of the checkout that is kept for a closer look.
struct Run {
    dir: PathBuf,
    log: PathBuf,
    tests: usize,
    failed: BTreeSet<String>,
}

impl Run {
    fn start(
        project: &Project,
        built: &Built,
        tree: &Tree,
        name: &str,
        checkout: &Path,
    ) -> Result<Self> {
        let dir = project
            .out
            .join(format!("libc-test/{}-{name}", built.source.label));
        let log = project.log(&format!("libc-test-{}-{name}", built.source.label));
        run::fresh_log(&log)?;
        let temp = project::temp_beside(&dir)?;
        let copy = temp.path().join("copy");
        project::copy_tree(checkout, &copy, &|p| p.ends_with(".git"))?;
        project::replace_dir(&copy, &dir)?;
        let cc = prefix::in_recipe(&tree.prefix.join(built.compiler.wrapper()))?;
        step(
            &format!("libc-test with {name} musl {}", built.source.label),
            || {
                let mut make = Command::new("make");
                make.current_dir(&dir)
                    .arg(format!("-j{}", built.compiler.jobs))
                    .arg("-k");
                make.arg(format!("CC={cc}"));
                // make fails when a test does; which ones is read from its report.
                run::logged(&mut make, &log).or_else(|e| {
                    if dir.join("src/REPORT").is_file() {
                        Ok(())
                    } else {
                        Err(e)
                    }
                })
            },
        )?;
        let printed = fs::read(&log).at("reading", &log)?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        let report = dir.join("src/REPORT");
        let report = fs::read(&report).at("reading", &report)?;
        let failed = failures(&format!("{printed}\n{}", String::from_utf8_lossy(&report)));
        Ok(Run {
            tests: executables(&dir.join("src"))?,
            dir,
            log,
            failed,
        })
    }

    /// How many of some more runs of one test fail.
    fn again(&self, test: &str) -> u32 {
        let program = self.dir.join(format!("src/{test}.exe"));
        let fails = |_: &u32| {
            let mut one = Command::new(self.dir.join("src/common/runtest.exe"));
            one.current_dir(&self.dir).args(["-w", ""]).arg(&program);
            let status = one
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            !status.is_ok_and(|s| s.success())
        };
        (0..AGAIN).filter(fails).count() as u32
    }
}

/// Tests that the text reports as failed or not built, as `directory/name`.
fn failures(text: &str) -> BTreeSet<String> {
    let mut failed = BTreeSet::new();
    for line in text.lines() {
        let Some(rest) = line
            .strip_prefix("FAIL ")
            .or_else(|| line.strip_prefix("BUILDERROR "))
        else {
            continue;
        };
        let Some(path) = rest.split_whitespace().next() else {
            continue;
        };
        let path = path.rsplit_once("src/").map_or(path, |(_, test)| test);
        let test = path.split_once('.').map_or(path, |(test, _)| test);
        // Parts of the one program that holds all tests of the headers.
        failed.insert(if test.starts_with("api/") {
            "api/main".into()
        } else {
            test.to_owned()
        });
    }
    failed
}

fn executables(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir).at("reading directory", dir)? {
        let path = entry.at("reading directory", dir)?.path();
        if path.is_dir() {
            count += executables(&path)?;
        } else if path.extension().is_some_and(|e| e == "c") {
            count += 1;
        }
    }
    Ok(count)
}

fn reasons(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = project::read_text(path)?;
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    Ok(lines
        .filter_map(|l| l.split_once('\t'))
        .map(|(t, r)| (t.into(), r.trim().into()))
        .collect())
}

fn judge(
    test: &str,
    stock: &Run,
    ours: &Run,
    reasons: &BTreeMap<String, String>,
) -> (Verdict, String) {
    let in_stock = stock.failed.contains(test);
    let in_ours = ours.failed.contains(test);
    if in_stock && in_ours {
        let reason = reasons
            .get(test)
            .map_or("fails with stock musl too, no reason known", String::as_str);
        return (Verdict::Known, reason.to_owned());
    }
    let (s, o) = (stock.again(test), ours.again(test));
    let note = format!("of {AGAIN} more runs, {s} fail with stock musl and {o} with ours");
    let verdict = if in_ours && o == AGAIN && s == 0 {
        Verdict::New
    } else if in_stock && s == AGAIN && o == 0 {
        Verdict::Fixed
    } else if s > 0 && o > 0 {
        Verdict::Known
    } else {
        Verdict::Flaky
    };
    (verdict, note)
}

#[cfg(test)]
mod tests {
    use super::failures;

    #[test]
    fn failed_and_unbuilt_tests_are_named_alike() {
        let text = "FAIL src/functional/strptime-static.exe [status 1]\nnoise\n\
            FAIL ./src/math/powf.exe [status 1]\nBUILDERROR src/api/unistd.o\nBUILDERROR src/regression/x.o";
        let got: Vec<_> = failures(text).into_iter().collect();
        assert_eq!(
            got,
            [
                "api/main",
                "functional/strptime-static",
                "math/powf",
                "regression/x"
            ]
        );
    }
}
