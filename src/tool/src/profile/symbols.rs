//! Names of code: which function an address of a file is in, from its debug information and its
//! table of symbols.

use std::borrow::Cow;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::gimli::DwLang;
use addr2line::{demangle_auto, Loader};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

/// A function, and where in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub function: String,
    pub file: Option<String>,
    pub line: u32,
}

/// A file that code comes from.
#[derive(Default)]
pub struct Module {
    pub path: PathBuf,
    pub build_id: String,
    /// Places in the file, and the addresses that they have before the file is moved.
    segments: Vec<(Range<u64>, u64)>,
    symbols: Vec<Symbol>,
    debug: Option<Loader>,
}

struct Symbol {
    range: Range<u64>,
    name: String,
}

impl Module {
    /// Reads what can be read; of another file no function is known.
    pub fn read(path: &Path) -> Self {
        let unknown = || Module {
            path: path.to_path_buf(),
            ..Module::default()
        };
        let Ok(data) = fs::read(path) else {
            return unknown();
        };
        let Ok(file) = object::File::parse(&*data) else {
            return unknown();
        };
        let id = file.build_id().ok().flatten().unwrap_or_default();
        let apart = debug_file(id);
        let segments = file.segments().map(|s| {
            let (at, len) = s.file_range();
            (at..at + len, s.address())
        });
        let symbols = match apart.as_ref().and_then(|path| fs::read(path).ok()) {
            Some(data) => {
                object::File::parse(&*data).map_or_else(|_| symbols(&file), |f| symbols(&f))
            }
            None => symbols(&file),
        };
        Module {
            path: path.to_path_buf(),
            build_id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            segments: segments.collect(),
            symbols,
            debug: Loader::new(apart.as_deref().unwrap_or(path)).ok(),
        }
    }

    /// The file's name without directories.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The address that a place in the file has before the file is moved.
    pub fn address(&self, place: u64) -> u64 {
        let holds = |(range, _): &&(Range<u64>, u64)| range.contains(&place);
        let segment = self.segments.iter().find(holds);
        segment.map_or(place, |(range, address)| place - range.start + address)
    }

    /// The function at an address, and before it those that the compiler put into its place there,
    /// innermost first: one at least.
    pub fn frames(&self, address: u64) -> Vec<Frame> {
        let mut frames = self.inlined(address);
        let symbol = || self.symbol(address);
        match frames.last_mut() {
            Some(last) if last.function.is_empty() => {
                last.function = symbol().unwrap_or_else(|| self.unnamed(address));
            }
            Some(_) => {}
            None => frames.push(Frame {
                function: symbol().unwrap_or_else(|| self.unnamed(address)),
                file: None,
                line: 0,
            }),
        }
        frames
    }

    fn unnamed(&self, address: u64) -> String {
        format!("{}+{address:#x}", self.name())
    }

    /// What debug information tells; a function without a name there has none here.
    fn inlined(&self, address: u64) -> Vec<Frame> {
        let mut found = Vec::new();
        let Some(Ok(mut frames)) = self.debug.as_ref().map(|d| d.find_frames(address)) else {
            return found;
        };
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|function| {
                let raw = function.raw_name().ok()?;
                Some(demangled(&raw, function.language))
            });
            let place = frame.location;
            found.push(Frame {
                function: name.unwrap_or_default(),
                file: place.as_ref().and_then(|p| p.file).map(str::to_owned),
                line: place.and_then(|p| p.line).unwrap_or(0),
            });
        }
        found
    }

    fn symbol(&self, address: u64) -> Option<String> {
        let next = self.symbols.partition_point(|s| s.range.start <= address);
        let symbol = &self.symbols[..next].last()?;
        let name = || demangled(&symbol.name, None);
        symbol.range.contains(&address).then(name)
    }
}

/// A name as it stands in the source. Only what begins as a mangled one is taken for that: the
/// demanglers also read what is a type alone, and take C's `f` for `float`.
fn demangled(name: &str, language: Option<DwLang>) -> String {
    let is_mangled = ["_Z", "__Z", "_R"].iter().any(|by| name.starts_with(by));
    if !is_mangled {
        return name.to_owned();
    }
    demangle_auto(Cow::from(name), language).into_owned()
}

/// The functions of the table of symbols, or else of the dynamic one, by address. One without a
/// size reaches to the next.
fn symbols(file: &object::File<'_>) -> Vec<Symbol> {
    let of = |table: &mut dyn Iterator<Item = (u64, u64, SymbolKind, String)>| {
        table
            .filter(|s| s.2 == SymbolKind::Text && s.0 != 0)
            .collect::<Vec<_>>()
    };
    let parts = |s: object::Symbol<'_, '_>| {
        (
            s.address(),
            s.size(),
            s.kind(),
            s.name().unwrap_or("").to_owned(),
        )
    };
    let mut all = of(&mut file.symbols().filter(|s| s.is_definition()).map(parts));
    if all.is_empty() {
        all = of(&mut file
            .dynamic_symbols()
            .filter(|s| s.is_definition())
            .map(parts));
    }
    // Of several names of one function the longest code, then the first by the alphabet.
    all.sort_by(|a, b| (a.0, b.1, &a.3).cmp(&(b.0, a.1, &b.3)));
    all.dedup_by_key(|s| s.0);
    let next = all
        .iter()
        .skip(1)
        .map(|s| s.0)
        .chain([u64::MAX])
        .collect::<Vec<_>>();
    let range = |(address, size, ..): &(u64, u64, SymbolKind, String), next| match size {
        0 => *address..next,
        _ => *address..address + size,
    };
    let ranges: Vec<_> = all
        .iter()
        .zip(next)
        .map(|(s, next)| range(s, next))
        .collect();
    let named = ranges.into_iter().zip(all);
    named
        .map(|(range, s)| Symbol { range, name: s.3 })
        .collect()
}

/// Where distributions put what they took out of a file.
fn debug_file(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("/usr/lib/debug/.build-id/{first:02x}/{rest}.debug");
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use addr2line::gimli::DW_LANG_C_plus_plus_14;

    #[test]
    fn only_mangled_names_are_demangled() {
        for name in ["f", "i", "St", "Pi", "main", "R", "RNvC1a1b", "ZN1a1bE", ""] {
            assert_eq!(demangled(name, None), name);
            assert_eq!(demangled(name, Some(DW_LANG_C_plus_plus_14)), name);
        }
        assert_eq!(demangled("_Z1fv", None), "f()");
        assert_eq!(demangled("_Z1fv", Some(DW_LANG_C_plus_plus_14)), "f()");
        assert_eq!(demangled("_ZN1a1b17h0123456789abcdefE", None), "a::b");
        assert_eq!(demangled("_RNvC1a1b", None), "a::b");
    }
}
