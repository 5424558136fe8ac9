//! The programs of `real.toml`: compiled once for each libc's headers, linked for each toolchain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use byssal_tool::digest::{self, Inputs};
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::project::{self, Project};
use byssal_tool::run;
use serde::Deserialize;

use super::{input, source};
use crate::catalogue::{Arguments, Check, Job, Prepare, Ready, Real, Size, Target};
use crate::programs::PLACED;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    program: Vec<Recipe>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    name: String,
    pattern: String,
    source: String,
    files: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    own: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    libs: Vec<String>,
    driver: Option<String>,
    args: Arguments,
    stdin: Option<String>,
    threads: u32,
}

/// The rows of `real.toml`.
///
/// # Errors
/// When it cannot be read or is not as it must be.
pub fn programs(project: &Project) -> Result<Vec<Real>> {
    let path = project.root.join("tests/bench/real.toml");
    let file: File = toml::from_str(&project::read_text(&path)?).at("reading", &path)?;
    Ok(file.program.into_iter().map(real).collect())
}

fn real(recipe: Recipe) -> Real {
    let (name, pattern, threads) = (recipe.name.clone(), recipe.pattern.clone(), recipe.threads);
    let prepare: Prepare = Box::new(move |project, target, size, dir| {
        match job(&recipe, project, target, size, dir) {
            Ok(job) => Ok(Ready::Run(job)),
            Err(e) => Ok(Ready::Skip(format!("not built: {}", in_a_line(&e)))),
        }
    });
    Real {
        name,
        pattern,
        threads,
        prepare,
    }
}

/// What the reader of a table needs: the whole is in the log.
fn in_a_line(e: &Error) -> String {
    let error = e.what.lines().find(|line| line.contains("error:"));
    let first = e.what.lines().next().unwrap_or_default();
    let remedy = e.remedy.as_deref().unwrap_or_default();
    format!("{} {remedy}", error.unwrap_or(first).trim())
}

fn own(project: &Project, name: &str) -> PathBuf {
    match name {
        "workload.lua" => project.root.join("src/tool/probes").join(name),
        _ => project.root.join("tests/bench/real").join(name),
    }
}

fn job(recipe: &Recipe, project: &Project, target: Target, size: Size, dir: &Path) -> Result<Job> {
    let objects = objects(recipe, project, target)?;
    let program = dir.join(&recipe.name);
    link(target, &objects, &recipe.libs, &program)?;
    let mut start = program.clone();
    if let Some(driver) = &recipe.driver {
        start = dir.join("driver");
        link(target, &[own(project, driver)], &[], &start)?;
    }
    let mut args = Vec::new();
    for arg in recipe.args.of(size) {
        args.push(filled(arg, project, &program, dir)?);
    }
    Ok(Job {
        program: start,
        args,
        stdin: recipe.stdin.as_ref().map(|name| own(project, name)),
        check: Check::SameOutput,
        ..Job::default()
    })
}

/// The argument with the names in braces replaced by paths.
fn filled(arg: &str, project: &Project, program: &Path, dir: &Path) -> Result<String> {
    let Some((before, rest)) = arg.split_once('{') else {
        return Ok(arg.to_owned());
    };
    let Some((name, after)) = rest.split_once('}') else {
        return Ok(arg.to_owned());
    };
    let path = match name {
        "program" => program.to_path_buf(),
        "generated.c" => input::c_file(dir, 1500)?,
        _ => own(project, name),
    };
    Ok(format!("{before}{}{after}", path.display()))
}

fn link(target: Target, inputs: &[PathBuf], libs: &[String], dest: &Path) -> Result<()> {
    let mut cc = Command::new(target.cc());
    cc.arg("-O2").args(target.link_flag()).args(inputs);
    cc.args(libs).arg("-o").arg(dest);
    run::output(&mut cc).map(drop)
}

/// The compiled files, kept by all that went into them. Toolchains with the same headers share
/// them: they differ in their libc.a only.
fn objects(recipe: &Recipe, project: &Project, target: Target) -> Result<Vec<PathBuf>> {
    let tarball = source::tarball(project, &recipe.source)?;
    let mut inputs = Inputs::new()
        .text("source", &digest::file(&tarball)?)
        .text("recipe", &format!("{recipe:?} {PLACED}"))
        .text("headers", &headers(target)?);
    for name in &recipe.own {
        inputs = inputs.text(name, &digest::file(&own(project, name))?);
    }
    let key = &inputs.finish()[..16];
    let kept = project
        .out
        .join(format!("bench/objects/{}-{key}", recipe.name));
    if !kept.is_dir() {
        let temp = project::temp_beside(&kept)?;
        let made = temp.path().join("made");
        fs::create_dir_all(&made).at("making directory", &made)?;
        let tree = byssal_tool::source::unpack(&tarball, &temp.path().join("tree"))?;
        compile(recipe, project, target, &tree, &made)?;
        project::replace_dir(&made, &kept)?;
    }
    let mut found = listed(&kept, ".o")?;
    found.sort();
    Ok(found)
}

