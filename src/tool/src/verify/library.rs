//! Gates that read libc.so and the archive of the core.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use object::elf;

use super::code::Code;
use super::{judged, Finding, Subject};
use crate::core::{self, Core};
use crate::elf::{Elf, Exported};
use crate::error::{At, Result};
use crate::tree::Tree;
use crate::{project, run};

pub fn libc_so(tree: &Tree) -> Result<Elf> {
    Elf::read(&tree.prefix.join("lib/libc.so"))
}

pub fn no_tls(subject: &Subject) -> Result<Finding> {
    let kinds = libc_so(&subject.built.byssal)?.segment_kinds();
    let names: Vec<String> = kinds.iter().map(|k| segment_name(*k)).collect();
    Ok(judged(
        !kinds.contains(&elf::PT_TLS),
        format!("program headers {}", names.join(" ")),
    ))
}

fn segment_name(kind: u32) -> String {
    match kind {
        elf::PT_LOAD => "LOAD".into(),
        elf::PT_DYNAMIC => "DYNAMIC".into(),
        elf::PT_NOTE => "NOTE".into(),
        elf::PT_TLS => "TLS".into(),
        elf::PT_GNU_EH_FRAME => "EH_FRAME".into(),
        elf::PT_GNU_STACK => "STACK".into(),
        elf::PT_GNU_RELRO => "RELRO".into(),
        other => format!("{other:#x}"),
    }
}

pub fn no_text_relocations(subject: &Subject) -> Result<Finding> {
    let libc = libc_so(&subject.built.byssal)?;
    let tag = libc.dynamic(elf::DT_TEXTREL).len();
    let flag = libc
        .dynamic(elf::DT_FLAGS)
        .iter()
        .any(|f| f & u64::from(elf::DF_TEXTREL) != 0);
    Ok(judged(
        tag == 0 && !flag,
        format!(
            "{tag} DT_TEXTREL, DF_TEXTREL {}",
            if flag { "set" } else { "not set" }
        ),
    ))
}

/// musl itself has DT_INIT and DT_FINI in libc.so, for its own empty `_init` and `_fini`; those
/// must be all.
pub fn no_constructors(subject: &Subject) -> Result<Finding> {
    let libc = libc_so(&subject.built.byssal)?;
    let arrays = [
        ("DT_INIT_ARRAY", elf::DT_INIT_ARRAY),
        ("DT_FINI_ARRAY", elf::DT_FINI_ARRAY),
        ("DT_PREINIT_ARRAY", elf::DT_PREINIT_ARRAY),
    ];
    let mut found = Vec::new();
    let mut good = true;
    for (name, _) in arrays
        .iter()
        .filter(|(_, tag)| !libc.dynamic(*tag).is_empty())
    {
        good = false;
        found.push(format!("has {name}"));
    }
    let dummies = dummies(&libc);
    for (name, tag, function) in [
        ("DT_INIT", elf::DT_INIT, "_init"),
        ("DT_FINI", elf::DT_FINI, "_fini"),
    ] {
        for address in libc.dynamic(tag) {
            let empty = dummies.contains(&address) && libc.address(function) == Some(address);
            good &= empty;
            let what = if empty {
                "musl's own empty"
            } else {
                "NOT musl's own empty"
            };
            found.push(format!("{name} is {what} {function}"));
        }
    }
    found.push("no arrays".into());
    let stock = libc_so(&subject.built.stock)?;
    for (name, tag) in [("DT_INIT", elf::DT_INIT), ("DT_FINI", elf::DT_FINI)] {
        if libc.dynamic(tag).len() != stock.dynamic(tag).len() {
            good = false;
            found.push(format!("{name} differs from stock"));
        }
    }
    Ok(judged(good, found.join(", ")))
}

/// Addresses of musl's weak dummies: functions named `dummy...`, `allzerop`, `__simple_malloc`.
fn dummies(libc: &Elf) -> BTreeSet<u64> {
    let is_dummy =
        |name: &str| name.starts_with("dummy") || ["allzerop", "__simple_malloc"].contains(&name);
    libc.defined
        .iter()
        .filter(|d| is_dummy(&d.name))
        .map(|d| d.address)
        .collect()
}

