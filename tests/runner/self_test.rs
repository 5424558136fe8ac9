//! Tests of the tests: each program must fail on an allocator with the fault it is there to find,
//! and pass on the same allocator without it. Runs on the host alone, without byssal.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::catalogue::programs;
use crate::mode::{self, compile, Mode};
use crate::Outcome;

/// A fault of `broken/broken.c` and the program (with argument) that must notice it.
pub struct SelfTest {
    pub fault: &'static str,
    pub program: &'static str,
    argument: &'static str,
    /// Seconds; a hang counts as noticed, so a hanging fault has a short limit.
    limit: u64,
}

const fn found(fault: &'static str, program: &'static str) -> SelfTest {
    SelfTest {
        fault,
        program,
        argument: "",
        limit: 60,
    }
}

/// What the plain allocator lacks is found without any injected fault.
const fn lacks(program: &'static str, argument: &'static str) -> SelfTest {
    SelfTest {
        fault: "none",
        program,
        argument,
        limit: 60,
    }
}

/// All pairs.
pub fn tests() -> Vec<SelfTest> {
    vec![
        found("overlap", "api_basics"),
        found("overlap", "threads_hundreds"),
        found("calloc_dirty", "api_calloc"),
        found("misaligned", "api_every_size"),
        found("aligned_off", "api_aligned"),
        found("aligned_off", "api_aligned_huge"),
        found("realloc_short", "api_realloc"),
        found("realloc_frees", "api_limits"),
        found("errno", "api_errno"),
        found("no_errno", "api_limits"),
        found("wrap", "api_limits"),
        found("usable_large", "api_usable_size"),
        found("unlocked", "exchange"),
        SelfTest {
            argument: "all",
            ..found("unlocked", "remote_free")
        },
        SelfTest {
            argument: "pipe",
            ..found("remote_lost", "remote_free")
        },
        found("leak", "threads_hundreds"),
        found("overlap", "thread_exits"),
        found("leak", "large_churn"),
        SelfTest {
            limit: 8,
            ..found("fork_lock", "fork_threads")
        },
        SelfTest {
            argument: "last",
            ..found("dead_with_main", "atexit_handlers")
        },
        SelfTest {
            argument: "both",
            ..found("map_unchecked", "no_growth")
        },
        SelfTest {
            argument: "4 60 all unbounded",
            ..found("unlocked", "hand_off")
        },
        SelfTest {
            argument: "4 60 all unbounded",
            ..found("overlap", "hand_off")
        },
        SelfTest {
            argument: "4 20 unbounded",
            ..found("overlap", "deaths")
        },
        SelfTest {
            argument: "4 40 unbounded",
            ..found("unlocked", "signals_spawn")
        },
        lacks("hand_off", "4 60 all"),
        lacks("deaths", "16 10"),
        lacks("fork_busy", "4 4"),
        lacks("signals_spawn", "4 40"),
        lacks("memory_return", "random"),
        lacks("reuse_delay", ""),
        lacks("calloc_sparse", ""),
        lacks("large_realloc", ""),
        lacks("api_aligned_footprint", ""),
        lacks("oom", "as"),
        lacks("double_free", "100"),
        lacks("double_free_later", "100"),
        lacks("double_free_remote", "100"),
        lacks("free_interior", "100"),
        lacks("free_misaligned", "100"),
        lacks("free_stack", ""),
        lacks("free_global", ""),
        lacks("overflow_byte", "100"),
        lacks("overflow_at_exit", "100"),
        lacks("overflow_remote", "100"),
        lacks("realloc_freed", "100"),
        lacks("realloc_interior", "2000"),
        lacks("realloc_overflowed", "100"),
        lacks("usable_size_freed", "100"),
        lacks("free_aligned_raw", "100"),
    ]
}

impl SelfTest {
    pub fn name(&self) -> String {
        format!("{}-found-by-{}", self.fault, self.program)
    }

    pub fn run(&self) -> Outcome {
        self.check()
            .map_or_else(Outcome::Failed, |()| Outcome::Passed)
    }

    fn check(&self) -> Result<(), String> {
        let library = library()?;
        let program = programs()
            .into_iter()
            .find(|program| program.short_name() == self.program)
            .ok_or_else(|| format!("no program {}", self.program))?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("self-test")
            .join(self.name());
        let built = mode::build_in(&program, Mode::Plain, folder)?;
        let arguments: Vec<&str> = self.argument.split_whitespace().collect();
        // What "none" lacks is noticed at once; a fault's program must first pass without it.
        let sound = (self.fault != "none").then_some(("none", 60, true));
        for (fault, limit, pass) in sound.into_iter().chain([(self.fault, self.limit, false)]) {
            // Faults that need two threads to meet may hide when the machine is busy; and what an
            // allocator keeps that gives nothing back depends on how many threads meet.
            let mut tries = if pass { 3 } else { 10 };
            loop {
                let mut command = mode::start(&built, Mode::Plain, &arguments)?;
                command.env("LD_PRELOAD", &library).env("BROKEN", fault);
                let outcome = mode::run_and_judge(&program, command, limit)?;
                tries -= 1;
                match (outcome, pass) {
                    (Outcome::Passed, false) | (Outcome::Failed(_), true) if tries > 0 => continue,
                    (Outcome::Passed, false) => return Err(format!("{fault}: not noticed")),
                    (Outcome::Failed(report), true) => {
                        return Err(format!("fails on a sound allocator:\n{report}"));
                    }
                    (Outcome::Passed, true) | (Outcome::Failed(_), false) => break,
                    (Outcome::Skipped(_), _) => break,
                }
            }
        }
        Ok(())
    }
}

/// The broken allocator, compiled once.
fn library() -> Result<PathBuf, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libbroken.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("broken/broken.c");
            let mut command = Command::new(Mode::Plain.compiler(false)?);
            command.args([
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-fno-builtin",
                "-shared",
                "-fPIC",
            ]);
            command.arg(source).arg("-pthread");
            compile(command, &path, &mut Vec::new())?;
            Ok(path)
        })
        .clone()
}
