//! Whose malloc is it really? A preload that the loader drops, or a static program that took
//! libc's own after all, would be measured under a wrong name.

use std::path::Path;
use std::process::Command;

use byssal_tool::digest::{self, Inputs, Stamp};
use byssal_tool::error::{Error, Kind, Result};
use byssal_tool::musl::Compiler;
use byssal_tool::progress::step;
use byssal_tool::project::{self, Project};
use byssal_tool::run;

use crate::table::Make;
use crate::Peer;

/// Builds and runs the probe, unless it passed with this very file.
pub fn probe(
    project: &Project,
    peer: &Peer,
    file: Option<&Path>,
    compiler: &Compiler,
) -> Result<()> {
    let source = "tests/peers/probe/serves.c";
    let mut inputs = Inputs::new()
        .text("compiler", &compiler.identity)
        .tree(&project.root, source)?;
    if let Some(file) = file {
        inputs = inputs.text("file", &digest::file(file)?);
        let libc = file.with_file_name("../lib/libc.a");
        if peer.kind == crate::Kind::Static {
            inputs = inputs.text("libc", &digest::file(&libc)?);
        }
    }
    let stamp = Stamp::new(
        &project.out,
        &format!("probe-{}", peer.name),
        inputs.finish(),
    );
    if stamp.holds(&[]) {
        return Ok(());
    }
    let log = project.log(&format!("probe-{}", peer.name));
    run::fresh_log(&log)?;
    step(&format!("{}: probe", peer.name), || {
        let temp = project::temp_beside(&project.out.join("peers/probe"))?;
        let program = temp.path().join("probe");
        let mut cc = Command::new(peer.cc());
        cc.args(["-O1", "-fno-builtin", "-pthread", "-o"])
            .arg(&program);
        cc.arg(project.root.join(source));
        match peer.kind {
            crate::Kind::Static => cc.args(["-static", "-DSTATIC"]),
            crate::Kind::Preload | crate::Kind::Linked => cc.arg("-ldl"),
        };
        run::logged(&mut cc, &log)?;
        match peer.kind {
            crate::Kind::Preload | crate::Kind::Linked => preloaded(file, &program),
            crate::Kind::Static => linked(peer, &program),
        }
    })?;
    stamp.note(&[])
}

/// Every function of the family must come from the library that was asked for.
fn preloaded(library: Option<&Path>, program: &Path) -> Result<()> {
    let mut cmd = Command::new(program);
    if let Some(library) = library {
        cmd.env("LD_PRELOAD", library);
    }
    let printed = run::output(&mut cmd)?;
    foreign(&printed, library).map_or(Ok(()), |line| {
        let wanted = library.map_or("libc.so".into(), |l| l.to_string_lossy());
        Err(Error::new(
            Kind::Gate,
            format!("{line} serves the program, not {wanted}"),
        )
        .remedy("see whether `ldd` finds all that the library needs"))
    })
}

/// The first line that tells of another file than `library`, or than libc if there is none.
fn foreign<'a>(printed: &'a str, library: Option<&Path>) -> Option<&'a str> {
    let right = |line: &&str| {
        let file = line.split_once(' ').map_or("", |(_, file)| file);
        match library {
            Some(library) => Path::new(file) == library,
            None => file
                .rsplit('/')
                .next()
                .is_some_and(|f| f.starts_with("libc.so")),
        }
    };
    printed.lines().find(|line| !right(line))
}

/// A symbol that only this allocator has, when it is the one that was linked.
fn sign(make: &Make) -> &'static str {
    match make {
        Make::Byssal { .. } => "byssal",
        Make::Mallocng => "__malloc_alloc_meta",
        Make::Oldmalloc => "__bin_chunk",
        _ => "mi_malloc",
    }
}

fn linked(peer: &Peer, program: &Path) -> Result<()> {
    run::output(&mut Command::new(program))?;
    let symbols = run::output(Command::new("nm").arg(program))?;
    let sign = sign(&peer.make);
    if symbols.contains(sign) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Gate,
        format!("the static program has no symbol {sign}: it was linked with another malloc"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preload_that_fell_back_is_seen() {
        let library = Path::new("/x/peer.so");
        let good = "malloc /x/peer.so\nfree /x/peer.so\n";
        assert_eq!(foreign(good, Some(library)), None);
        let mixed = "malloc /x/peer.so\nfree /lib/libc.so.6\n";
        assert_eq!(foreign(mixed, Some(library)), Some("free /lib/libc.so.6"));
        assert_eq!(foreign(good, None), Some("malloc /x/peer.so"));
        assert_eq!(foreign("malloc /lib/libc.so.6\n", None), None);
    }
}
