//! libbyssal_profile.so: the object of libbyssal.a as it is, its functions under other names, and
//! src/profile, which has theirs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::Settings;
use crate::core;
use crate::digest::Stamp;
use crate::error::{At, Result};
use crate::library::{self, Beside};
use crate::musl::Compiler;
use crate::progress::step;
use crate::project::{self, Project};
use crate::run;

const PACKAGE: &str = "byssal-profile";
const STATICLIB: &str = "libbyssal_profile.a";
const NAME: &str = "libbyssal_profile.so";
/// What of libbyssal.a keeps its name: it allocates nothing, and frees nothing.
const AS_THEY_ARE: [&str; 2] = ["malloc_usable_size", "byssal_dump_heap"];

/// Builds the library for one libc, unless it is there.
///
/// # Errors
/// `Step` when something does not build.
pub fn build(
    project: &Project,
    settings: &Settings,
    compiler: &Compiler,
    beside: &Beside,
) -> Result<PathBuf> {
    let [_, archive] = library::one(project, settings, compiler, beside)?;
    let made = beside.dest.join(NAME);
    let workspace = settings.workspace(project);
    let inputs = beside
        .inputs(project, settings, compiler)?
        .tree(&workspace, "src/profile")?
        .text("by", include_str!("library.rs"));
    let name = format!("profile-{}", beside.name);
    let stamp = Stamp::new(&project.out, &name, inputs.finish());
    if stamp.holds(std::slice::from_ref(&made)) {
        return Ok(made);
    }
    let log = project.log(&name);
    run::fresh_log(&log)?;
    step(&format!("{NAME} ({})", beside.name), || {
        let target_dir = core::target_dir(&workspace, &project.out)?;
        let _lock = project::lock_dir(&target_dir)?;
        let target_dir = target_dir.join(&beside.name);
        let target = compiler.target.rust()?;
        let package = (PACKAGE, "library");
        let whole = library::cargo(&workspace, &target, package, beside, &target_dir, &log)?;
        let temp = project::temp_beside(&made)?;
        let parts = (archive.as_path(), whole.join(STATICLIB));
        let so = assemble(
            project,
            compiler,
            beside,
            (parts.0, &parts.1),
            temp.path(),
            &log,
        )?;
        fs::rename(so, &made).at("renaming to", &made)
    })?;
    stamp.note(std::slice::from_ref(&made))?;
    Ok(made)
}

/// Links the library from the allocator's archive and the profile's.
fn assemble(
    project: &Project,
    compiler: &Compiler,
    beside: &Beside,
    (allocator, profile): (&Path, &Path),
    dir: &Path,
    log: &Path,
) -> Result<PathBuf> {
    let public = library::exports(project, "library-exports.txt")?;
    let kept = |name: &&String| AS_THEY_ARE.contains(&name.as_str());
    let renamed: Vec<String> = public.iter().filter(|n| !kept(n)).cloned().collect();
    let mut own = renamed.clone();
    own.extend(core::names(&project.root.join("src/profile/exports.txt"))?);
    let mut global = own.clone();
    if beside.is_musl() {
        // Not for the process, but for the unwinder that is linked in.
        global.push("_dl_find_object".to_owned());
    }
    let front = library::object(compiler, &global, profile, dir, "profile.o", log)?;
    let behind = dir.join("allocator.a");
    let mut objcopy = Command::new(compiler.program("objcopy")?);
    let names = renamed
        .iter()
        .map(|n| format!("--redefine-sym={n}=byssal_{n}"));
    objcopy.args(names).arg(allocator).arg(&behind);
    run::logged(&mut objcopy, log)?;
    let mut exports = own;
    exports.extend(AS_THEY_ARE.map(str::to_owned));
    let so = dir.join(NAME);
    // The unwinder within it: a process need not have one of its own.
    let parts = [
        front.as_os_str(),
        behind.as_os_str(),
        OsStr::new("-static-libgcc"),
        OsStr::new("-Wl,--eh-frame-hdr"),
    ];
    library::link(beside, &parts, &exports, &so, log)?;
    Ok(so)
}
