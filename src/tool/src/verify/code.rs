//! What an object file brings into a program: the bytes of its sections, and what the linker puts
//! into them. Two assemblers may name the same place in different ways.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionFlags, SectionKind};

use crate::core::STATE;
use crate::error::{At, Error, Kind, Result};

/// Where the linker puts what: the offset in its section, the section or the foreign name that is
/// meant, and the distance from there.
type Relocation = (u64, String, i64);

/// One section: its bytes, or how many zeros it is, and its relocations.
#[derive(PartialEq, Eq)]
struct Section {
    bytes: Vec<u8>,
    zeros: u64,
    relocations: Vec<Relocation>,
}

/// The sections of an object that are loaded, by name.
pub struct Code(BTreeMap<String, Section>);

impl Code {
    /// # Errors
    /// When the file cannot be read or is no object.
    pub fn read(path: &Path) -> Result<Self> {
        let data = fs::read(path).at("reading", path)?;
        Self::parse(&data).map_err(|e| Error::new(Kind::Step, format!("{}: {e}", path.display())))
    }

    fn parse(data: &[u8]) -> object::read::Result<Self> {
        let file = object::File::parse(data)?;
        let mut sections = BTreeMap::new();
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags } = section.flags() else {
                continue;
            };
            if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 || section.size() == 0 {
                continue;
            }
            let is_zero = section.kind() == SectionKind::UninitializedData;
            let name = known(section.name()?);
            let mut relocations = Vec::new();
            for (offset, relocation) in section.relocations() {
                let (place, at) = place(&file, relocation.target())?;
                // Within a section the distance stands in the bytes; where the linker may shorten
                // code it is told of that, too, and of the places by no name.
                if place != name && !place.is_empty() {
                    relocations.push((offset, place, at + relocation.addend()));
                }
            }
            relocations.sort();
            let whole = Section {
                bytes: section.data()?.to_vec(),
                zeros: if is_zero { section.size() } else { 0 },
                relocations,
            };
            sections.insert(name, whole);
        }
        Ok(Code(sections))
    }

    /// The names of sections that the other has not, or has otherwise.
    pub fn unlike(&self, other: &Code) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys());
        let mut unlike: Vec<String> = names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .cloned()
            .collect();
        unlike.sort();
        unlike.dedup();
        unlike
    }

    pub fn sections(&self) -> usize {
        self.0.len()
    }

    pub fn bytes(&self) -> usize {
        self.0.values().map(|s| s.bytes.len()).sum()
    }

    pub fn relocations(&self) -> usize {
        self.0.values().map(|s| s.relocations.len()).sum()
    }
}

/// The section that a symbol lies in and where, or the name of one that lies elsewhere.
fn place(file: &object::File, target: RelocationTarget) -> object::read::Result<(String, i64)> {
    let section = |index| Ok(known(file.section_by_index(index)?.name()?));
    match target {
        RelocationTarget::Section(index) => Ok((section(index)?, 0)),
        RelocationTarget::Symbol(index) => {
            let symbol = file.symbol_by_index(index)?;
            match symbol.section_index() {
                Some(index) => Ok((section(index)?, symbol.address() as i64)),
                None => Ok((symbol.name()?.to_owned(), 0)),
            }
        }
        _ => Ok((String::new(), 0)),
    }
}

/// A section by the name that it has in the text.
fn known(name: &str) -> String {
    name.replace(STATE[0], STATE[1])
}
