//! What a run found, as it is written to `results.json` and read back by `compare` and `report`.

use std::collections::BTreeMap;
use std::path::Path;

use byssal_tool::error::{At, Result};
use byssal_tool::project;
use serde::{Deserialize, Serialize};

use crate::catalogue::Size;
use crate::statistics::{self, Summary};

/// KiB. The kernel counts a process's pages in batches, one a core: the peak of a very small
/// program may be told as nothing at all. Small processes have a table of their own, from exact
/// counts.
const SMALL_PEAK: f64 = 1024.0;

/// Changes when older files can no longer be read.
pub const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    pub machine: Machine,
    pub size: Size,
    pub rounds: usize,
    pub seconds: f64,
    pub allocators: Vec<Allocator>,
    pub rows: Vec<Row>,
    /// What was left out, and why: no tool for it, no time, a program that cannot be built.
    pub notes: Vec<String>,
    pub extra: Extra,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub compiler: String,
    pub commit: String,
    /// UTC.
    pub date: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Preload,
    Static,
    Linked,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Preload, Mode::Static, Mode::Linked];

    pub fn title(self) -> &'static str {
        match self {
            Mode::Preload => "LD_PRELOAD on the host's libc",
            Mode::Static => "static musl programs",
            Mode::Linked => "Rust programs, the allocator's crate in each",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Allocator {
    pub name: String,
    pub version: String,
    pub mode: Mode,
    pub hardened: bool,
    pub ours: bool,
    pub flags: String,
}

/// A program, or one number of threads of a scaling program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// The program that this is one point of, for scaling curves.
    pub curve: Option<String>,
    pub pattern: String,
    pub threads: u32,
    pub real: bool,
    /// By the allocator's name.
    pub cells: BTreeMap<String, Cell>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    pub samples: Vec<Sample>,
    /// Why it does not count: it crashed, ran out of time, or printed something wrong.
    pub failure: Option<String>,
    /// Of one run with the short arguments; `None` where they were not counted.
    pub instructions: Option<u64>,
}

/// One run. Times in seconds, memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub wall: f64,
    pub user: f64,
    pub system: f64,
    pub peak: f64,
    pub minor_faults: f64,
    pub major_faults: f64,
    /// Operations, of programs that count them.
    pub operations: Option<f64>,
}

impl Sample {
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// What is measured of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Cpu,
    Wall,
    Peak,
    Faults,
    /// Operations per second of wall time.
    Throughput,
}

impl Measure {
    pub fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Measure::Cpu => Some(sample.cpu()),
            Measure::Wall => Some(sample.wall),
            Measure::Peak => Some(sample.peak),
            Measure::Faults => Some(sample.minor_faults + sample.major_faults),
            Measure::Throughput => sample.operations.map(|n| n / sample.wall.max(1e-6)),
        }
    }
}

impl Cell {
    /// `None` if it failed or was never run.
    pub fn summary(&self, measure: Measure) -> Option<Summary> {
        if self.failure.is_some() {
            return None;
        }
        let values: Vec<f64> = self.samples.iter().filter_map(|s| measure.of(s)).collect();
        statistics::summary(&values)
    }
}

impl Row {
    pub fn median(&self, allocator: &str, measure: Measure) -> Option<f64> {
        Some(self.cells.get(allocator)?.summary(measure)?.median)
    }

    /// `allocator` as a multiple of `base`; `None` if one failed or took no time to be seen. Peaks
    /// below `SMALL_PEAK` count as that.
    pub fn ratio(&self, allocator: &str, base: &str, measure: Measure) -> Option<f64> {
        let least = match measure {
            Measure::Peak => SMALL_PEAK,
            _ => 0.0,
        };
        let value = |name| Some(self.median(name, measure)?.max(least));
        let (a, b) = (value(allocator)?, value(base)?);
        (a > 0.0 && b > 0.0).then(|| a / b)
    }
}

/// A geometric mean over the rows where both have a value, and how many those are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub ratio: f64,
    pub rows: usize,
}

impl Results {
    pub fn of_mode(&self, mode: Mode) -> Vec<&Allocator> {
        self.allocators.iter().filter(|a| a.mode == mode).collect()
    }

    /// byssal in its default preset.
    pub fn base(&self, mode: Mode) -> Option<&Allocator> {
        self.allocators.iter().find(|a| a.mode == mode && a.ours)
    }

    /// Programs that count for the means: curves are shown on their own.
    pub fn programs(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|r| r.curve.is_none())
    }

    /// Those of them that were to run with an allocator of a mode.
    pub fn programs_of(&self, mode: Mode) -> impl Iterator<Item = &Row> {
        let allocators = self.of_mode(mode);
        let ran = move |row: &&Row| allocators.iter().any(|a| row.cells.contains_key(&a.name));
        self.programs().filter(ran)
    }

    pub fn mean(&self, allocator: &str, base: &str, measure: Measure) -> Option<Mean> {
        let ratios: Vec<f64> = self
            .programs()
            .filter_map(|r| r.ratio(allocator, base, measure))
            .collect();
        Some(Mean {
            ratio: statistics::geometric_mean(&ratios)?,
            rows: ratios.len(),
        })
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).at("writing", path)?;
        project::write_file(path, text.as_bytes())
    }

    /// # Errors
    /// When the file cannot be read or is of another format.
    pub fn read(path: &Path) -> Result<Self> {
        let results: Results =
            serde_json::from_str(&project::read_text(path)?).at("reading", path)?;
        if results.format != FORMAT {
            return Err(format!("format {}, not {FORMAT}", results.format)).at("reading", path);
        }
        Ok(results)
    }
}