/// What tells the compiler and headers of one target from those of another.
fn headers(target: Target) -> Result<String> {
    let version = run::output(Command::new(target.cc()).arg("--version"))?;
    let prefix = target.cc().parent().and_then(Path::parent);
    match (target, prefix) {
        (Target::Musl { .. }, Some(prefix)) => {
            let inputs = Inputs::new().text("cc", &version);
            Ok(inputs.tree(prefix, "include")?.finish())
        }
        _ => Ok(version),
    }
}

fn compile(
    recipe: &Recipe,
    project: &Project,
    target: Target,
    tree: &Path,
    made: &Path,
) -> Result<()> {
    let mut flags: Vec<String> = ["-w", "-O2", "-pthread", PLACED].map(str::to_owned).into();
    if !recipe.headers.is_empty() {
        let dir = tree.join("headers-of-the-build");
        for (name, text) in &recipe.headers {
            project::write_file(&dir.join(name), text.as_bytes())?;
        }
        flags.push(format!("-I{}", dir.display()));
    }
    flags.extend(recipe.flags.iter().cloned());
    let files = files(recipe, tree)?;
    let mut units: Vec<(PathBuf, PathBuf, Vec<String>)> = Vec::new();
    for name in files {
        let object = made.join(name.replace('/', "-") + ".o");
        units.push((tree.join(&name), object, flags.clone()));
    }
    for name in &recipe.own {
        let mut flags = flags.clone();
        flags.push(format!("-I{}", tree.display()));
        units.push((
            own(project, name),
            made.join(format!("own-{name}.o")),
            flags,
        ));
    }
    let log = project.log(&format!("bench-{}", recipe.name));
    run::fresh_log(&log)?;
    in_parallel(&units, &|(file, object, flags)| {
        let mut cc = Command::new(target.cc());
        cc.current_dir(tree).args(flags).arg("-c").arg(file);
        run::logged(cc.arg("-o").arg(object), &log)
    })
}

/// Does `work` for each item, as many at a time as there are cores; gives the first failure.
fn in_parallel<T: Sync>(items: &[T], work: &(dyn Fn(&T) -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    // Relaxed: only each number's uniqueness matters, and the scope's end joins the threads.
    let worker = || loop {
        match items.get(next.fetch_add(1, Ordering::Relaxed)) {
            Some(item) => work(item)?,
            None => return Ok(()),
        }
    };
    thread::scope(|scope| {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
        let results = threads.into_iter().map(|t| {
            t.join()
                .unwrap_or_else(|_| Err(Error::new(Kind::System, "a worker panicked")))
        });
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

/// The C files of a recipe, relative to the tree, sorted.
fn files(recipe: &Recipe, tree: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pattern in &recipe.files {
        let Some(dir) = pattern.strip_suffix("/*.c") else {
            found.push(pattern.clone());
            continue;
        };
        for path in listed(&tree.join(dir), ".c")? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            found.push(format!("{dir}/{name}"));
        }
    }
    found.retain(|file| !recipe.except.contains(file));
    found.sort();
    Ok(found)
}

fn listed(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("reading directory", dir)? {
        let path = entry.at("reading directory", dir)?.path();
        if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_names_files_that_are_there() {
        let project = Project::find(None, None).expect("a checkout");
        let path = project.root.join("tests/bench/real.toml");
        let file: File = toml::from_str(&fs::read_to_string(path).expect("read")).expect("parse");
        for recipe in &file.program {
            source::family(&project, &recipe.source).expect("a pin");
            let named = recipe.own.iter().chain(&recipe.stdin).chain(&recipe.driver);
            for name in named {
                assert!(own(&project, name).is_file(), "{name}");
            }
        }
    }

    #[test]
    fn the_first_failure_of_many_is_told() {
        let items: Vec<u32> = (0..50).collect();
        let fails = |n: &u32| match n {
            30 => Err(Error::new(Kind::Step, "thirty")),
            _ => Ok(()),
        };
        assert_eq!(
            in_parallel(&items, &fails).expect_err("fails").what,
            "thirty"
        );
        assert!(in_parallel(&items[..30], &fails).is_ok());
    }
}
