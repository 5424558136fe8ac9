//! What calls what, as the compiler has resolved it: `rustc --emit=mir` lists each body of a crate
//! before generic arguments are filled in and before anything is inlined. A method call stands
//! there with the module of its `impl` block, a call through a trait with the trait.

use std::collections::BTreeSet;

use crate::source::{Function, Owner, Place, Sources};

/// A part of a path in the listing. Generic arguments are left out.
#[derive(Clone, PartialEq, Debug)]
enum Part {
    Name(String),
    /// `<impl at free.rs:20:1: 20:40>`: file and line of the block.
    Block(String, usize),
    /// `<impl Type>`, behind the module in which the block stands.
    Impl(String),
    /// `<Type as Trait>`: the names of the type's path, then the trait.
    Cast(Vec<String>, String),
    /// `{closure#0}` and its like: it belongs to the function before it.
    Inner,
}

/// A function that another one calls, or whose address it takes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub from: Function,
    pub to: Function,
}

#[derive(Default)]
pub struct Listing {
    pub calls: BTreeSet<Call>,
    /// Functions whose bodies were listed.
    pub bodies: BTreeSet<Function>,
    /// What could not be read or was not unique, for people.
    pub unclear: BTreeSet<String>,
}

impl Listing {
    /// Reads the compiler's listing `text` of the crate `sources`.
    pub fn read(&mut self, text: &str, sources: &Sources) {
        let mut caller = None;
        for line in text.lines() {
            if line.contains("(inlined") {
                self.unclear
                    .insert(format!("the compiler has inlined: {line}"));
            }
            if line.starts_with(|c: char| !c.is_whitespace() && c != '}' && c != '/') {
                caller = self.head(line, sources);
            }
            let line = line.trim_start();
            let skip = ["debug ", "scope ", "let ", "//"];
            if let (Some(from), false) = (&caller, skip.iter().any(|s| line.starts_with(s))) {
                self.body(from, line, sources);
            }
        }
    }

    /// The function whose body follows a line that is not indented.
    fn head(&mut self, line: &str, sources: &Sources) -> Option<Function> {
        let words = ["fn ", "const ", "static mut ", "static "];
        let word = words.iter().find(|word| line.starts_with(**word));
        let text = &line[word.map_or(0, |word| word.len())..];
        let (parts, _) = path(text.as_bytes(), 0)?;
        let is_fn = word == Some(&"fn ");
        match sources.resolve(&parts) {
            Ok(Some(function)) => {
                self.bodies.insert(function.clone());
                Some(function)
            }
            // The constants in types of fields and of variants call nothing of ours by method.
            Ok(None) if is_fn && !sources.is_constructor(&parts) => {
                self.unclear
                    .insert(format!("no source of what is listed: {line}"));
                None
            }
            Ok(None) => None,
            Err(why) => {
                self.unclear.insert(why);
                None
            }
        }
    }

