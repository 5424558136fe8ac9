//! `make footprint`: every workload under every allocator, tables, picture, and the bound.

use byssal_footprint::table::{failures, markdown, misses, Column};
use byssal_footprint::workload::{run, WORKLOADS};
use byssal_footprint::{allocator, picture};
use clap::Parser;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Memory held for a known live set, beside other allocators, against the stated bound.
#[derive(Parser)]
struct Options {
    /// An eighth of the live bytes.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let known = |name: &String| WORKLOADS.iter().any(|(workload, _)| workload == name);
    if let Some(name) = options.only.iter().find(|name| !known(name)) {
        eprintln!("error: no workload {name}");
        return ExitCode::from(2);
    }
    let columns: Vec<_> = allocator::all()
        .iter()
        .filter_map(|a| column(a, &options))
        .collect();
    let tables = markdown(&columns);
    println!("\n{tables}");
    if let Err(error) = write(&columns, &tables) {
        eprintln!("error: {error}");
        return ExitCode::from(1);
    }
    for miss in misses(&columns) {
        println!("target missed: {miss}");
    }
    let failures = failures(&columns);
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    ExitCode::from(if failures.is_empty() { 0 } else { 7 })
}

/// Runs all workloads under one allocator; None when a peer is missing.
fn column(allocator: &allocator::Allocator, options: &Options) -> Option<Column> {
    if let Some(why) = allocator.missing().filter(|_| !allocator.ours) {
        println!("skipped: {}: {why}", allocator.name);
        return None;
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|n| n == name);
    let mut runs = Vec::new();
    for (workload, _) in WORKLOADS.iter().filter(|(name, _)| wanted(name)) {
        eprintln!("{workload} with {}", allocator.name);
        let run = run(workload, allocator, options.quick);
        if let Err(why) = &run {
            println!("{workload} with {} did not run: {why}", allocator.name);
        }
        runs.push((*workload, run));
    }
    Some(Column {
        name: allocator.name,
        ours: allocator.ours,
        runs,
    })
}

/// Writes tables and picture.
fn write(columns: &[Column], tables: &str) -> Result<(), Box<dyn std::error::Error>> {
    let out = allocator::root().join("out/footprint");
    fs::create_dir_all(&out)?;
    let picture: PathBuf = out.join("footprint.svg");
    picture::draw(columns, &picture)?;
    fs::write(out.join("footprint.md"), tables)?;
    eprintln!("tables and picture: {}", out.display());
    Ok(())
}
