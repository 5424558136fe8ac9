//! The command line of the tool.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use byssal_tool::build::{self, Settings};
use byssal_tool::core::Preset;
use byssal_tool::error::{Error, Kind, Result};
use byssal_tool::progress::{failure, result, say};
use byssal_tool::project::Project;
use byssal_tool::source::Source;
use byssal_tool::{dist, install, job, libc_test, look, needs, profile, sample, verify};
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the system refused a file or process; 2 wrong usage; 3 a needed program is
missing; 4 a source could not be had or has a wrong SHA-256; 5 the musl tree is refused; 6 a build
step failed; 7 a gate or test failed.";

/// Puts the byssal malloc into musl.
#[derive(Parser)]
#[command(name = "byssal", version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The checkout of byssal [default: found upward from the current directory]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where everything made goes [default: out in the checkout]
    #[arg(long, global = true, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Settings that most steps share.
#[derive(Args)]
struct Common {
    /// musl: a version, a tarball, or a source tree [default: that of patches/pins.toml]
    #[arg(long)]
    musl: Option<String>,
    /// The C compiler, one word [default: gcc, or a cross compiler for the target]
    #[arg(long)]
    cc: Option<String>,
    /// The machine to build for, a triple such as aarch64-linux-musl [default: the compiler's]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Jobs of make at a time [default: one for each core]
    #[arg(long, short, value_parser = jobs, allow_hyphen_values = true)]
    jobs: Option<usize>,
    /// Knobs of the allocator; the last one given counts [default: default]
    #[arg(long, overrides_with = "preset")]
    preset: Option<Preset>,
    /// The Rust workspace of the allocator, when it is not the checkout
    #[arg(long, value_name = "DIR", hide = true)]
    core_workspace: Option<PathBuf>,
}

/// More than any machine of today has, and few enough for make to start.
const MOST_JOBS: usize = 4096;

fn jobs(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=MOST_JOBS) => Ok(n),
        _ => Err(format!(
            "JOBS is a whole number from 1 to {MOST_JOBS}; leave it out for one job for each core"
        )),
    }
}

impl Common {
    fn settings(self) -> Settings {
        Settings {
            musl: self.musl,
            cc: self.cc,
            target: self.target,
            jobs: self.jobs,
            preset: self.preset.unwrap_or_default(),
            workspace: self.core_workspace,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Gets the tarball of musl by its pin, and prints its path
    Fetch {
        #[command(flatten)]
        common: Common,
    },
    /// Writes the patch series for a musl source
    Patch {
        #[command(flatten)]
        common: Common,
        /// musl's configure takes byssal without being told
        #[arg(long)]
        default: bool,
        /// The directory to write [default: out/patches/musl-VERSION]
        #[arg(long, value_name = "DIR")]
        dest: Option<PathBuf>,
    },
    /// Makes the Rust view of musl-glue/glue.h anew (needs libclang)
    #[cfg(feature = "bindings")]
    Bindings,
    /// Writes what is handed out: one patch of the preset with the cores for all machines, and an
    /// archive with the series of both presets
    Dist {
        #[command(flatten)]
        common: Common,
        /// musl's configure takes byssal without being told
        #[arg(long)]
        default: bool,
        /// The directory to write [default: out/dist]
        #[arg(long, value_name = "DIR")]
        dest: Option<PathBuf>,
    },
    /// Checks a built toolchain: every gate, passed or failed with the evidence
    Verify {
        #[command(flatten)]
        common: Common,
        /// Show what they said the last time, when nothing changed since
        #[arg(long)]
        cached: bool,
    },
    /// Builds a real program with the toolchain, static and dynamic, and runs its workload
    Prove {
        #[command(flatten)]
        common: Common,
    },
    /// Runs musl's libc-test against stock musl and ours, and compares what fails
    LibcTest {
        #[command(flatten)]
        common: Common,
        /// A checkout of libc-test; without it, says where to get one
        path: Option<PathBuf>,
    },
    /// Copies the built toolchain into a directory of the system: builds nothing, and writes
    /// nothing elsewhere
    Install {
        #[command(flatten)]
        common: Common,
        /// Where it will be found
        #[arg(long, value_name = "DIR", default_value = "/usr/local/musl")]
        prefix: OsString,
        /// A root that is put before the prefix, for packages
        #[arg(long, value_name = "DIR")]
        destdir: Option<PathBuf>,
    },
    /// Shows what the heap of a program holds: of a process that runs, or of a core
    Look {
        #[command(flatten)]
        look: LookArgs,
    },
    /// Prints what runs programs of the target here: nothing if they run by themselves
    #[command(hide = true)]
    Emulator {
        #[command(flatten)]
        common: Common,
    },
    /// Runs a program and writes its heap profile: call stacks of live and of all allocations
    Profile {
        #[command(flatten)]
        common: Common,
        /// Bytes between samples, in the mean; with 1 each block is one
        #[arg(long, value_name = "BYTES", default_value_t = 512 << 10,
            value_parser = clap::value_parser!(u64).range(1..=1 << 50))]
        mean: u64,
        /// The directory to write [default: out/profile/PROGRAM]
        #[arg(long, value_name = "DIR")]
        dest: Option<PathBuf>,
        /// A result for each process, not one for all together
        #[arg(long)]
        each: bool,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
    /// Removes what was made
    Clean {
        /// Also what was downloaded
        #[arg(long)]
        cache: bool,
    },
    /// Installs what `make check` needs beyond `make`, or says how to
    Setup,
    /// The main job: builds the toolchain, a stock one beside it, the series and the libraries,
    /// verifies them, proves them with a real program; only what changed
    Build {
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    /// The settings that it shares with other steps.
    fn common(&self) -> Option<&Common> {
        match self {
            Command::Fetch { common }
            | Command::Patch { common, .. }
            | Command::Dist { common, .. }
            | Command::Verify { common, .. }
            | Command::Prove { common }
            | Command::LibcTest { common, .. }
            | Command::Install { common, .. }
            | Command::Emulator { common }
            | Command::Profile { common, .. }
            | Command::Build { common } => Some(common),
            Command::Look { .. } | Command::Clean { .. } | Command::Setup => None,
            #[cfg(feature = "bindings")]
            Command::Bindings => None,
        }
    }
}

/// What `look` is to look at, and how.
#[derive(Args)]
struct LookArgs {
    /// The number of a process, or the file of a core
    #[arg(value_name = "PID|CORE", required_unless_present = "diff")]
    program: Option<PathBuf>,
    /// For programs: JSON, one object (with --watch, one a line)
    #[arg(long, conflicts_with = "dump")]
    json: bool,
    /// What the program's own byssal_dump_heap would print: each group and slot
    #[arg(long)]
    dump: bool,
    /// Writes a map of the heap into FILE
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    svg: Option<PathBuf>,
    /// Looks every so many seconds until the process ends, and shows what grew
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "dump")]
    watch: Option<f64>,
    /// Leaves the process running: what is seen may contradict itself
    #[arg(long)]
    no_stop: bool,
    /// Shows what grew between two files of --json
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"],
          conflicts_with_all = ["program", "json", "dump", "svg", "watch", "no_stop"])]
    diff: Option<Vec<PathBuf>>,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(n) if (0.05..=86400.0).contains(&n) => Ok(n),
        _ => Err("SECONDS is a number from 0.05 to 86400".to_owned()),
    }
}