    /// A line of a body: each path in it that leads to a function of the crate.
    fn body(&mut self, from: &Function, line: &str, sources: &Sources) {
        let line = without_strings(line);
        let text = line.as_bytes();
        for start in 0..text.len() {
            let before = start.checked_sub(1).map_or(b' ', |i| text[i]);
            if is_word(before) || line[..start].ends_with("::") {
                continue;
            }
            let Some((parts, end)) = path(text, start) else {
                continue;
            };
            // `name: value` is a field.
            if parts.len() == 1 && text[end..].starts_with(b":") {
                continue;
            }
            match sources.resolve(&parts) {
                Ok(Some(to)) if to != *from => {
                    let from = from.clone();
                    self.calls.insert(Call { from, to });
                }
                Ok(_) => {}
                Err(why) => {
                    self.unclear.insert(why);
                }
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The line with each string's text replaced by nothing.
fn without_strings(line: &str) -> String {
    let (mut kept, mut inside, mut escaped) = (String::new(), false, false);
    for c in line.chars().filter(char::is_ascii) {
        let quote = c == '"' && !escaped;
        if quote || !inside {
            kept.push(c);
        }
        inside ^= quote;
        escaped = c == '\\' && !escaped && inside;
    }
    kept
}

/// The end of what opens at `start`: the place of the bracket that closes it.
fn closing(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, &byte) in text.iter().enumerate().skip(start) {
        match byte {
            b'<' | b'{' | b'(' | b'[' => depth += 1,
            b'>' if text[i - 1] == b'-' || text[i - 1] == b'=' => {}
            b'>' | b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// The path that begins at `start`, and where it ends.
fn path(text: &[u8], start: usize) -> Option<(Vec<Part>, usize)> {
    let (mut parts, mut at) = (vec![], start);
    loop {
        match text.get(at)? {
            b'<' => {
                let end = closing(text, at)?;
                let inside = std::str::from_utf8(&text[at + 1..end]).ok()?;
                parts.extend(bracket(inside, parts.is_empty()));
                at = end + 1;
            }
            b'{' if !parts.is_empty() => {
                at = closing(text, at)? + 1;
                parts.push(Part::Inner);
            }
            byte if is_word(*byte) && !byte.is_ascii_digit() => {
                let end = (at..text.len()).find(|&i| !is_word(text[i]));
                let end = end.unwrap_or(text.len());
                let name = std::str::from_utf8(&text[at..end]).ok()?;
                parts.push(Part::Name(name.to_owned()));
                at = end;
                // The number of a part of a constant: `promoted[0]`.
                if name == "promoted" && text[at..].starts_with(b"[") {
                    at = closing(text, at)? + 1;
                }
            }
            _ => break,
        }
        if !text[at..].starts_with(b"::") {
            break;
        }
        at += 2;
    }
    (!parts.is_empty()).then_some((parts, at))
}

/// What stands between `<` and `>`: nothing for generic arguments.
fn bracket(inside: &str, first: bool) -> Option<Part> {
    if let Some(place) = inside.strip_prefix("impl at ") {
        let mut fields = place.split(':');
        let file = fields.next()?.to_owned();
        return Some(Part::Block(file, fields.next()?.parse().ok()?));
    }
    if let Some(name) = inside.strip_prefix("impl ") {
        return Some(match split_at_depth(name, " for ") {
            Some((of, name)) => Part::Cast(names(name), base(of)),
            None => Part::Impl(base(name)),
        });
    }
    if !first {
        return None;
    }
    Some(match split_at_depth(inside, " as ") {
        Some((name, of)) => Part::Cast(names(name), base(of)),
        None => Part::Name(base(inside)),
    })
}

/// Splits at the first `word` outside of all brackets.
fn split_at_depth<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if text[at..].starts_with(word) {
            return Some((&text[..at], &text[at + word.len()..]));
        }
        at = match bytes[at] {
            b'<' | b'{' | b'(' | b'[' => closing(bytes, at)? + 1,
            _ => at + 1,
        };
    }
    None
}

/// The name of a type or trait without references, module and arguments.
fn base(text: &str) -> String {
    names(text).pop().unwrap_or_default()
}

/// The names in the path of a type or trait without references and arguments.
fn names(text: &str) -> Vec<String> {
    let mut text = text.trim();
    loop {
        let marks = ["&", "mut ", "*const ", "*mut "];
        let mark = marks.iter().find_map(|mark| text.strip_prefix(mark));
        let lifetime = text.strip_prefix('\'').and_then(|t| t.split_once(' '));
        match (mark, lifetime) {
            (Some(rest), _) | (None, Some((_, rest))) => text = rest.trim_start(),
            (None, None) => break,
        }
    }
    let end = text.find(|c: char| c != ':' && c != '_' && !c.is_ascii_alphanumeric());
    let path = text[..end.unwrap_or(text.len())].trim_end_matches("::");
    path.split("::").map(str::to_owned).collect()
}

impl Place {
    /// Whether the module's path ends with these names.
    fn is_in(&self, names: &[String]) -> bool {
        let path = format!("::{}", self.path);
        names.is_empty() || path.ends_with(&format!("::{}", names.join("::")))
    }
}

impl Sources {
    /// Whether a path in the listing ends with a variant or a type whose fields have no names.
    fn is_constructor(&self, parts: &[Part]) -> bool {
        matches!(parts.last(), Some(Part::Name(name)) if name.starts_with(char::is_uppercase))
    }

    /// The function of the crate that a path of the listing means; `None` for all others.
    fn resolve(&self, parts: &[Part]) -> Result<Option<Function>, String> {
        let end = parts.iter().position(|part| *part == Part::Inner);
        let mut parts = &parts[..end.unwrap_or(parts.len())];
        if let [before @ .., Part::Name(last)] = parts {
            if last == "promoted" {
                parts = before;
            }
        }
        let Some((Part::Name(name), before)) = parts.split_last() else {
            return Ok(None);
        };
        let names: Option<Vec<String>> = before
            .iter()
            .map(|part| match part {
                Part::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        match (before, names) {
            (_, Some(names)) => self.plain(&names, name),
            ([.., Part::Block(file, line)], _) => self.in_block(file, *line, name),
            ([modules @ .., Part::Impl(of)], _) => {
                let modules: Vec<String> = modules.iter().filter_map(only_name).collect();
                let owner = Owner::Type(of.clone());
                self.one(name, |f| f.owner == owner && f.place.is_in(&modules))
            }
            ([.., Part::Cast(of, by)], _) => self.through_trait(of, by, name),
            // A function within a method.
            _ => self.resolve(before),
        }
    }

    /// The only function of this name that fits.
    fn one(
        &self,
        name: &str,
        fits: impl Fn(&Function) -> bool,
    ) -> Result<Option<Function>, String> {
        let found = self.functions.get(name).into_iter().flatten();
        let mut found = found.filter(|f| fits(f));
        match (found.next(), found.next()) {
            (first, None) => Ok(first.cloned()),
            (Some(a), Some(b)) => Err(format!(
                "which one is {name}: that of {} or of {}? Rename one.",
                self.modules[a.place.module].file, self.modules[b.place.module].file
            )),
            (None, Some(_)) => Ok(None),
        }
    }

    /// A path of names alone: of a free function, or of a method whose `impl` block stands in the
    /// module of its type.
    fn plain(&self, names: &[String], name: &str) -> Result<Option<Function>, String> {
        let Some((last, modules)) = names.split_last() else {
            return self.one(name, |f| f.owner == Owner::Module);
        };
        let known = |declared: Option<&Vec<Place>>| {
            declared.is_some_and(|places| places.iter().any(|place| place.is_in(modules)))
        };
        if known(self.types.get(last)) {
            let owner = Owner::Type(last.clone());
            return self.one(name, |f| f.owner == owner && f.place.is_in(modules));
        }
        if known(self.traits.get(last)) {
            let owner = Owner::Trait(last.clone());
            return self.one(name, |f| f.owner == owner && f.place.is_in(modules));
        }
        let free = |f: &Function| f.owner == Owner::Module && f.place.is_in(names);
        match self.one(name, free)? {
            Some(function) => Ok(Some(function)),
            // A function within a function.
            None => self.plain(modules, last),
        }
    }

    /// A function by the `impl` block in which it is listed.
    fn in_block(&self, file: &str, line: usize, name: &str) -> Result<Option<Function>, String> {
        let here = |module: usize, lines: (usize, usize)| {
            self.modules[module].file == file && (lines.0..=lines.1).contains(&line)
        };
        if let Some(block) = self.impls.iter().find(|b| here(b.place.module, b.lines)) {
            return self.one(name, |f| f.place == block.place && f.owner == block.owner);
        }
        let Some(derived) = self.derived.iter().find(|d| here(d.place.module, d.lines)) else {
            return Err(format!(
                "{file}:{line}: the impl of {name} is made by a macro"
            ));
        };
        Ok(Some(Function {
            place: derived.place.clone(),
            owner: Owner::Type(derived.name.clone()),
            name: name.to_owned(),
            constant: false,
        }))
    }

    /// `<of as by>::name`. With a type parameter, or where the body is the trait's own, it belongs
    /// to the trait; else to the `impl` block of the type. A derived block stands with the type.
    fn through_trait(
        &self,
        of: &[String],
        by: &str,
        name: &str,
    ) -> Result<Option<Function>, String> {
        let Some((of, modules)) = of.split_last() else {
            return Ok(None);
        };
        // The listing writes the module of a type whose name is not unique.
        let owner = Owner::TraitFor(by.to_owned(), of.clone());
        let beside = |f: &Function| f.owner == owner && f.place.is_in(modules);
        if let Some(function) = self.one(name, beside)? {
            return Ok(Some(function));
        }
        if let Some(function) = self.one(name, |f| f.owner == owner)? {
            return Ok(Some(function));
        }
        let (declared, owner, modules) = match (self.traits.get(by), self.types.get(of)) {
            (Some(places), _) => (places, Owner::Trait(by.to_owned()), &[][..]),
            (None, Some(places)) => (places, Owner::Type(of.clone()), modules),
            (None, None) => return Ok(None),
        };
        let mut places = declared.iter().filter(|place| place.is_in(modules));
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(Some(Function {
                place: place.clone(),
                owner,
                name: name.to_owned(),
                constant: false,
            })),
            (None, _) => Ok(None),
            _ => Err(format!(
                "<{of} as {by}>::{name}: two declare it. Rename one."
            )),
        }
    }
}

fn only_name(part: &Part) -> Option<String> {
    match part {
        Part::Name(name) => Some(name.clone()),
        _ => None,
    }
}
