//! `byssal-bench`: runs programs under byssal and its peers, and shows the figures side by side.

#![allow(dead_code)] // until all of the catalogue is run

use std::process::ExitCode;

use byssal_tool::error::Result;
use byssal_tool::project::Project;

mod catalogue;
mod real;

fn run() -> Result<()> {
    let project = Project::find(None, None)?;
    for program in catalogue::read(&project)? {
        println!("{}: {}", program.name, program.pattern);
        for name in &program.sources {
            catalogue::source(&project, name)?;
        }
    }
    for program in real::programs() {
        println!("{}: {}", program.name, program.pattern);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("byssal-bench: {e}");
            ExitCode::from(e.kind as u8)
        }
    }
}
