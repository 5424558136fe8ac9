//! The command line: what the allocators are, and building them.

use std::process::ExitCode;

use byssal_peers::{all, prepare, Kind, Peer};
use byssal_tool::error::Result;
use byssal_tool::progress::say;
use byssal_tool::project::Project;
use clap::{Parser, Subcommand};

/// Builds the allocators that byssal is compared with.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds and probes them, those that are not there
    Build {
        /// Which ones [default: all]
        name: Vec<String>,
    },
    /// Lists them: name, version, how a program gets it, and where it is
    List {
        /// Also the flags they are built with
        #[arg(long)]
        flags: bool,
    },
}

fn run(cli: Cli) -> Result<()> {
    let project = Project::find(None, None)?;
    match cli.command {
        Command::Build { name } => {
            let names: Vec<&str> = name.iter().map(String::as_str).collect();
            for peer in prepare(&project, &names)? {
                say(&line(&peer));
            }
        }
        Command::List { flags } => {
            for peer in all(&project)? {
                say(&line(&peer));
                if flags {
                    say(&format!("    {}", peer.flags));
                }
            }
        }
    }
    Ok(())
}

fn line(peer: &Peer) -> String {
    let kind = match peer.kind {
        Kind::Preload => "preload",
        Kind::Static => "static",
        Kind::Linked => "linked",
    };
    let hardened = if peer.hardened { "hardened" } else { "plain" };
    let file = peer
        .file
        .as_ref()
        .map_or("(libc itself)".into(), |f| f.to_string_lossy());
    let there = match &peer.file {
        Some(f) if !f.exists() => " (not built)",
        _ => "",
    };
    format!(
        "{:<22} {:<26} {kind:<8} {hardened:<9} {file}{there}",
        peer.name, peer.version
    )
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("byssal-peers: {e}");
            if let Some(remedy) = &e.remedy {
                eprintln!("  what to do: {remedy}");
            }
            ExitCode::from(e.kind as u8)
        }
    }
}
