//! `byssal-bench`: runs programs under byssal and its peers, and shows the figures side by side.
//!
//! ```text
//! catalogue, real    what is run
//! programs           built for the host and for each musl toolchain: jobs
//! linked             Rust programs, built with each allocator's crate: jobs
//! measure            one run, by the tiny launcher
//! rounds             all runs, interleaved, within a time
//! extras             small processes, instructions, memory given back
//! results            what was found; statistics: medians and means
//! table, report, plots, compare      how it is shown
//! counts, model      what threads share, counted, and what many cores would make of it
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use byssal_peers::{Kind as PeerKind, Peer};
use byssal_tool::error::{At, Error, Kind, Result};
use byssal_tool::progress::say;
use byssal_tool::project::Project;
use byssal_tool::run;
use catalogue::Size;
use clap::{Parser, Subcommand, ValueEnum};
use measure::Runner;
use results::{Allocator, Machine, Mode, Results};

#[allow(dead_code)] // the interface of real programs has parts that none of them needs yet
mod catalogue;
mod compare;
mod counts;
mod extras;
mod linked;
mod measure;
mod model;
mod plots;
mod programs;
mod real;
mod report;
mod results;
mod rounds;
mod statistics;
mod table;

/// Speed and memory of byssal beside every peer.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Builds what is missing, runs everything, writes table, report.html and results.json
    Run(Options),
    /// Tells what changed from one results.json to another
    Compare { before: PathBuf, after: PathBuf },
    /// Writes table and report.html anew from a results.json, beside it
    Report { results: PathBuf },
    /// Lists the programs
    List,
    /// Counts atomic operations, locks and writes to shared lines; leaves out/bench/counts.md
    Counts,
}

#[derive(clap::Args)]
struct Options {
    /// quick (under 5 minutes, fewer allocators) or full (under an hour)
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// LD_PRELOAD, static programs, crates in Rust programs, or all of them
    #[arg(long, value_enum, default_value = "all")]
    mode: Which,
    /// Only these programs, by name, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these allocators, as `byssal-peers list` names them, separated by commas
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds, if the time is enough for them
    #[arg(long)]
    rounds: Option<usize>,
    /// Minutes that the rounds may take
    #[arg(long)]
    minutes: Option<f64>,
    /// Leave out small processes, instructions and memory given back
    #[arg(long)]
    no_extras: bool,
    /// Where results go
    #[arg(long, value_name = "DIR", default_value = "out/bench")]
    dest: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Preload,
    Static,
    Linked,
    All,
}

/// Allocators of a quick run: the fastest plain ones, a hardened one, and what is replaced.
const QUICK: [&str; 13] = [
    "byssal",
    "glibc",
    "mimalloc2-secure",
    "mimalloc3",
    "jemalloc",
    "snmalloc",
    "snmalloc-checks",
    "musl-byssal",
    "musl-mallocng",
    "rust-byssal",
    "rust-system",
    "rust-mimalloc",
    "rust-jemalloc",
];

/// How much a run does, and how long each part may take.
struct Budget {
    rounds: usize,
    total: Duration,
    instructions: Duration,
    /// The longest that one run of a program may take.
    run: Duration,
}

impl Options {
    fn budget(&self) -> Budget {
        let (rounds, total, instructions, run) = match self.size {
            Size::Quick => (3, 130.0, 15.0, 20),
            Size::Full => (5, 43.0 * 60.0, 4.0 * 60.0, 60),
        };
        Budget {
            rounds: self.rounds.unwrap_or(rounds).max(1),
            total: Duration::from_secs_f64(self.minutes.map_or(total, |m| m * 60.0)),
            instructions: Duration::from_secs_f64(instructions),
            run: Duration::from_secs(run),
        }
    }

    fn peers(&self, project: &Project) -> Result<Vec<Peer>> {
        let wanted = |p: &&Peer| {
            let mode = match p.kind {
                PeerKind::Preload => Which::Preload,
                PeerKind::Static => Which::Static,
                PeerKind::Linked => Which::Linked,
            };
            let mode = self.mode == mode || self.mode == Which::All;
            let named = match (self.peers.is_empty(), self.size) {
                (false, _) => self.peers.iter().any(|n| n == p.name),
                (true, Size::Quick) => QUICK.contains(&p.name),
                (true, Size::Full) => true,
            };
            mode && named
        };
        let linked = linked::peers(project)?;
        let mut all = byssal_peers::all(project)?;
        let prepared = all.len();
        all.extend(linked);
        if let Some(wrong) = self
            .peers
            .iter()
            .find(|n| all.iter().all(|p| p.name != **n))
        {
            return Err(
                Error::new(Kind::Usage, format!("there is no allocator {wrong}")).remedy(
                    "byssal-peers list names them; in Rust programs: rust-byssal, \
                         rust-byssal-hardened, rust-system, rust-mimalloc, rust-jemalloc",
                ),
            );
        }
        let linked = all.split_off(prepared);
        let mut names: Vec<&str> = all.iter().filter(wanted).map(|p| p.name).collect();
        let runs = names.clone();
        // Its compiler makes the launcher.
        names.push("musl-mallocng");
        let peers = byssal_peers::prepare(project, &names)?;
        let prepared = peers.into_iter().filter(|p| runs.contains(&p.name));
        let linked = linked.into_iter().filter(|p| wanted(&p));
        Ok(prepared.chain(linked).collect())
    }
}

