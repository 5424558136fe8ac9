//! The profiles of all processes as one: call stacks of named functions, and what each allocated.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::raw::{Mapping, Raw, Sum};
use super::symbols::{Frame, Module};

/// How the file of the library is called, whose own functions are no part of a stack.
const OWN: &str = "libbyssal_profile.so";

/// A place in code.
pub struct Location {
    /// The number of its module, if it is in a file.
    pub module: Option<usize>,
    /// In the module: before the file is moved.
    pub address: u64,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// What one call stack allocated in all processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub allocated: Sum,
    pub live: Sum,
}

#[derive(Default)]
pub struct Profile {
    pub modules: Vec<Rc<Module>>,
    pub locations: Vec<Location>,
    /// By the numbers of locations, innermost first.
    pub stacks: BTreeMap<Vec<usize>, Counts>,
    pub mean: u64,
    /// Of the process that lived longest.
    pub nanoseconds: u64,
    pub samples: u64,
    numbers: HashMap<(Option<usize>, u64), usize>,
}

/// Files that were read, for all profiles that have them.
pub type Files = HashMap<PathBuf, Rc<Module>>;

impl Profile {
    /// Some processes as one.
    pub fn of(all: &[Raw], files: &mut Files) -> Self {
        let mut profile = Profile::default();
        for raw in all {
            profile.add(raw, files);
        }
        profile
    }

    fn add(&mut self, raw: &Raw, files: &mut Files) {
        self.mean = raw.mean;
        self.nanoseconds = self.nanoseconds.max(raw.nanoseconds);
        self.samples += raw.samples;
        if self.modules.is_empty() {
            // pprof takes the first for the program.
            self.module(&raw.program, files);
        }
        let mut mappings = raw.mappings.clone();
        mappings.sort_by_key(|m| m.start);
        for stack in &raw.stacks {
            let places = stack.addresses.iter().map(|&a| (mapping(&mappings, a), a));
            let is_own =
                |(m, _): &(Option<&Mapping>, u64)| m.is_some_and(|m| m.path.ends_with(OWN));
            let theirs: Vec<_> = places.skip_while(is_own).collect();
            let numbers = theirs
                .into_iter()
                .map(|(m, a)| self.location(m, a, files))
                .collect();
            let counts = self.stacks.entry(numbers).or_default();
            counts.allocated += stack.allocated;
            counts.live += stack.live;
        }
    }

    /// The number of the location at an address.
    fn location(&mut self, mapping: Option<&Mapping>, address: u64, files: &mut Files) -> usize {
        let mapping = mapping.filter(|m| m.path.is_absolute());
        let module = mapping.map(|m| self.module(&m.path, files));
        let address = match (mapping, module) {
            (Some(m), Some(module)) => self.modules[module].address(address - m.start + m.offset),
            _ => address,
        };
        if let Some(&number) = self.numbers.get(&(module, address)) {
            return number;
        }
        let frames = match module {
            Some(module) => self.modules[module].frames(address),
            None => vec![Frame {
                function: format!("{address:#x}"),
                file: None,
                line: 0,
            }],
        };
        self.locations.push(Location {
            module,
            address,
            frames,
        });
        let number = self.locations.len() - 1;
        self.numbers.insert((module, address), number);
        number
    }

    fn module(&mut self, path: &Path, files: &mut Files) -> usize {
        if let Some(number) = self.modules.iter().position(|m| m.path == path) {
            return number;
        }
        let read = || Rc::new(Module::read(path));
        let module = files.entry(path.to_path_buf()).or_insert_with(read);
        self.modules.push(module.clone());
        self.modules.len() - 1
    }

    /// The functions of a stack, innermost first, each with those that were put into its place.
    pub fn frames<'a>(&'a self, stack: &'a [usize]) -> impl DoubleEndedIterator<Item = &'a Frame> {
        stack
            .iter()
            .flat_map(|&number| &self.locations[number].frames)
    }

    /// All counts together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.stacks.values() {
            total.allocated += counts.allocated;
            total.live += counts.live;
        }
        total
    }
}

/// The mapping that holds an address, of some by their start.
fn mapping(sorted: &[Mapping], address: u64) -> Option<&Mapping> {
    let next = sorted.partition_point(|m| m.start <= address);
    sorted[..next].last().filter(|m| address < m.end)
}
