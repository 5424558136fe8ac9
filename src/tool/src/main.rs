//! The command line of the tool.

use std::path::PathBuf;
use std::process::ExitCode;

use byssal_tool::build::{self, Settings};
use byssal_tool::core::Preset;
use byssal_tool::error::Result;
use byssal_tool::progress::say;
use byssal_tool::project::Project;
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the system refused a file or process; 2 wrong usage; 3 a needed program is
missing; 4 a source could not be had or has a wrong SHA-256; 5 the musl tree is refused; 6 a build
step failed; 7 a gate or test failed.";

/// Puts the byssal malloc into musl.
#[derive(Parser)]
#[command(version, about, after_help = EXIT_CODES)]
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
    #[arg(long, env = "MUSL")]
    musl: Option<String>,
    /// The C compiler, one word [default: gcc]
    #[arg(long, env = "CC")]
    cc: Option<String>,
    /// Jobs of make at a time [default: one for each core]
    #[arg(long, short, env = "JOBS")]
    jobs: Option<usize>,
    /// Knobs of the allocator
    #[arg(long, env = "PRESET", default_value = "default")]
    preset: Preset,
    /// The Rust workspace of the allocator, when it is not the checkout
    #[arg(long, value_name = "DIR", hide = true)]
    core_workspace: Option<PathBuf>,
}

impl Common {
    fn settings(self) -> Settings {
        Settings {
            musl: self.musl,
            cc: self.cc,
            jobs: self.jobs,
            preset: self.preset,
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
        /// The directory to write [default: out/patches/musl-VERSION]
        #[arg(long, value_name = "DIR")]
        dest: Option<PathBuf>,
    },
    /// Makes the archive of the compiled core
    Archive {
        #[command(flatten)]
        common: Common,
        /// A tree that is patched and configured, to make it for
        #[arg(long, value_name = "DIR")]
        tree: Option<PathBuf>,
        /// The file to write [default: beside the series, or within the tree]
        #[arg(long, value_name = "FILE")]
        dest: Option<PathBuf>,
    },
    /// Builds the toolchain, a stock one beside it, and the libraries
    Build {
        #[command(flatten)]
        common: Common,
    },
}

fn run(cli: Cli) -> Result<()> {
    let project = Project::find(cli.root.as_deref(), cli.out.as_deref())?;
    match cli.command {
        Command::Fetch { common } => {
            let source = common.settings().source(&project)?;
            say(&source.path().display().to_string());
        }
        Command::Patch { common, dest } => {
            let dest = build::patch(&project, &common.settings(), dest.as_deref())?;
            say(&dest.display().to_string());
        }
        Command::Archive { common, tree, dest } => {
            let made = build::core_archive(
                &project,
                &common.settings(),
                tree.as_deref(),
                dest.as_deref(),
            )?;
            say(&made.display().to_string());
        }
        Command::Build { common } => {
            build::build(&project, &common.settings())?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("byssal: {e}");
            if let Some(remedy) = &e.remedy {
                eprintln!("  what to do: {remedy}");
            }
            ExitCode::from(e.kind as u8)
        }
    }
}
