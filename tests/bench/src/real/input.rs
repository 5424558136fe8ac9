//! Generated inputs of real programs: the same bytes on every machine.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use byssal_tool::error::Result;
use byssal_tool::project;

/// A linear congruential generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }

    /// A word of small letters.
    pub fn word(&mut self, least: u32, most: u32) -> String {
        let length = least + self.below(most - least + 1);
        (0..length)
            .map(|_| char::from(b'a' + self.below(26) as u8))
            .collect()
    }
}

fn written(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    project::write_file(&path, text.as_bytes())?;
    Ok(path)
}

/// A C file of so many functions with structures, loops and switches, without any header; its
/// function `unsigned entry(unsigned)` calls them all.
///
/// # Errors
/// When it cannot be written.
pub fn c_file(dir: &Path, functions: u32) -> Result<PathBuf> {
    let mut random = Random::new(11);
    let mut text = String::new();
    for f in 0..functions {
        let (a, b, field) = (random.below(1000), random.below(31) + 1, random.word(3, 12));
        let _ = write!(
            text,
            "struct s{f} {{ unsigned {field}, count; unsigned list[{b}]; struct s{f} *next; }};\n\
             static unsigned f{f}(unsigned x, unsigned depth)\n{{\n\
             \tstruct s{f} here = {{x + {a}u, {b}u}};\n\
             \tfor (unsigned i = 0; i < {b}u; i++) here.list[i] = x * i ^ here.{field} >> i % 7;\n\
             \tswitch (here.list[{last}] % 4) {{\n\
             \tcase 0: here.{field} += here.count * 3u; break;\n\
             \tcase 1: here.{field} ^= {a}u << 3; /* fall through */\n\
             \tcase 2: here.count = here.{field} / ({b}u + here.count); break;\n\
             \tdefault: here.{field} = \"{field}\"[x % {length}u];\n\t}}\n",
            last = b - 1,
            length = field.len(),
        );
        if f > 0 {
            let (one, two) = (random.below(f), random.below(f));
            let _ = writeln!(
                text,
                "\tif (depth && x & 1)\n\
                 \t\there.{field} += f{one}(here.count, depth - 1) ^ f{two}(x, 0);"
            );
        }
        let _ = write!(text, "\treturn here.{field} + here.list[x % {b}u];\n}}\n\n");
    }
    text += "unsigned entry(unsigned x)\n{\n";
    for f in 0..functions {
        let _ = writeln!(text, "\tx = x * 31u + f{f}(x, 3);");
    }
    text += "\treturn x;\n}\n";
    written(dir, "generated.c", &text)
}

/// Lines of words and numbers.
///
/// # Errors
/// When it cannot be written.
pub fn lines(dir: &Path, count: u32) -> Result<PathBuf> {
    let mut random = Random::new(5);
    let mut text = String::new();
    for _ in 0..count {
        let number = random.below(1_000_000);
        let _ = writeln!(
            text,
            "{} {number} {}",
            random.word(2, 12),
            random.word(0, 60)
        );
    }
    written(dir, "lines", &text)
}

/// A JSON array of records with an identity, a kind and a text.
///
/// # Errors
/// When it cannot be written.
pub fn records(dir: &Path, count: u32) -> Result<PathBuf> {
    let mut random = Random::new(6);
    let mut text = String::from("[");
    for id in 0..count {
        let words: Vec<String> = (0..2 + random.below(12))
            .map(|_| random.word(1, 9))
            .collect();
        let (comma, kind) = (if id > 0 { ",\n" } else { "" }, random.below(60));
        let _ = write!(
            text,
            "{comma}{{\"id\":{id},\"kind\":\"k{kind}\",\"text\":\"{}\"}}",
            words.join(" ")
        );
    }
    text += "]\n";
    written(dir, "records.json", &text)
}

/// A stream for `git fast-import`: so many commits that each change a few of 60 files.
///
/// # Errors
/// When it cannot be written.
pub fn commits(dir: &Path, count: u32) -> Result<PathBuf> {
    let mut random = Random::new(7);
    let mut files: Vec<Vec<String>> = (0..60)
        .map(|_| (0..120).map(|_| random.word(5, 60)).collect())
        .collect();
    let mut text = String::new();
    for n in 0..count {
        let message = format!("commit {n}: {}\n", random.word(10, 60));
        let at = 1_600_000_000 + n;
        let _ = write!(
            text,
            "commit refs/heads/main\ncommitter Nobody <nobody@example.org> {at} +0000\n\
             data {}\n{message}",
            message.len()
        );
        for _ in 0..3 {
            let which = random.below(60) as usize;
            let file = &mut files[which];
            for _ in 0..4 {
                let line = random.below(file.len() as u32) as usize;
                file[line] = random.word(5, 60);
            }
            let body = file.join("\n") + "\n";
            let _ = write!(
                text,
                "M 100644 inline dir{}/file{which}.txt\ndata {}\n{body}",
                which % 7,
                body.len()
            );
        }
        text += "\n";
    }
    written(dir, "commits", &text)
}