pub fn same_exports(subject: &Subject) -> Result<Finding> {
    let (ours, stock) = (
        libc_so(&subject.built.byssal)?.exported,
        libc_so(&subject.built.stock)?.exported,
    );
    if ours == stock {
        return Ok(Finding::Passed(format!(
            "{} symbols, same name, type, binding, visibility",
            ours.len()
        )));
    }
    let only = |a: &BTreeSet<Exported>, b: &BTreeSet<Exported>| {
        a.difference(b)
            .map(|e| format!("{e:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(Finding::Failed(format!(
        "only ours: {}; only stock: {}",
        only(&ours, &stock),
        only(&stock, &ours)
    )))
}

/// The object that musl's build made of the core.
fn object(subject: &Subject) -> Result<Vec<u8>> {
    let built = subject.built;
    let arch = &built.compiler.target.arch;
    let path = built
        .byssal
        .dir
        .join(format!("obj/src/malloc/byssal/{arch}/malloc.lo"));
    fs::read(&path).at("reading", &path)
}

/// The C compiler's assembler must make of the text what rustc's own one makes of what the compiler
/// wrote, byte for byte: then nobody has changed the code on the way.
pub fn same_code(subject: &Subject) -> Result<Finding> {
    let core = &subject.built.cores.cores[0];
    if let Some(why) = &core.target.unmeasured {
        return Ok(Finding::Skipped(why.clone()));
    }
    let text = subject.work.join("core.S");
    let object = subject.work.join("core.o");
    project::write_file(&text, core.text.as_bytes())?;
    let mut cc = Command::new(&subject.built.compiler.cc);
    cc.arg(Core::known_offset())
        .args(["-c", "-o"])
        .arg(&object)
        .arg(&text);
    run::logged(&mut cc, &subject.log())?;
    let [ours, theirs] = [&object, &core.object].map(|path| Code::read(path));
    let (ours, theirs) = (ours?, theirs?);
    let different = ours.unlike(&theirs);
    Ok(judged(
        different.is_empty() && theirs.bytes() > 0,
        if different.is_empty() {
            format!(
                "{} bytes in {} sections, {} relocations",
                theirs.bytes(),
                theirs.sections(),
                theirs.relocations()
            )
        } else {
            format!("differs in {}", different.join(", "))
        },
    ))
}

pub fn core_contract(subject: &Subject) -> Result<Finding> {
    let object = object(subject)?;
    let glue = subject.project.root.join("musl-glue");
    let exports = core::names(&glue.join("exports.txt"))?;
    let imports = core::names(&glue.join("imports.txt"))?;
    let needs = core::check(&object, &exports, &imports)?;
    let size = object.len();
    Ok(Finding::Passed(format!(
        "defines the {} of exports.txt, needs {} ({size} bytes)",
        exports.len(),
        if needs.is_empty() {
            "nothing".to_owned()
        } else {
            needs.join(" ")
        },
    )))
}

/// The hooks must not be musl's weak dummies.
pub fn hooks_are_ours(subject: &Subject) -> Result<Finding> {
    let libc = libc_so(&subject.built.byssal)?;
    let dummies = dummies(&libc);
    let mut evidence = Vec::new();
    let mut good = true;
    for hook in project::read_text(&subject.project.root.join("musl-glue/exports.txt"))?
        .lines()
        .filter(|l| l.starts_with("__libc_") || l.starts_with("__malloc_"))
    {
        let address = libc.address(hook);
        let ours = address.is_some_and(|a| !dummies.contains(&a));
        good &= ours;
        let text = address.map_or("absent".into(), |a| format!("{a:#x}"));
        evidence.push(format!(
            "{hook} {text}{}",
            if ours { "" } else { " (a dummy of musl's)" }
        ));
    }
    Ok(judged(good && !dummies.is_empty(), evidence.join(", ")))
}
