//! `build`: all of the main job in turn, and the closing summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;
use std::time::Instant;

use crate::build::{self, Built, Settings};
use crate::digest::{self, Inputs, Stamp};
use crate::error::Result;
use crate::install::Ready;
use crate::library::{self, Library};
use crate::progress::say;
use crate::project::{self, Project};
use crate::{prefix, run, sample, verify};

/// Does the whole job: only what changed since the last time.
///
/// # Errors
/// Those of the steps.
pub fn all(project: &Project, settings: &Settings) -> Result<()> {
    let start = Instant::now();
    let built = build::build(project, settings)?;
    let libraries = library::build(project, settings, &built)?;
    let gates = verified(project, &built)?;
    let proof = sample::prove(project, &built)?;
    let gates = gates.lines().last().unwrap_or_default();
    publish(project, &built)?;
    Ready::of(project, &built.source.label, settings.preset).note()?;
    summary(project, settings, &built, &libraries, gates, &proof)?;
    say(&format!("Done in {:.1} s.", start.elapsed().as_secs_f32()));
    Ok(())
}

/// Runs the gates, unless they have been passed by these very files; gives what they said.
///
/// # Errors
/// `Gate` when one failed.
pub fn verified(project: &Project, built: &Built) -> Result<String> {
    let mut inputs = Inputs::new().text("compiler", &built.compiler.identity);
    for prefix in [&built.byssal.prefix, &built.stock.prefix] {
        for file in ["lib/libc.a", "lib/libc.so"] {
            inputs = inputs.text(file, &digest::file(&prefix.join(file))?);
        }
    }
    let inputs = inputs
        .text("core", &built.cores.identity())
        .tree(&project.root, "src/tool/src")?
        .tree(&project.root, "src/tool/probes")?
        .finish();
    let record = project.out.join(format!("verified-{}", built.source.label));
    let stamp = Stamp::new(
        &project.out,
        &format!("verified-{}", built.source.label),
        inputs,
    );
    if !stamp.holds(from_ref(&record)) {
        let report = verify::all(project, built)?;
        project::write_file(&record, report.as_bytes())?;
        stamp.note(from_ref(&record))?;
    }
    project::read_text(&record)
}

/// Puts what is built, verified and proved where it is found, in place of what was there.
fn publish(project: &Project, built: &Built) -> Result<()> {
    let mut dirs = vec![
        built.patches.clone(),
        built.stock.prefix.clone(),
        built.byssal.prefix.clone(),
    ];
    if built.compiler.target.is_own() {
        dirs.push(project.made.join("lib"));
    }
    let mut inputs = Inputs::new();
    for dir in &dirs {
        inputs = inputs.text("of", &dir.to_string_lossy()).tree(dir, "")?;
    }
    let step = format!("published-{}", built.source.label);
    let stamp = Stamp::new(&project.out, &step, inputs.finish());
    let found: Vec<PathBuf> = dirs.iter().map(|dir| project.published(dir)).collect();
    if stamp.holds(&found) {
        return Ok(());
    }
    for (dir, found) in dirs.iter().zip(&found) {
        prefix::publish(dir, found)?;
    }
    stamp.note(&found)
}

fn summary(
    project: &Project,
    settings: &Settings,
    built: &Built,
    libraries: &[Library],
    gates: &str,
    proof: &str,
) -> Result<()> {
    let prefix = project.published(&built.byssal.prefix);
    let wrapper = prefix.join(built.compiler.wrapper());
    let cc = run::output(Command::new(&built.compiler.cc).arg("--version"))?;
    let rustc = run::output(Command::new("rustc").arg("--version"))?;
    let shown = |p: &Path| {
        let p = project.published(p);
        p.strip_prefix(&project.root)
            .unwrap_or(&p)
            .display()
            .to_string()
    };
    say("");
    say(&format!(
        "byssal {} (preset {}) in musl {}; {}; {}",
        env!("CARGO_PKG_VERSION"),
        settings.preset.name(),
        built.source.label,
        cc.lines().next().unwrap_or("").trim(),
        rustc.trim()
    ));
    let mut rows: Vec<(&str, PathBuf)> = vec![
        ("toolchain", wrapper.clone()),
        ("libc", prefix.join("lib/libc.a")),
        ("libc", prefix.join("lib/libc.so")),
        ("patches", built.patches.clone()),
    ];
    rows.extend(libraries.iter().map(|l| (l.what, l.path.clone())));
    for (what, path) in rows {
        say(&format!("  {what:<10} {} {}", shown(&path), size(&path)));
    }
    for stock in ["lib/libc.a", "lib/libc.so"] {
        let path = built.stock.prefix.join(stock);
        say(&format!(
            "  {:<10} {} {}",
            "(stock)",
            shown(&path),
            size(&path)
        ));
    }
    say(&format!("  proved     {gates}"));
    say(&format!("  proved     {proof}"));
    say(&format!("  logs       {}", shown(&project.out.join("log"))));
    let quoted = |p: &Path| run::quoted(p.as_os_str());
    say(&format!(
        "\nTry next:\n  {} -static -O2 program.c -o program",
        quoted(&wrapper)
    ));
    if project.out.to_string_lossy().contains([' ', ':']) {
        say("  LD_PRELOAD and RUSTFLAGS part their values at spaces and colons: for them");
        say("  install to, or copy the library to, a path without: make install PREFIX=...");
        return Ok(());
    }
    let prefix = prefix.display();
    if built.compiler.target.is_own() {
        say(&format!(
            "  LD_PRELOAD={} python3 -c 'print(1)'",
            quoted(&project.out.join("lib/libbyssal.so"))
        ));
    }
    say(&format!(
        "  from Rust:   RUSTFLAGS='-L native={prefix}/lib' \\"
    ));
    let rust = &built.compiler.target.rust;
    say(&format!("               cargo build --target {rust}"));
    say(&format!(
        "               or, with a libunwind.a in DIR: RUSTFLAGS='-C linker={} \
         -C link-self-contained=no -C relocation-model=static -L DIR'",
        wrapper.display()
    ));
    say("  to install:  sudo make install, or make install PREFIX=DIR");
    Ok(())
}

fn size(path: &Path) -> String {
    match fs::metadata(path) {
        Ok(m) if m.is_file() => format!("({} bytes)", m.len()),
        _ => String::new(),
    }
}
