//! The proof by a real program: Lua, as upstream released it, static and dynamic, with a workload.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::slice::from_ref;
use std::time::Instant;

use crate::build::Built;
use crate::digest::{self, Inputs, Stamp};
use crate::error::{At, Error, Kind, Result};
use crate::pins::Pins;
use crate::progress::step;
use crate::project::{self, Project};
use crate::{fetch, prefix, run, source};

/// What the workload prints last when all its own checks held.
const SIGN: &str = "workload ok";

/// How the program was linked.
const LINKS: [(&str, &str); 2] = [("static", "-static"), ("dynamic", "")];

/// Builds Lua with the toolchain and runs the workload; gives a line for the summary.
///
/// # Errors
/// `Source` when Lua cannot be had, `Step` when it does not build, `Gate` when it misbehaves.
pub fn prove(project: &Project, built: &Built) -> Result<String> {
    let pins = Pins::read(&project.root)?;
    let version = pins.lua.default.clone();
    let tarball = fetch::pinned(project, "lua", &pins.lua, &version)?;
    let dest = project
        .out
        .join(format!("proof/lua-{version}-musl-{}", built.source.label));
    let workload = project.root.join("src/tool/probes/workload.lua");
    let prefix = &built.byssal.prefix;
    let inputs = Inputs::new()
        .text("libc.a", &digest::file(&prefix.join("lib/libc.a"))?)
        .text("libc.so", &digest::file(&prefix.join("lib/libc.so"))?)
        .text("lua", &digest::file(&tarball)?)
        .text("workload", &digest::file(&workload)?)
        .finish();
    let stamp = Stamp::new(
        &project.out,
        &format!("proof-{}", built.source.label),
        inputs,
    );
    let result = dest.join("result");
    if !stamp.holds(from_ref(&result)) {
        let log = project.log("lua");
        run::fresh_log(&log)?;
        let temp = project::temp_beside(&dest)?;
        let made = temp.path().join("made");
        step(
            &format!("Lua {version}: build static and dynamic, run its workload"),
            || {
                let text = build_and_run(built, &tarball, &workload, temp.path(), &made, &log)?;
                project::write_file(&made.join("result"), text.as_bytes())
            },
        )?;
        project::replace_dir(&made, &dest)?;
        stamp.note(from_ref(&result))?;
    }
    Ok(format!("Lua {version}, {}", project::read_text(&result)?))
}

fn build_and_run(
    built: &Built,
    tarball: &Path,
    workload: &Path,
    temp: &Path,
    made: &Path,
    log: &Path,
) -> Result<String> {
    fs::create_dir_all(made).at("making directory", made)?;
    let mut results = Vec::new();
    for (kind, flag) in LINKS {
        let lua = made.join(format!("lua-{kind}"));
        let tree = source::unpack(tarball, &temp.join(kind))?;
        build(built, &tree.join("src"), flag, &lua, log)?;
        let target = built.compiler.target;
        results.push(match target.emulator() {
            Err(why) => format!("{kind}: built, not run: {why}"),
            Ok(_) => {
                let took = work(target.command(&lua), workload)?;
                format!("{kind}: workload passed in {took:.1} s")
            }
        });
    }
    Ok(results.join("; "))
}

/// Lua's own Makefile, its generic target: nothing of the host but the kernel.
fn build(built: &Built, tree: &Path, flag: &str, dest: &Path, log: &Path) -> Result<()> {
    let cc = prefix::in_recipe(&built.byssal.prefix.join(built.compiler.wrapper()))?;
    let mut make = Command::new("make");
    make.current_dir(tree)
        .args(["generic", &format!("-j{}", built.compiler.jobs)])
        .arg(format!("CC={cc} -std=gnu99"))
        .arg(format!("MYLDFLAGS={flag}"))
        .arg("MYCFLAGS=-DLUA_USE_POSIX");
    run::logged(&mut make, log)?;
    fs::copy(tree.join("lua"), dest).at("copying to", dest)?;
    Ok(())
}

fn work(mut lua: Command, workload: &Path) -> Result<f32> {
    let start = Instant::now();
    let printed = run::output(lua.arg(workload))
        .map_err(|e| Error::new(Kind::Gate, format!("the workload failed: {}", e.what)))?;
    if printed.lines().last() == Some(SIGN) {
        return Ok(start.elapsed().as_secs_f32());
    }
    Err(Error::new(
        Kind::Gate,
        format!("{}: the workload printed\n{printed}", run::shown(&lua)),
    ))
}
