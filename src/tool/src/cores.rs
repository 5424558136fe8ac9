//! What the series carries of the core: one file of assembly for each of musl's architectures, and
//! a header that says what they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::core::{Core, Preset};
use crate::digest::Inputs;
use crate::error::Result;
use crate::project;

/// Cores of one preset, for one machine or several.
#[derive(Clone, Debug)]
pub struct Cores {
    preset: Preset,
    pub cores: Vec<Core>,
}

impl Cores {
    /// No core: for a tree with musl's own malloc, or for edits that are tried without one.
    pub fn none() -> Self {
        Cores::new(Preset::Default, Vec::new())
    }

    /// Cores that were made with the same preset.
    pub fn new(preset: Preset, cores: Vec<Core>) -> Self {
        Cores { preset, cores }
    }

    /// `core.h`: for what machines there are cores, whether programs that never free get the core,
    /// and whether it makes choices.
    pub fn header(&self) -> String {
        let targets = || self.cores.iter().map(|core| core.target);
        let names: Vec<&str> = targets().map(|t| &*t.name).collect();
        let others: Vec<String> = targets().map(|t| format!("!({})", t.condition)).collect();
        let mut text = format!(
            "/* The cores of byssal {}, preset {}, for {}. */\n\
             #if {}\n\
             #error \"byssal has no core for this machine here: take its series for this machine\"\n\
             #endif\n",
            env!("CARGO_PKG_VERSION"),
            self.preset.name(),
            names.join(", "),
            if others.is_empty() {
                "1".to_owned()
            } else {
                others.join(" && ")
            }
        );
        if self.preset.serves_all() {
            text += "#define BYSSAL_SERVES_ALL 1\n";
        }
        if self.preset.chooses() {
            text += "#define BYSSAL_CHOOSES 1\n";
        }
        text
    }

    /// The files of assembly: musl's name of the architecture, and the text.
    pub fn files(&self) -> BTreeMap<&str, String> {
        let mut files = BTreeMap::new();
        for core in &self.cores {
            let file: &mut String = files.entry(&*core.target.arch).or_insert_with(|| {
                format!(
                    "/* SPDX-License-Identifier: MIT\n \
                     * The core of byssal {}, preset {}: what rustc makes of the sources of byssal. */\n\
                     #include \"byssal_offset.h\"\n",
                    env!("CARGO_PKG_VERSION"),
                    self.preset.name()
                )
            });
            *file += &format!(
                "\n/* {} */\n#if {}\n{}#endif\n",
                core.target.name, core.target.condition, core.text
            );
        }
        files
    }

    /// Tells these cores from others.
    pub fn identity(&self) -> String {
        let all = Inputs::new().text("header", &self.header());
        let add = |all: Inputs, (arch, text): (&str, String)| all.text(arch, &text);
        self.files().into_iter().fold(all, add).finish()
    }

    /// Writes the files into a tree of musl that is patched, those that are not there already.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn place(&self, tree: &Path) -> Result<()> {
        let dir = tree.join("src/malloc/byssal");
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            match fs::read_to_string(&path) {
                Ok(old) if old == text => Ok(()),
                _ => project::write_file(&path, text.as_bytes()),
            }
        };
        write("core.h", &self.header())?;
        self.files()
            .iter()
            .try_for_each(|(arch, text)| write(&format!("{arch}/malloc.S"), text))
    }
}
