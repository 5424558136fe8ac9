//! Reads what libbyssal_profile.so wrote; src/profile/report.rs says what stands there.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{At, Error, Kind, Result};

/// Estimates of a number of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    pub objects: f64,
    pub bytes: f64,
}

impl std::ops::AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// What one call stack allocated.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    pub allocated: Sum,
    pub live: Sum,
    /// Innermost first.
    pub addresses: Vec<u64>,
}

/// A file mapped executable, or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    /// Empty for memory without a file; a name in brackets is the kernel's.
    pub path: PathBuf,
}

/// The profile of one process.
#[derive(Clone, Debug)]
pub struct Raw {
    pub process: u32,
    /// Whether the process ended by itself: else it was killed, or became another program, and the
    /// file is of a moment before.
    pub is_final: bool,
    pub program: PathBuf,
    pub nanoseconds: u64,
    /// Bytes between samples.
    pub mean: u64,
    pub samples: u64,
    /// Samples whose stacks, and blocks whose ends, found no room.
    pub without_stack: u64,
    pub forgotten: u64,
    pub stacks: Vec<Stack>,
    pub mappings: Vec<Mapping>,
}

impl Raw {
    /// # Errors
    /// When the file cannot be read, or is not whole.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).at("reading", path)?;
        let text = String::from_utf8_lossy(&text);
        parse(&text).ok_or_else(|| {
            let what = format!("{} is no whole heap profile", path.display());
            Error::new(Kind::System, what).remedy("run the program again")
        })
    }
}

fn parse(text: &str) -> Option<Raw> {
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    field("byssal heap profile").filter(|&version| version == "1")?;
    let is_final = field("state")? == "final";
    let process = number(field("process")?.split(' ').next())?;
    let nanoseconds = number(Some(field("elapsed")?))?;
    let program = PathBuf::from(field("program")?);
    let mean = number(Some(field("mean")?))?;
    let mut words = field("samples")?.split(' ').step_by(2);
    let mut samples = || number(words.next());
    let (samples, without_stack, forgotten) = (samples()?, samples()?, samples()?);
    let stacks = number(Some(field("stacks")?))?;
    let stacks: Option<Vec<Stack>> = (0..stacks).map(|_| stack(lines.next()?)).collect();
    lines.next().filter(|&line| line == "maps")?;
    let rest: Vec<&str> = lines.collect();
    let (&"end", maps) = rest.split_last()? else {
        return None;
    };
    Some(Raw {
        process,
        is_final,
        program,
        nanoseconds,
        mean,
        samples,
        without_stack,
        forgotten,
        stacks: stacks?,
        mappings: maps
            .iter()
            .map(|line| mapping(line))
            .collect::<Option<_>>()?,
    })
}

fn number<N: FromStr>(word: Option<&str>) -> Option<N> {
    word?.parse().ok()
}

fn stack(line: &str) -> Option<Stack> {
    let mut words = line.split(' ');
    let mut sum = || {
        let sum = Sum {
            objects: number(words.next())?,
            bytes: number(words.next())?,
        };
        Some(sum)
    };
    let (allocated, live) = (sum()?, sum()?);
    Some(Stack {
        allocated,
        live,
        addresses: words.skip(2).map(hexadecimal).collect::<Option<_>>()?,
    })
}

fn hexadecimal(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

/// A line of /proc/PID/maps: start-end, rights, offset, device, inode, path.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let path = words.nth(2).unwrap_or("").trim_start();
    Some(Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        offset: hexadecimal(offset)?,
        path: PathBuf::from(path.replace("\\012", "\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "byssal heap profile 1\nstate running\nprocess 12 1\nelapsed 5\n\
        program /bin/a b\nmean 100\nsamples 3 without-stack 1 forgotten 2\nstacks 2\n\
        2.0 20.5 1.0 10.5 2 1 ff 10ab\n1.0 9.0 0.0 0.0 1 0\nmaps\n\
        1000-2000 r-xp 00000400 00:1f 77                         /bin/a b\n\
        7000-8000 rw-p 00000000 00:00 0 \nend\n";

    #[test]
    fn reads_what_stands_there() {
        let raw = parse(TEXT).unwrap();
        assert_eq!((raw.process, raw.is_final, raw.mean), (12, false, 100));
        assert_eq!((raw.samples, raw.without_stack, raw.forgotten), (3, 1, 2));
        assert_eq!(raw.program, Path::new("/bin/a b"));
        assert_eq!(raw.stacks[0].live.bytes, 10.5);
        assert_eq!(raw.stacks[0].addresses, [0xff, 0x10ab]);
        assert!(raw.stacks[1].addresses.is_empty());
        assert_eq!(raw.mappings[0].path, Path::new("/bin/a b"));
        assert_eq!(
            (raw.mappings[0].start, raw.mappings[0].offset),
            (0x1000, 0x400)
        );
        assert_eq!(raw.mappings[1].path, Path::new(""));
    }

    #[test]
    fn nothing_less_will_do() {
        for cut in 0..TEXT.len() - 1 {
            assert!(parse(&TEXT[..cut]).is_none(), "{}", &TEXT[..cut]);
        }
        assert!(parse(&TEXT.replace("profile 1", "profile 2")).is_none());
    }
}
