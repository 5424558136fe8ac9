//! Gates about small programs that are linked with the toolchain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::{judged, Finding, Subject};
use crate::elf::Elf;
use crate::error::{At, Error, Kind, Result};
use crate::musl::{self, Compiler};
use crate::{prefix, project, run};

/// Bytes of text that a call takes at most, with what aligns the next function, on any machine;
/// where functions are called by way of a table, that has a pointer more.
const CALL: u64 = 48;
/// Bytes by which the file may be longer, where the call moves a section to another page.
const PAGE: u64 = 4096;

/// What a static program costs: bytes of the file, and of what is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Size {
    /// Bytes that a pointer more takes in .bss.
    pointer: u64,
    file: u64,
    text: u64,
    data: u64,
    bss: u64,
}

impl Size {
    /// The same but for exit's call of its hook, and the one pointer by which struct pthread grew:
    /// the main thread's is in .bss of every program (`builtin_tls`), and takes no byte of the file.
    fn is_stock(self, stock: Size) -> bool {
        let pointer = self.pointer;
        let within = |ours: u64, stock: u64, more: u64| (stock..=stock + more).contains(&ours);
        let bss = self.bss.saturating_sub(stock.bss);
        within(self.text, stock.text, CALL)
            && within(self.data, stock.data, pointer)
            && within(self.file, stock.file, PAGE)
            && self.bss >= stock.bss
            && (bss == 0 || bss == pointer)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Size {
            file,
            text,
            data,
            bss,
            ..
        } = self;
        write!(f, "file {file}, text {text}, data {data}, bss {bss} bytes")
    }
}

pub fn empty(subject: &Subject) -> Result<Finding> {
    let (ours, stock) = sizes(subject, "empty")?;
    Ok(judged(ours.is_stock(stock), compared(ours, stock)))
}

fn compared(ours: Size, stock: Size) -> String {
    let call = if ours.text == stock.text {
        ""
    } else {
        " (text: exit's call of its hook)"
    };
    let pointer = if ours.bss == stock.bss {
        ""
    } else {
        " (bss: the pointer in struct pthread)"
    };
    format!("{ours}; stock {stock}{call}{pointer}")
}

/// The default preset leaves such a program musl's bump allocator, no larger than `empty`; with the
/// hardened one it has the core, whose blocks of 0 bytes cannot be written.
pub fn only_malloc(subject: &Subject) -> Result<Finding> {
    let (ours, stock) = sizes(subject, "only_malloc")?;
    let program = subject.compile(&subject.built.byssal.prefix, "only_malloc", &["-static"])?;
    run::output(&mut subject.command(&program))?;
    let zero = subject.command(&program).arg("zero").output();
    let zero = zero.at("running", &program)?.status;
    let elf = Elf::read(&program)?;
    let malloc = elf.address("__libc_malloc_impl");
    let is_bump = malloc.is_some() && malloc == elf.address("__simple_malloc");
    let has_core = elf.address("__libc_free").is_some();
    let (good, which) = if subject.built.preset.serves_all() {
        let stopped = zero.signal() == Some(11);
        (has_core && !is_bump && stopped, "the core's")
    } else {
        let grown = has_core || !ours.is_stock(stock);
        (is_bump && !grown && zero.success(), "__simple_malloc")
    };
    let which = if good { which } else { "not what it should be" };
    Ok(judged(
        good,
        format!(
            "__libc_malloc_impl is {which}, a write to malloc(0): {zero}; {}",
            compared(ours, stock)
        ),
    ))
}

pub fn own_malloc(subject: &Subject) -> Result<Finding> {
    let program = subject.compile(&subject.built.byssal.prefix, "own_malloc", &["-static"])?;
    run::output(&mut subject.command(&program))?;
    Ok(Finding::Passed(
        "defines malloc, aligned_alloc, malloc_usable_size; calls freelocale; exit 0".into(),
    ))
}

/// Bytes of file, and of data that is not zero, by which the allocator may make a static program
/// larger than mallocng does. Tables that begin as zeros belong to .bss, where they cost nothing.
const GROWTH: (u64, u64) = (256 << 10, 16 << 10);