/// What is not a program's time or memory.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Extra {
    pub small: Vec<SmallProcess>,
    pub pairs: Vec<Pair>,
    pub given_back: Vec<GivenBack>,
    pub text: Vec<Text>,
}

/// A small process: system calls, minor faults, anonymous memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct SmallProcess {
    pub allocator: String,
    pub blocks: u32,
    pub calls: Option<u64>,
    pub faults: f64,
    pub anonymous_kib: f64,
}

/// Instructions for a malloc and a free, or another operation, the loop and the calls included.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pair {
    pub allocator: String,
    pub what: String,
    pub instructions: f64,
}

/// Memory after a peak, in KiB, and the system calls that gave it back.
#[derive(Debug, Serialize, Deserialize)]
pub struct GivenBack {
    pub allocator: String,
    pub what: String,
    pub live: f64,
    pub peak: f64,
    pub after: f64,
    /// madvise and munmap, per MiB that the program freed.
    pub calls_per_mib: Option<f64>,
}

/// Bytes of a static program that mallocs and frees, and nothing else.
#[derive(Debug, Serialize, Deserialize)]
pub struct Text {
    pub allocator: String,
    pub text: u64,
    pub data: u64,
    pub bss: u64,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn cell(cpu: &[f64]) -> Cell {
        let sample = |user: &f64| Sample {
            wall: *user,
            user: *user,
            system: 0.0,
            peak: 1000.0 * user,
            minor_faults: 10.0,
            major_faults: 0.0,
            operations: Some(100.0),
        };
        Cell {
            samples: cpu.iter().map(sample).collect(),
            ..Cell::default()
        }
    }

    pub fn results() -> Results {
        let allocator = |name: &str, ours| Allocator {
            name: name.into(),
            version: "1".into(),
            mode: Mode::Preload,
            hardened: ours,
            ours,
            flags: String::new(),
        };
        let row = |name: &str, ours: &[f64], peer: &[f64]| Row {
            name: name.into(),
            curve: None,
            pattern: "A pattern.".into(),
            threads: 1,
            real: false,
            cells: [("byssal".into(), cell(ours)), ("peer".into(), cell(peer))].into(),
        };
        Results {
            format: FORMAT,
            machine: Machine::default(),
            size: Size::Quick,
            rounds: 2,
            seconds: 1.0,
            allocators: vec![allocator("byssal", true), allocator("peer", false)],
            rows: vec![
                row("one", &[1.0, 1.0], &[2.0, 2.0]),
                row("two", &[1.0, 1.2], &[8.8, 8.8]),
            ],
            notes: vec![],
            extra: Extra::default(),
        }
    }

    #[test]
    fn a_failed_cell_is_left_out_of_the_mean_of_that_pair() {
        let mut results = results();
        let mean = results
            .mean("peer", "byssal", Measure::Cpu)
            .expect("a mean");
        assert!((mean.ratio - 4.0).abs() < 1e-9 && mean.rows == 2);
        let cell = results.rows[1].cells.get_mut("peer").expect("the cell");
        cell.failure = Some("exit 1".into());
        let mean = results
            .mean("peer", "byssal", Measure::Cpu)
            .expect("a mean");
        assert!((mean.ratio - 2.0).abs() < 1e-9 && mean.rows == 1);
    }

    #[test]
    fn a_peak_too_small_to_be_told_counts_as_a_mebibyte() {
        let mut results = results();
        for (name, peak) in [("byssal", 0.0), ("peer", 2048.0)] {
            let cell = results.rows[0].cells.get_mut(name).expect("the cell");
            cell.samples.iter_mut().for_each(|s| s.peak = peak);
        }
        let ratio = results.rows[0].ratio("peer", "byssal", Measure::Peak);
        assert_eq!(ratio, Some(2.0));
    }

    #[test]
    fn points_of_a_curve_do_not_count_for_means() {
        let mut results = results();
        results.rows[1].curve = Some("two".into());
        assert_eq!(
            results.mean("peer", "byssal", Measure::Cpu).map(|m| m.rows),
            Some(1)
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("results.json");
        let mut results = results();
        results.write(&path).expect("written");
        let read = Results::read(&path).expect("read");
        assert_eq!(
            read.rows[1].cells["peer"].samples,
            results.rows[1].cells["peer"].samples
        );
        results.format += 1;
        results.write(&path).expect("written");
        assert!(Results::read(&path).is_err());
    }
}
