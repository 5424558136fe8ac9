//! Programs that were not written for this benchmark, running work of their own: those of
//! `real.toml`, built from pinned sources in every mode, and those of the host, under LD_PRELOAD.

use byssal_tool::error::Result;
use byssal_tool::project::Project;

use crate::catalogue::Real;

mod host;
mod input;
mod recipe;
mod source;

/// All of them.
///
/// # Errors
/// When `real.toml` cannot be read or is not as it must be.
pub fn programs(project: &Project) -> Result<Vec<Real>> {
    let mut all = recipe::programs(project)?;
    all.extend(host::programs());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::catalogue::{Job, Ready, Size, Target};

    fn cpu_seconds_of_children() -> f64 {
        // SAFETY: getrusage fills the structure, for which all zeros is a value.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
            usage
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    }

    /// Runs a job under a time limit; gives what it printed and the seconds of CPU it took.
    fn run(job: &Job, preload: Option<&Path>) -> (String, f64) {
        let place = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("timeout");
        command.arg("120").arg(&job.program).args(&job.args);
        command.current_dir(place.path()).stdin(Stdio::null());
        if let Some(input) = &job.stdin {
            command.stdin(File::open(input).expect("input"));
        }
        command.envs(job.env.iter().map(|(name, value)| (name, value)));
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let before = cpu_seconds_of_children();
        let output = command.output().expect("starts");
        let seconds = cpu_seconds_of_children() - before;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{job:?}: {}: {error}",
            output.status
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.len() > 5, "{job:?} printed {text:?}");
        (text, seconds)
    }

    #[test]
    fn the_page_of_programs_names_each() {
        let project = Project::find(None, None).expect("a checkout");
        let page = project.root.join("docs/benchmark-programs.md");
        let page = fs::read_to_string(page).expect("the page");
        let real = programs(&project).expect("programs");
        let synthetic = crate::catalogue::read(&project).expect("programs");
        let mut rows: Vec<(&str, &str)> = crate::linked::names().collect();
        rows.extend(real.iter().map(|p| (p.name.as_str(), p.pattern.as_str())));
        let synthetic = synthetic.iter();
        rows.extend(synthetic.map(|p| (p.name.as_str(), p.pattern.as_str())));
        for (name, pattern) in rows {
            let row = format!("| {name} | {pattern} |");
            assert!(
                page.contains(&row),
                "docs/benchmark-programs.md lacks {row}"
            );
        }
    }

    /// Needs what `make` made, and fetches sources: `cargo test -p byssal-bench -- --ignored
    /// --nocapture`. REAL=name,name takes only some, SIZE=full the long runs.
    #[test]
    #[ignore = "builds every real program: minutes, and a network"]
    fn every_program_prints_the_same_under_each_allocator() {
        let project = Project::find(None, None).expect("a checkout");
        let only = std::env::var("REAL").unwrap_or_default();
        let full = std::env::var("SIZE").is_ok_and(|s| s == "full");
        let size = if full { Size::Full } else { Size::Quick };
        let library = project.out.join("lib/libbyssal.so");
        let musl = |prefix: &str| project.out.join(prefix).join("musl-1.2.6/bin/musl-gcc");
        let (stock, ours) = (musl("stock"), project.out.join("musl-1.2.6/bin/musl-gcc"));
        let host = Target::Host {
            cc: Path::new("gcc"),
        };
        let ways = [
            ("glibc", host, None),
            ("libbyssal.so", host, Some(library.as_path())),
            ("mallocng", Target::Musl { cc: &stock }, None),
            ("byssal", Target::Musl { cc: &ours }, None),
        ];
        for program in programs(&project).expect("programs") {
            if !only.is_empty() && !only.split(',').any(|name| name == program.name) {
                continue;
            }
            let mut first: Option<String> = None;
            for (name, target, preload) in ways {
                let dir = project
                    .out
                    .join(format!("bench/try/{name}/{}", program.name));
                fs::create_dir_all(&dir).expect("a directory");
                let ready = (program.prepare)(&project, target, size, &dir).expect("prepared");
                let job = match ready {
                    Ready::Run(job) => job,
                    Ready::Skip(why) => {
                        println!("{} {name} skipped: {why}", program.name);
                        continue;
                    }
                };
                let (text, seconds) = run(&job, preload);
                println!(
                    "{} {name} {seconds:.2} s, {} bytes",
                    program.name,
                    text.len()
                );
                let first = first.get_or_insert_with(|| text.clone());
                assert_eq!(*first, text, "{} under {name}", program.name);
            }
        }
    }
}