pub fn cost(subject: &Subject) -> Result<Finding> {
    let (ours, stock) = sizes(subject, "hooks")?;
    let good = ours.file <= stock.file + GROWTH.0 && ours.data <= stock.data + GROWTH.1;
    Ok(judged(good, format!("{ours}; stock {stock}")))
}

/// Sizes of a static program with ours and with stock musl; the program must run, too.
fn sizes(subject: &Subject, name: &str) -> Result<(Size, Size)> {
    let size = subject.built.compiler.program("size")?;
    let one = |prefix: &Path| -> Result<Size> {
        let program = subject.compile(prefix, name, &["-static", "-s"])?;
        run::output(&mut subject.command(&program))?;
        let file = fs::metadata(&program).at("reading", &program)?.len();
        let printed = run::output(Command::new(&size).arg(&program))?;
        let numbers: Vec<u64> = printed
            .lines()
            .nth(1)
            .unwrap_or("")
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        match numbers[..] {
            [text, data, bss, ..] => Ok(Size {
                pointer: Elf::read(&program)?.pointer_in_bss(),
                file,
                text,
                data,
                bss,
            }),
            _ => Err(Error::new(
                Kind::Gate,
                format!("size {} printed {printed:?}", program.display()),
            )),
        }
    };
    Ok((
        one(&subject.built.byssal.prefix)?,
        one(&subject.built.stock.prefix)?,
    ))
}

/// Builds libc.a once more with the opposite default of the compiler, and runs a program on it.
pub fn other_kind(subject: &Subject) -> Result<Finding> {
    let built = subject.built;
    let defines = built.compiler.macros()?;
    let is_pie = defines.lines().any(|l| l.starts_with("#define __PIE__"));
    let (flags, kind) = if is_pie {
        ("-fno-pie -no-pie", "non-PIE")
    } else {
        ("-fpie -pie", "PIE-default")
    };
    let tree = subject.work.join("other");
    project::copy_tree(&built.byssal.dir, &tree, &|p| {
        ["obj", "lib", "config.mak"]
            .map(|n| built.byssal.dir.join(n))
            .iter()
            .any(|m| m == p)
    })?;
    let pass = if is_pie {
        format!("exec {} {flags} \"$@\"\n", built.compiler.cc)
    } else {
        // -pie must not reach links of shared objects.
        format!("case \" $* \" in *\" -shared \"*|*\" -static \"*) exec {0} -fpie \"$@\";; esac\nexec {0} {flags} \"$@\"\n", built.compiler.cc)
    };
    // Named from where make works, and from where the program is compiled: our path may have spaces.
    for script in [tree.join("cc"), subject.work.join("cc")] {
        project::write_file(&script, format!("#!/bin/sh\n{pass}").as_bytes())?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .at("setting the mode of", &script)?;
    }
    let compiler = Compiler {
        cc: "./cc".into(),
        ..built.compiler.clone()
    };
    let dest = subject.work.join("prefix");
    // Members of libc.a depend on the kind of compiler; libc.so is made of .lo objects with any.
    musl::configure(
        &tree,
        "byssal",
        &compiler,
        &["--disable-shared"],
        &subject.log(),
    )?;
    crate::progress::step(&format!("libc.a by a {kind} compiler"), || {
        musl::make(&tree, &[], compiler.jobs, &subject.log())?;
        prefix::install(&tree, &dest, compiler.target, &subject.log())
    })?;
    let members = musl::variable(&tree, "AOBJS").unwrap_or_else(|_| "$(LIBC_OBJS)".into());
    let program = subject.compile(&dest, "hooks", &["-static"])?;
    run::output(subject.command(&program).arg("return"))?;
    Ok(Finding::Passed(format!(
        "{} is {}; built with a {kind} wrapper too (AOBJS = {members}), a threaded program runs",
        built.compiler.cc,
        if is_pie { "PIE-default" } else { "non-PIE" },
    )))
}
