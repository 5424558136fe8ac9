//! Programs that the host has, as they are: for LD_PRELOAD only. Each is asked for by name; what
//! is not installed gives a row "skipped".

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::project::Project;
use byssal_tool::run;

use super::input;
use crate::catalogue::{Check, Job, Ready, Real, Size, Target};

/// Makes the inputs in a directory and says how to run the program, whose path is given.
type Work = fn(&Project, &Path, Size, &Path) -> Result<Job>;

struct Host {
    name: &'static str,
    pattern: &'static str,
    threads: u32,
    find: fn(cc: &Path) -> Result<PathBuf>,
    work: Work,
}

const ALL: [Host; 6] = [
    Host {
        name: "python",
        pattern: "CPython, its small objects by malloc too: records, text, JSON, sorting.",
        threads: 1,
        find: |_| answered("python3", &["-c", "import sys; print(sys.executable)"]),
        work: python,
    },
    Host {
        name: "perl",
        pattern: "Perl: hashes, strings, patterns, nested data, sorting.",
        threads: 1,
        find: |_| answered("perl", &["-e", "print $^X"]),
        work: perl,
    },
    Host {
        name: "sort",
        pattern: "GNU sort ordering lines by a number and then by text, in two threads.",
        threads: 2,
        find: |_| in_path("sort"),
        work: sort,
    },
    Host {
        name: "cc1",
        pattern: "The host's C compiler proper compiling a generated file.",
        threads: 1,
        find: cc1,
        work: compile,
    },
    Host {
        name: "git",
        pattern: "git going through a history, with the differences of each commit.",
        threads: 1,
        find: |_| in_path("git"),
        work: git,
    },
    Host {
        name: "jq",
        pattern: "jq regrouping an array of records.",
        threads: 1,
        find: |_| in_path("jq"),
        work: jq,
    },
];

pub fn programs() -> Vec<Real> {
    ALL.iter().map(real).collect()
}

fn real(host: &'static Host) -> Real {
    Real {
        name: host.name.into(),
        pattern: host.pattern.into(),
        threads: host.threads,
        prepare: Box::new(|project, target, size, dir| {
            let Target::Host { cc } = target else {
                return Ok(Ready::Skip("a program of the host, not static".into()));
            };
            let job = (host.find)(cc).and_then(|path| (host.work)(project, &path, size, dir));
            Ok(match job {
                Ok(job) => Ready::Run(job),
                Err(e) => Ready::Skip(e.what),
            })
        }),
    }
}

/// The path of a program in `PATH`.
fn in_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Error::new(
                Kind::Missing,
                format!(
                    "{name} is not installed; run: sudo apt-get install {}",
                    package(name)
                ),
            )
        })
}

/// Debian's package of a program, where its name is another.
fn package(program: &str) -> &str {
    match program {
        "sort" => "coreutils",
        _ => program,
    }
}

/// The path that a program itself gives: what `PATH` has may be a script that starts it.
fn answered(name: &str, args: &[&str]) -> Result<PathBuf> {
    let path = PathBuf::from(run::output(Command::new(in_path(name)?).args(args))?.trim());
    if path.is_absolute() {
        return Ok(path);
    }
    in_path(name)
}

fn cc1(cc: &Path) -> Result<PathBuf> {
    let said = run::output(Command::new(cc).arg("-print-prog-name=cc1"))?;
    let path = PathBuf::from(said.trim());
    if path.is_file() {
        return Ok(path);
    }
    let what = format!("{} has no program cc1", cc.display());
    Err(Error::new(Kind::Missing, what))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A script of `tests/bench/real` with the number of rounds, quick or full.
fn script(project: &Project, program: &Path, name: &str, size: Size, rounds: [u32; 2]) -> Job {
    let rounds = match size {
        Size::Quick => rounds[0],
        Size::Full => rounds[1],
    };
    let file = project.root.join("tests/bench/real").join(name);
    Job {
        program: program.into(),
        args: vec![text(&file), rounds.to_string()],
        check: Check::SameOutput,
        ..Job::default()
    }
}

fn python(project: &Project, program: &Path, size: Size, _: &Path) -> Result<Job> {
    let mut job = script(project, program, "workload.py", size, [1, 8]);
    // Otherwise CPython's own allocator takes all blocks up to 512 bytes.
    job.env.push(("PYTHONMALLOC".into(), "malloc".into()));
    job.env.push(("PYTHONHASHSEED".into(), "0".into()));
    Ok(job)
}

fn perl(project: &Project, program: &Path, size: Size, _: &Path) -> Result<Job> {
    let mut job = script(project, program, "workload.pl", size, [1, 10]);
    job.env.push(("PERL_HASH_SEED".into(), "0".into()));
    Ok(job)
}

fn sort(_: &Project, program: &Path, size: Size, dir: &Path) -> Result<Job> {
    let lines = input::lines(dir, if size == Size::Quick { 60_000 } else { 400_000 })?;
    let mut args: Vec<String> = ["--parallel=2", "-k2,2n", "-k1,1"]
        .map(str::to_owned)
        .into();
    args.push(text(&lines));
    Ok(Job {
        program: program.into(),
        args,
        env: vec![("LC_ALL".into(), "C".into())],
        ..Job::default()
    })
}

fn compile(_: &Project, program: &Path, size: Size, dir: &Path) -> Result<Job> {
    let file = input::c_file(dir, if size == Size::Quick { 30 } else { 150 })?;
    let args = ["-quiet", "-O1", &text(&file), "-o", "-"];
    Ok(Job {
        program: program.into(),
        args: args.map(str::to_owned).into(),
        ..Job::default()
    })
}

fn git(_: &Project, program: &Path, size: Size, dir: &Path) -> Result<Job> {
    let stream = input::commits(dir, if size == Size::Quick { 150 } else { 1500 })?;
    let repository = dir.join("history.git");
    if repository.exists() {
        std::fs::remove_dir_all(&repository).at("removing", &repository)?;
    }
    let place = format!("--git-dir={}", repository.display());
    run::output(
        Command::new(program)
            .args(["init", "-q", "--bare"])
            .arg(&repository),
    )?;
    let stream = std::fs::File::open(&stream).at("opening", &stream)?;
    let status = Command::new(program)
        .args([&place, "fast-import", "--quiet"])
        .stdin(stream)
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(Error::new(Kind::Step, format!("git fast-import: {status}")));
    }
    let args = [
        &place,
        "--no-pager",
        "log",
        "--numstat",
        "-M",
        "refs/heads/main",
    ];
    Ok(Job {
        program: program.into(),
        args: args.map(str::to_owned).into(),
        env: vec![("GIT_CONFIG_NOSYSTEM".into(), "1".into())],
        ..Job::default()
    })
}

fn jq(project: &Project, program: &Path, size: Size, dir: &Path) -> Result<Job> {
    let records = input::records(dir, if size == Size::Quick { 1000 } else { 12_000 })?;
    let filter = project.root.join("tests/bench/real/workload.jq");
    Ok(Job {
        program: program.into(),
        args: vec!["-c".into(), "-f".into(), text(&filter), text(&records)],
        ..Job::default()
    })
}
