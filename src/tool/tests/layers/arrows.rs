//! Who uses whom, and what of it is against the layers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Write;

use crate::listing::Listing;
use crate::source::{Function, Module, Owner, Place, Sources, ROOT};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A path in the text.
    Use,
    /// A function that is called, or whose address is taken.
    Call,
}

/// One use of a module by another, both as paths from the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Arrow {
    pub from: String,
    pub to: String,
    pub kind: Kind,
    /// Both ends for people.
    pub text: String,
}

/// What one crate, built in one way or in several, says of its layers.
#[derive(Default)]
pub struct Arrows {
    files: BTreeMap<String, String>,
    all: BTreeSet<Arrow>,
    /// What kept the test from knowing all arrows. There must be nothing.
    pub unclear: BTreeSet<String>,
}

/// What is wrong, for people and for numbers.
pub struct Verdict {
    pub upward_uses: Vec<Arrow>,
    pub upward_calls: Vec<Arrow>,
    pub cycles: Vec<Vec<String>>,
    pub homeless: Vec<String>,
    pub unclear: Vec<String>,
    pub report: String,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.upward_uses.is_empty()
            && self.upward_calls.is_empty()
            && self.cycles.is_empty()
            && self.homeless.is_empty()
            && self.unclear.is_empty()
    }
}

impl Arrows {
    /// Adds what the sources and the compiler's listing of one way to build the crate say.
    pub fn add(&mut self, sources: &Sources, listing: &Listing) {
        for module in &sources.modules {
            self.files.insert(module.path.clone(), module.file.clone());
        }
        for named in sources.named.iter().filter(|named| named.from != ROOT) {
            let (from, to) = (&sources.modules[named.from], &sources.modules[named.to]);
            let is_known =
                |a: &Arrow| a.kind == Kind::Use && a.from == from.path && a.to == to.path;
            if !self.all.iter().any(is_known) {
                let text = format!("{}:{}: {} → {}", from.file, named.line, named.text, to.file);
                self.insert(Kind::Use, from, to, text);
            }
        }
        for call in &listing.calls {
            self.add_call(sources, &call.from, &call.to);
        }
        for (from, to) in drops(sources) {
            self.add_call(sources, &from, &to);
        }
        self.unclear.extend(listing.unclear.iter().cloned());
        for function in sources.functions.values().flatten() {
            if !function.constant && !listing.bodies.contains(function) {
                let file = &sources.modules[function.place.module].file;
                let text = format!("{file}: {} is not in the listing", title(function));
                self.unclear.insert(text);
            }
        }
    }

    fn add_call(&mut self, sources: &Sources, from: &Function, to: &Function) {
        let (here, there) = (from.place.module, to.place.module);
        // A constant of a module is named by a path, one of a type may be `Self::NAME`.
        let is_named = to.constant && to.owner == Owner::Module;
        if here != there && here != ROOT && !is_named {
            let (here, there) = (&sources.modules[here], &sources.modules[there]);
            let (from, to) = (title(from), title(to));
            let text = format!("{}: {from} → {}: {to}", here.file, there.file);
            self.insert(Kind::Call, here, there, text);
        }
    }

    fn insert(&mut self, kind: Kind, from: &Module, to: &Module, text: String) {
        let (from, to) = (from.path.clone(), to.path.clone());
        self.all.insert(Arrow {
            from,
            to,
            kind,
            text,
        });
    }

    /// Judges all arrows by the numbers of the layers.
    pub fn judge(&self, layers: &HashMap<String, usize>) -> Verdict {
        let level = |path: &str| layers.get(path.split("::").next().unwrap_or("")).copied();
        let (mut upward_uses, mut upward_calls) = (vec![], vec![]);
        for arrow in &self.all {
            let upward = match (level(&arrow.from), level(&arrow.to)) {
                (Some(from), Some(to)) => to > from,
                // The root is above all layers.
                _ => arrow.to.is_empty(),
            };
            match arrow.kind {
                Kind::Use if upward => upward_uses.push(arrow.clone()),
                Kind::Call if upward => upward_calls.push(arrow.clone()),
                _ => {}
            }
        }
        let mut homeless: Vec<String> = self.files.keys().cloned().collect();
        homeless.retain(|path| !path.is_empty() && level(path).is_none());
        let mut verdict = Verdict {
            upward_uses,
            upward_calls,
            cycles: self.cycles(),
            homeless,
            unclear: self.unclear.iter().cloned().collect(),
            report: String::new(),
        };
        self.tell(&mut verdict).unwrap();
        verdict
    }

