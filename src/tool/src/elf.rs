//! What `verify` must know of an ELF file: segments, dynamic entries, symbols, where code lies.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionTable, Sym, SymbolTable};
use object::Endianness;

use crate::error::{At, Error, Kind, Result};

/// A dynamic symbol as other programs see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exported {
    pub name: String,
    pub kind: u8,
    pub binding: u8,
    pub visibility: u8,
}

/// A defined symbol of the full symbol table.
#[derive(Clone, Debug)]
pub struct Defined {
    pub name: String,
    pub address: u64,
}

#[derive(Debug)]
struct Segment {
    kind: u32,
    address: u64,
    offset: u64,
    size: u64,
}

/// The parts of an ELF file that the gates look at.
#[derive(Debug)]
pub struct Elf {
    path: PathBuf,
    machine: u16,
    is_little: bool,
    /// Bytes of a pointer.
    pub pointer: u64,
    segments: Vec<Segment>,
    /// Tags and values of the dynamic section.
    pub dynamic: Vec<(u32, u64)>,
    pub exported: BTreeSet<Exported>,
    pub defined: Vec<Defined>,
}

impl Elf {
    /// # Errors
    /// When the file cannot be read or is no ELF file.
    pub fn read(path: &Path) -> Result<Self> {
        let data = fs::read(path).at("reading", path)?;
        let parsed = match data.get(4) {
            Some(&elf::ELFCLASS32) => parse::<elf::FileHeader32<Endianness>>(path, &data),
            _ => parse::<elf::FileHeader64<Endianness>>(path, &data),
        };
        parsed.map_err(|e| Error::new(Kind::System, format!("{}: {e}", path.display())))
    }

    /// Bytes by which .bss grows for a pointer more: GNU's assembler for mips ends each section of
    /// an object at a multiple of 16.
    pub fn pointer_in_bss(&self) -> u64 {
        match self.machine {
            elf::EM_MIPS => 16,
            _ => self.pointer,
        }
    }

    pub fn segment_kinds(&self) -> Vec<u32> {
        self.segments.iter().map(|s| s.kind).collect()
    }

    /// Values of a dynamic tag.
    pub fn dynamic(&self, tag: u32) -> Vec<u64> {
        self.dynamic
            .iter()
            .filter(|(t, _)| *t == tag)
            .map(|(_, v)| *v)
            .collect()
    }

    /// The address of a function, from the full symbol table.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.defined
            .iter()
            .find(|d| d.name == name)
            .map(|d| d.address)
    }

    /// A copy of the file at `dest` in which the code at `name` is an illegal instruction.
    ///
    /// # Errors
    /// When there is no such symbol or the file cannot be written.
    pub fn with_trap_at(&self, name: &str, dest: &Path) -> Result<()> {
        let trap = trap(self.machine, self.is_little);
        let place = self.address(name).and_then(|a| {
            let holds =
                |s: &&Segment| s.kind == elf::PT_LOAD && a >= s.address && a - s.address < s.size;
            self.segments
                .iter()
                .find(holds)
                .map(|s| (a - s.address + s.offset) as usize)
        });
        let mut data = fs::read(&self.path).at("reading", &self.path)?;
        let code = place
            .and_then(|p| data.get_mut(p..p + trap.len()))
            .ok_or_else(|| {
                Error::new(
                    Kind::Gate,
                    format!("{} has no code named {name}", self.path.display()),
                )
            })?;
        code.copy_from_slice(trap);
        fs::copy(&self.path, dest).at("copying to", dest)?;
        fs::write(dest, data).at("writing", dest)
    }
}

/// An illegal instruction of a machine: on most of those that musl knows all bits zero are one.
fn trap(machine: u16, is_little: bool) -> &'static [u8] {
    match machine {
        elf::EM_X86_64 | elf::EM_386 => &[0x0f, 0x0b],
        elf::EM_ARM => &[0xf0, 0, 0xf0, 0xe7],
        // A reserved function of the operation code 0.
        elf::EM_MIPS if is_little => &[0x39, 0, 0, 0],
        elf::EM_MIPS => &[0, 0, 0, 0x39],
        // The first two instructions are for callers from other modules only.
        elf::EM_PPC64 => &[0; 12],
        _ => &[0; 4],
    }
}

fn parse<H: FileHeader<Endian = Endianness>>(
    path: &Path,
    data: &[u8],
) -> object::read::Result<Elf> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let mut segments = Vec::new();
    let mut dynamic = Vec::new();
    for segment in header.program_headers(endian, data)? {
        segments.push(Segment {
            kind: segment.p_type(endian),
            address: segment.p_vaddr(endian).into(),
            offset: segment.p_offset(endian).into(),
            size: segment.p_filesz(endian).into(),
        });
        for entry in segment.dynamic(endian, data)?.unwrap_or_default() {
            let value = entry.d_val(endian).into();
            dynamic.extend(entry.tag32(endian).map(|tag| (tag, value)));
        }
    }
    let sections = header.sections(endian, data)?;
    let exported = exported::<H>(endian, &sections.symbols(endian, data, elf::SHT_DYNSYM)?);
    let defined = defined::<H>(endian, &sections, data)?;
    Ok(Elf {
        path: path.to_path_buf(),
        machine: header.e_machine(endian),
        is_little: header.is_little_endian(),
        pointer: if header.is_class_64() { 8 } else { 4 },
        segments,
        dynamic,
        exported,
        defined,
    })
}

fn exported<H: FileHeader>(endian: H::Endian, table: &SymbolTable<H>) -> BTreeSet<Exported> {
    let seen = table.iter().filter(|s| !s.is_undefined(endian));
    let named = seen.filter_map(|s| {
        let name = s.name(endian, table.strings()).ok()?;
        Some(Exported {
            name: String::from_utf8_lossy(name).into_owned(),
            kind: s.st_type(),
            binding: s.st_bind(),
            visibility: s.st_visibility(),
        })
    });
    named.filter(|e| !e.name.is_empty()).collect()
}

fn defined<H: FileHeader>(
    endian: H::Endian,
    sections: &SectionTable<H>,
    data: &[u8],
) -> object::read::Result<Vec<Defined>> {
    let table = sections.symbols(endian, data, elf::SHT_SYMTAB)?;
    let mut found = Vec::new();
    for symbol in table.iter().filter(|s| !s.is_undefined(endian)) {
        let name = String::from_utf8_lossy(symbol.name(endian, table.strings())?).into_owned();
        found.push(Defined {
            name,
            address: symbol.st_value(endian).into(),
        });
    }
    Ok(found)
}
