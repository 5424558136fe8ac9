//! Compiles and runs the workloads, and reads what they say.

use crate::allocator::{root, Allocator, Way};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Name of the program and what it does, in a few words.
pub const WORKLOADS: &[(&str, &str)] = &[
    ("robson", "powers of two, one residue class kept"),
    ("sawtooth", "sizes rise, a sixteenth stays"),
    ("survivors", "one survivor a group"),
    ("vectors", "growing realloc, small pins"),
    ("peaks", "16 threads, peaks in turn"),
    ("bleeding", "threads die, others free"),
    ("handover", "one thread makes, waits; another frees"),
    ("server", "days of requests, idle nights"),
    ("alignments", "aligned among small blocks"),
    ("large", "64 KiB to 4 MiB"),
    ("plateau", "peak, then a tenth"),
];

/// A run of this length is taken for hung.
const LIMIT: Duration = Duration::from_secs(600);

/// A look at live and held bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub live: u64,
    pub footprint: u64,
}

impl Moment {
    /// Footprint over live bytes.
    pub fn ratio(&self) -> f64 {
        self.footprint as f64 / self.live.max(1) as f64
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The most live bytes, and the most held.
    pub peak: Moment,
    /// The moment with the worst ratio of those where little was live.
    pub thin: Option<Moment>,
    /// Bytes above those at the start, after everything was freed and 30 ms of little work.
    pub freed: u64,
    /// The same right after the last free.
    pub at_once: u64,
    /// The largest share of the bound that was held, in thousandths.
    pub bound: u64,
    /// Size classes that have more slots than the bound says.
    pub broken: Vec<String>,
    /// In the order of time.
    pub samples: Vec<Moment>,
}

/// Reads `name=value` from a line of words.
fn field(line: &str, name: &str) -> Option<u64> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?
        .parse()
        .ok()
}

/// Reads a workload's output. None if it is incomplete.
pub fn parse(text: &str) -> Option<Run> {
    let mut run = Run::default();
    let mut ended = false;
    for line in text.lines() {
        let moment = || {
            Some(Moment {
                live: field(line, "live")?,
                footprint: field(line, "footprint")?,
            })
        };
        match line.split(' ').next()? {
            "sample" => run.samples.push(moment()?),
            "peak" => run.peak = moment()?,
            "thin" => run.thin = Some(moment()?),
            "freed" => {
                run.freed = field(line, "footprint")?;
                run.at_once = field(line, "at_once")?;
            }
            "broken" => run.broken.push(line.to_owned()),
            "bound" => {
                run.bound = field(line, "share")?;
                ended = true;
            }
            _ => return None,
        }
    }
    ended.then_some(run)
}

/// Compiles `workload` for `allocator` below `folder`.
///
/// # Errors
/// The compiler's messages.
pub fn build(workload: &str, allocator: &Allocator, folder: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(format!("{workload}.c"));
    let (compiler, flags): (PathBuf, &[&str]) = match &allocator.way {
        Way::Static(compiler) => (compiler.clone(), &["-static"]),
        _ => (
            std::env::var_os("CC").map_or_else(|| "gcc".into(), PathBuf::from),
            &[],
        ),
    };
    let folder = folder.join(allocator.name);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let program = folder.join(workload);
    let output = Command::new(&compiler)
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-fno-builtin",
            "-Wall",
            "-Wextra",
        ])
        .args(["-pthread"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&program)
        .output()
        .map_err(|e| format!("{}: {e}", compiler.display()))?;
    if output.status.success() {
        Ok(program)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Builds and runs `workload` with `allocator`.
///
/// # Errors
/// What could not be built, started or understood, or how the run failed.
pub fn run(workload: &str, allocator: &Allocator, quick: bool) -> Result<Run, String> {
    if let Some(why) = allocator.missing() {
        return Err(why);
    }
    let folder = root().join("out/footprint/programs");
    let program = build(workload, allocator, &folder)?;
    let mut command = Command::new(&program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MALLOC_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("LD_PRELOAD")
        .env_remove("GLIBC_TUNABLES");
    if let Way::Preload(library) = &allocator.way {
        command.env("LD_PRELOAD", library);
    }
    if quick {
        command.arg("quick");
    }
    if allocator.hardened {
        command.arg("hardened");
    }
    let text = finish(command)?;
    parse(&text).ok_or_else(|| format!("{workload} said:\n{text}"))
}

/// Runs a command to its end and yields what it printed.
fn finish(mut command: Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{shown}: {e}"))?;
    let mut stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.as_mut().map(|out| out.read_to_string(&mut text));
        (text, read)
    });
    let start = Instant::now();
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => break,
            Some(status) if status.code() == Some(77) => {
                let text = reader
                    .join()
                    .map_or_else(|_| String::new(), |(text, _)| text);
                return Err(text.trim().to_owned());
            }
            Some(status) => return Err(format!("{shown}: {status}")),
            None if start.elapsed() > LIMIT => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{shown}: hung"));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    reader
        .join()
        .map(|(text, _)| text)
        .map_err(|_| format!("{shown}: unreadable output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_output_is_read() {
        let text = "sample live=1 footprint=2 bound=9\nbroken class=3 slots=9 bound=8\n\
            peak live=10 footprint=15\nthin live=2 footprint=8\nfreed footprint=4 at_once=6\n\
            bound share=700\n";
        let run = parse(text).expect("complete");
        assert_eq!(run.peak.ratio(), 1.5);
        assert_eq!(run.thin.map(|m| m.footprint), Some(8));
        assert_eq!(run.at_once, 6);
        assert_eq!((run.freed, run.bound, run.samples.len()), (4, 700, 1));
        assert_eq!(run.broken, ["broken class=3 slots=9 bound=8"]);
    }

    #[test]
    fn incomplete_output_is_refused() {
        assert_eq!(parse("peak live=10 footprint=15\n"), None);
        assert_eq!(parse("peak live=10\nbound share=1\n"), None);
        assert_eq!(parse("Segmentation fault\n"), None);
    }
}