impl LookArgs {
    fn show(self) -> Result<()> {
        if let Some([before, after]) = self.diff.as_deref() {
            return look::diff(before, after);
        }
        let wishes = look::Wishes {
            no_stop: self.no_stop,
            json: self.json,
            dump: self.dump,
            svg: self.svg,
            watch: self.watch,
        };
        look::show(&self.program.unwrap_or_default(), &wishes)
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    // A checkout is not needed to look.
    if let Command::Look { look } = cli.command {
        return look.show().map(|()| ExitCode::SUCCESS);
    }
    let project = Project::find(cli.root.as_deref(), cli.out.as_deref())?.staged();
    let project = match cli.command {
        Command::Install { .. } => project.read_only(),
        _ => project,
    };
    if let Some(musl) = cli.command.common().and_then(|c| c.musl.as_deref()) {
        Source::check_out(&project, musl)?;
    }
    // Held until the end; the kernel lets go of it however that comes.
    let _lock = match cli.command {
        Command::Setup | Command::Emulator { .. } | Command::LibcTest { path: None, .. } => None,
        // Builds under the lock, and leaves it before the program runs.
        Command::Profile { .. } => None,
        Command::Install { .. } => project.lock_to_read()?,
        _ => Some(project.lock()?),
    };
    match cli.command {
        Command::Fetch { common } => {
            let source = common.settings().source(&project)?;
            result(&format!("{}\n", source.path().display()))?;
        }
        Command::Patch {
            common,
            default,
            dest,
        } => {
            let dest = build::patch(&project, &common.settings(), default, dest.as_deref())?;
            result(&format!("{}\n", dest.display()))?;
        }
        Command::Dist {
            common,
            default,
            dest,
        } => {
            for file in dist::make(&project, &common.settings(), default, dest.as_deref())? {
                result(&format!("{}\n", file.display()))?;
            }
        }
        #[cfg(feature = "bindings")]
        Command::Bindings => {
            let dest = project.root.join("src/abi/src/glue_bindings.rs");
            let text = byssal_tool::bindings::generate(&project.root)?;
            byssal_tool::project::write_file(&dest, text.as_bytes())?;
        }
        Command::Verify { common, cached } => {
            let built = build::build(&project, &common.settings())?;
            if cached {
                say(&job::verified(&project, &built)?);
            } else {
                verify::all(&project, &built)?;
            }
        }
        Command::Prove { common } => {
            let built = build::build(&project, &common.settings())?;
            say(&sample::prove(&project, &built)?);
        }
        Command::LibcTest { common, path } => {
            let path = path.ok_or_else(libc_test::where_from)?;
            libc_test::check(&path)?;
            let built = build::build(&project, &common.settings())?;
            libc_test::compare(&project, &built, &path)?;
        }
        Command::Install {
            common,
            prefix,
            destdir,
        } => {
            let prefix = PathBuf::from(prefix);
            install::check_prefix(&prefix, destdir.as_deref())?;
            let preset = common.preset;
            let ready = install::Ready::find(&project, &common.settings(), preset)?;
            let dest = ready.install(&prefix, destdir.as_deref())?;
            say(&format!("installed {ready} to {}", dest.display()));
        }
        Command::Emulator { common } => {
            let target = common.settings().machine()?;
            let emulator = target
                .emulator()
                .map_err(|why| Error::new(Kind::Missing, why))?;
            say(&emulator.unwrap_or_default());
        }
        Command::Profile {
            common,
            mean,
            dest,
            each,
            program,
        } => {
            let request = profile::Request {
                mean,
                dest,
                each,
                command: program,
            };
            return profile::run(&project, &common.settings(), &request).map(ExitCode::from);
        }
        Command::Clean { cache } => install::clean(&project, cache)?,
        Command::Setup => needs::for_tests(&project)?,
        // Done above.
        Command::Look { .. } => {}
        Command::Build { common } => {
            job::all(&project, &common.settings())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            failure(&e);
            ExitCode::from(e.kind as u8)
        }
    }
}