fn measure_all(options: &Options) -> Result<()> {
    let begin = Instant::now();
    let project = Project::find(None, None)?;
    say("Allocators:");
    let peers = options.peers(&project)?;
    // Those in Rust programs stand behind the others, for which C programs are built.
    let outside = peers.iter().filter(|p| p.kind != PeerKind::Linked).count();
    let (others, linked) = peers.split_at(outside);
    let budget = options.budget();
    let runner = runner(&project, budget.run)?;
    let mut notes = Vec::new();
    let (size, only) = (options.size, &options.only);
    let mut works = programs::all(&project, others, size, only, &mut notes)?;
    works.extend(linked::works(&project, linked, size, only, &mut notes)?);
    if works.is_empty() {
        return Err(Error::new(Kind::Usage, "no program is left to run")
            .remedy("byssal-bench list names them"));
    }
    say(&format!(
        "{} rows under {} allocators, at most {} rounds in at most {:.0} minutes:",
        works.len(),
        peers.len(),
        budget.rounds,
        budget.total.as_secs_f64() / 60.0
    ));
    let plan = rounds::Plan {
        works: &works,
        peers: &peers,
        rounds: budget.rounds,
        end: Instant::now() + budget.total,
    };
    let (mut rows, rounds) = rounds::run(&plan, &runner, &mut notes)?;
    let extra = if options.no_extras {
        results::Extra::default()
    } else {
        say("Beyond time:");
        let time = budget.instructions;
        extras::instructions(&works, &mut rows, &peers, &runner, time, &mut notes)?;
        extras::all(&project, others, options.size, &runner, &mut notes)?
    };
    let results = Results {
        format: results::FORMAT,
        machine: machine(&project),
        size: options.size,
        rounds,
        seconds: begin.elapsed().as_secs_f64(),
        allocators: peers.iter().map(allocator).collect(),
        rows,
        notes,
        extra,
    };
    show(&results, &options.dest)
}

fn runner(project: &Project, limit: Duration) -> Result<Runner> {
    let scratch = project.out.join("bench/run");
    std::fs::create_dir_all(&scratch).at("making directory", &scratch)?;
    let stock = byssal_peers::all(project)?;
    let stock = stock.iter().find(|p| p.name == "musl-mallocng");
    let cc = stock.map_or("gcc".into(), Peer::cc);
    run::fresh_log(&project.log("bench-build"))?;
    Ok(Runner {
        launcher: measure::launcher(project, &cc)?,
        scratch,
        limit,
    })
}

fn allocator(peer: &Peer) -> Allocator {
    Allocator {
        name: peer.name.to_owned(),
        version: peer.version.clone(),
        mode: match peer.kind {
            PeerKind::Preload => Mode::Preload,
            PeerKind::Static => Mode::Static,
            PeerKind::Linked => Mode::Linked,
        },
        hardened: peer.hardened,
        ours: peer.ours(),
        flags: peer.flags.clone(),
    }
}

fn machine(project: &Project) -> Machine {
    let told = |program: &str, args: &[&str]| {
        let mut cmd = Command::new(program);
        cmd.args(args).current_dir(&project.root);
        let text = run::output(&mut cmd).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let changed = match told("git", &["status", "--porcelain"]).is_empty() {
        true => "",
        false => " (changed)",
    };
    Machine {
        cpu: model.map_or("unknown CPU".into(), |(_, name)| name.to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: told("uname", &["-sr"]),
        compiler: told("gcc", &["--version"]),
        commit: format!(
            "{}{changed}",
            told("git", &["rev-parse", "--short", "HEAD"])
        ),
        date: told("date", &["-u", "+%Y-%m-%d %H:%M"]),
    }
}

/// Writes and prints all there is to see.
fn show(results: &Results, dest: &Path) -> Result<()> {
    let (json, page) = (dest.join("results.json"), dest.join("report.html"));
    results.write(&json)?;
    report::write(results, &page)?;
    let text = table::text(results);
    say(&text);
    say(&format!("{}\n{}", page.display(), json.display()));
    keep(&dest.join("tables.md"), &format!("```text\n{text}```\n"))
}

/// Leaves tables in Markdown, for `ci/result`.
fn keep(page: &Path, text: &str) -> Result<()> {
    std::fs::write(page, text).at("writing", page)
}

fn list() -> Result<()> {
    let project = Project::find(None, None)?;
    for program in catalogue::read(&project)? {
        say(&format!("{:<24} {}", program.name, program.pattern));
    }
    for program in real::programs(&project)? {
        say(&format!("{:<24} {} (real)", program.name, program.pattern));
    }
    for (name, pattern) in linked::names() {
        say(&format!("{name:<24} {pattern} (Rust)"));
    }
    Ok(())
}

fn count() -> Result<()> {
    let project = Project::find(None, None)?;
    let peers = byssal_peers::prepare(&project, &["glibc", "musl-mallocng"])?;
    let host = peers.iter().find(|p| p.name == "glibc");
    let host = host.ok_or_else(|| Error::new(Kind::Step, "glibc was not prepared"))?;
    let runner = runner(&project, Duration::from_secs(60))?;
    let patterns = counts::all(&project, host, &runner)?;
    let text = model::tables(&patterns);
    say(&text);
    keep(&project.out.join("bench/counts.md"), &text)
}

fn act(cli: Cli) -> Result<()> {
    match cli.command {
        Action::Run(options) => measure_all(&options),
        Action::Compare { before, after } => {
            let (before, after) = (Results::read(&before)?, Results::read(&after)?);
            say(&compare::text(&before, &after));
            Ok(())
        }
        Action::Report { results } => {
            let dest = results.parent().unwrap_or(Path::new(".")).to_path_buf();
            show(&Results::read(&results)?, &dest)
        }
        Action::List => list(),
        Action::Counts => count(),
    }
}

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("byssal-bench: {e}");
            if let Some(remedy) = &e.remedy {
                eprintln!("  what to do: {remedy}");
            }
            ExitCode::from(e.kind as u8)
        }
    }
}
