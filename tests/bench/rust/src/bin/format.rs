//! A formatter of Rust: all sources of a directory are parsed (syn), kept, changed, and printed
//! anew (prettyplease), again and again.
//!
//! ```text
//! format DIRECTORY ROUNDS
//! ```

use std::path::{Path, PathBuf};
use std::{env, fs};

use byssal_bench_rust::checksum;
use syn::visit_mut::{self, VisitMut};

/// The sources below a directory, in the order of their names.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Takes documentation and attributes away.
struct Bare;

impl VisitMut for Bare {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<syn::Attribute>) {
        attributes.retain(|attribute| !attribute.path().is_ident("doc"));
        attributes
            .iter_mut()
            .for_each(|a| visit_mut::visit_attribute_mut(self, a));
    }
}

fn main() {
    let mut words = env::args().skip(1);
    let directory = words.next().expect("a directory");
    let rounds: usize = words
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number of rounds");
    let mut paths = Vec::new();
    sources(Path::new(&directory), &mut paths);
    let texts: Vec<String> = paths
        .iter()
        .map(|p| fs::read_to_string(p).expect("text"))
        .collect();
    let mut sum = 0xcbf2_9ce4_8422_2325;
    for _ in 0..rounds {
        let parse = |text: &String| syn::parse_file(text).expect("Rust");
        let mut files: Vec<syn::File> = texts.iter().map(parse).collect();
        for file in &mut files {
            sum = checksum(sum, prettyplease::unparse(file).as_bytes());
            Bare.visit_file_mut(file);
            sum = checksum(sum, prettyplease::unparse(file).as_bytes());
        }
    }
    println!("{} files, checksum {sum:016x}", texts.len());
}
