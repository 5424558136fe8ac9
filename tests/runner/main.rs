//! Tests of the finished allocator from outside: C programs in every way byssal reaches a program.
//!
//! Each program × mode is one named test, for instance `musl-static::fork_threads`. A test that
//! cannot run here is counted as ignored and says "skipped: why"; a toolchain that has not been
//! built is a failure that names the remedy.
//!
//! Layers, one direction:
//!
//! ```text
//! main       the list of trials
//! catalogue  every C program: where it runs, what it must end in
//! conformance  docs/conformance.md names tests that exist
//! host       programs of the host under the preload library
//! self_test  every important test fails on an allocator with the fault it looks for
//! mode       how a mode compiles and starts a program
//! execute    a child under a time limit, with stacks of what hung
//! ```
//!
//! A program under `programs/` exits 0 when all is well, 77 after a line "skipped: why", and
//! otherwise prints the failing line; one under `stress/` prints counts as well. A program under
//! `misuse/` prints "armed" just before its misuse and must then die by a trap signal.
//!
//! Environment: `BYSSAL_TOOLCHAIN` (a prefix instead of `out/musl-1.2.6`), `BYSSAL_LIB` (a folder
//! instead of `out/lib`), `BYSSAL_EMULATOR` (what runs the programs of a toolchain for another
//! machine; then only the modes `musl-static` and `musl-dynamic` are for it), `BYSSAL_GUEST` (the
//! same by a system of that machine; `ci/booted`), `BYSSAL_LIMIT_SCALE` (multiplies every time limit,
//! for slow machines), `BYSSAL_STRESS=long` (the long form of `stress/`; `make stress`).

mod catalogue;
mod conformance;
mod execute;
mod host;
mod mode;
mod self_test;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::{run, Arguments, Completion, Failed, Trial};

/// What one test came to: passed, skipped with a reason, or failed with a report.
pub enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Duration of every test that ran, for the closing list of the slowest.
static DURATIONS: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Makes a named trial of a function that yields an [`Outcome`].
fn trial(name: String, test: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    let shown = name.clone();
    Trial::ignorable_test(name, move || {
        let start = Instant::now();
        let outcome = test();
        if let Ok(mut all) = DURATIONS.lock() {
            all.push((start.elapsed(), shown));
        }
        match outcome {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Skipped(why) => Ok(Completion::ignored_with(format!("skipped: {why}"))),
            Outcome::Failed(report) => Err(Failed::from(report)),
        }
    })
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for program in catalogue::programs() {
        for (mode, fit) in program.modes() {
            let name = format!("{}::{}", mode.name(), program.name());
            let program = program.clone();
            trials.push(match fit {
                Ok(()) => trial(name, move || mode::test(&program, mode)),
                Err(why) => trial(name, move || Outcome::Skipped(why.to_owned())),
            });
        }
    }
    for (name, test) in conformance::tests() {
        trials.push(trial(format!("conformance::{name}"), test));
    }
    for test in host::tests() {
        trials.push(trial(format!("host-programs::{}", test.name), move || {
            test.run()
        }));
    }
    for test in self_test::tests() {
        trials.push(trial(format!("self-test::{}", test.name()), move || {
            test.run()
        }));
    }
    let start = Instant::now();
    let conclusion = run(&arguments, trials);
    if !arguments.list {
        summary(start.elapsed(), &conclusion);
    }
    conclusion.exit();
}

/// Prints counts, time and the slowest tests.
fn summary(elapsed: Duration, conclusion: &libtest_mimic::Conclusion) {
    let mut all = DURATIONS
        .lock()
        .map(|mut all| std::mem::take(&mut *all))
        .unwrap_or_default();
    all.sort();
    let slowest: Vec<String> = all
        .iter()
        .rev()
        .take(5)
        .map(|(time, name)| format!("{name} {:.1} s", time.as_secs_f64()))
        .collect();
    println!(
        "programs: {} passed, {} failed, {} skipped, {:.0} s; slowest: {}",
        conclusion.num_passed,
        conclusion.num_failed,
        conclusion.num_ignored,
        elapsed.as_secs_f64(),
        slowest.join(", ")
    );
}