    /// Sets of modules that reach each other, the root apart.
    fn cycles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&String, BTreeSet<&String>> = self
            .files
            .keys()
            .map(|path| (path, self.distances(path).into_keys().collect()))
            .collect();
        let mut cycles: BTreeSet<Vec<String>> = BTreeSet::new();
        for (path, others) in &reached {
            let set = others.iter().filter(|other| reached[*other].contains(path));
            let set: Vec<String> = set.map(|other| (*other).clone()).collect();
            if set.len() > 1 {
                cycles.insert(set);
            }
        }
        cycles.into_iter().collect()
    }

    /// The modules that one reaches, each with the module before it on a shortest way.
    fn distances(&self, start: &String) -> BTreeMap<&String, &String> {
        let mut before: BTreeMap<&String, &String> = BTreeMap::new();
        let mut next: VecDeque<&String> = [start].into();
        while let Some(at) = next.pop_front() {
            for arrow in self.all.iter().filter(|arrow| arrow.from == *at) {
                if !arrow.to.is_empty() && !before.contains_key(&arrow.to) {
                    before.insert(&arrow.to, &arrow.from);
                    next.push_back(&arrow.to);
                }
            }
        }
        before
    }

    /// A shortest way from a module back to itself, as its arrows.
    fn way_round(&self, start: &String) -> Vec<&Arrow> {
        let before = self.distances(start);
        let (mut way, mut at) = (vec![], start);
        while let Some(&from) = before.get(at) {
            way.extend(self.all.iter().find(|a| a.from == *from && a.to == *at));
            at = from;
            if at == start {
                break;
            }
        }
        way.reverse();
        way
    }

    fn tell(&self, verdict: &mut Verdict) -> std::fmt::Result {
        let mut out = String::new();
        let parts = [
            (&verdict.upward_uses, "upward use", USE_REMEDY),
            (&verdict.upward_calls, "upward call", CALL_REMEDY),
        ];
        for (arrows, what, remedy) in parts {
            for arrow in arrows {
                writeln!(out, "{what}: {}", arrow.text)?;
            }
            if !arrows.is_empty() {
                writeln!(out, "  remedy: {remedy}")?;
            }
        }
        for cycle in &verdict.cycles {
            writeln!(out, "cycle of {} modules: {}", cycle.len(), cycle.join(" "))?;
            let mut told = BTreeSet::new();
            for way in cycle.iter().map(|path| self.way_round(path)) {
                let arrows: BTreeSet<&str> = way.iter().map(|a| a.text.as_str()).collect();
                if told.insert(arrows) {
                    writeln!(out, "  one way round:")?;
                    for arrow in way {
                        writeln!(out, "    {}", arrow.text)?;
                    }
                }
            }
            writeln!(out, "  remedy: {CYCLE_REMEDY}")?;
        }
        for path in &verdict.homeless {
            writeln!(out, "in no layer: {path}: name it in the list of lib.rs")?;
        }
        for text in &verdict.unclear {
            writeln!(out, "not proved: {text}")?;
        }
        let pairs = |arrows: &mut dyn Iterator<Item = &Arrow>| -> usize {
            arrows
                .map(|a| (&a.from, &a.to))
                .collect::<BTreeSet<_>>()
                .len()
        };
        writeln!(
            out,
            "{} modules, {} arrows between them; {} upward uses, {} upward calls ({} pairs of \
             modules); {} cycles ({} modules in them); {} in no layer; {} not proved",
            self.files.len() - 1,
            pairs(&mut self.all.iter()),
            verdict.upward_uses.len(),
            verdict.upward_calls.len(),
            pairs(&mut verdict.upward_calls.iter()),
            verdict.cycles.len(),
            verdict.cycles.iter().map(Vec::len).sum::<usize>(),
            verdict.homeless.len(),
            verdict.unclear.len(),
        )?;
        verdict.report = out;
        Ok(())
    }
}

const USE_REMEDY: &str =
    "move what is named down to a layer that both may use, or move its user up";
const CALL_REMEDY: &str =
    "return to the caller and let it call; or have it hand down a closure, or \
                           implement a trait that the lower layer declares";
const CYCLE_REMEDY: &str =
    "move what both sides use into a module below them; within a folder, name \
                            the module itself instead of what mod.rs re-exports";

/// Whoever drops a value runs its `Drop`: the module of a type calls that of the block.
fn drops(sources: &Sources) -> Vec<(Function, Function)> {
    let mut calls = vec![];
    for block in &sources.impls {
        let Owner::TraitFor(by, of) = &block.owner else {
            continue;
        };
        let types = sources.types.get(of).into_iter().flatten();
        for place in types.filter(|_| by == "Drop") {
            let function = |place: &Place, owner, name: &str| Function {
                place: place.clone(),
                owner,
                name: name.to_owned(),
                constant: false,
            };
            let from = function(place, Owner::Type(of.clone()), "(end of its life)");
            calls.push((from, function(&block.place, block.owner.clone(), "drop")));
        }
    }
    calls
}

fn title(function: &Function) -> String {
    let name = &function.name;
    match &function.owner {
        Owner::Module => name.clone(),
        Owner::Type(of) => format!("{of}::{name}"),
        Owner::TraitFor(by, of) => format!("<{of} as {by}>::{name}"),
        Owner::Trait(by) => format!("{by}::{name}"),
    }
}
