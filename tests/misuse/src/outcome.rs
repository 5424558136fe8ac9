//! What one trial came to, and what many together.

use std::collections::BTreeMap;

/// What a trial was about to do, as `misuse.h` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    Start,
    Access,
    Call,
    Free,
    Later,
    Reuse,
    Exit,
}

impl Stage {
    fn new(number: u64) -> Option<Self> {
        use Stage::{Access, Call, Exit, Free, Later, Reuse, Start};
        [Start, Access, Call, Free, Later, Reuse, Exit]
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// When the process was stopped, in the table's words.
    fn name(self) -> &'static str {
        match self {
            Stage::Start => "before",
            Stage::Access => "access",
            Stage::Call => "call",
            Stage::Free => "free",
            Stage::Later => "later",
            Stage::Reuse => "reuse",
            Stage::Exit => "exit",
        }
    }
}

/// What a trial that was not stopped saw, as `misuse.h` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Saw {
    Nothing,
    Zeros,
    Filled,
    Stops,
    OtherData,
    Shown,
    ShownAlike,
    OldData,
    Reused,
    NeverReused,
    Changed,
    Harmless,
}

impl Saw {
    fn new(number: u64) -> Option<Self> {
        use Saw::{
            Changed, Filled, Harmless, NeverReused, Nothing, OldData, OtherData, Reused, Shown,
            ShownAlike, Stops, Zeros,
        };
        [
            Nothing,
            Zeros,
            Filled,
            Stops,
            OtherData,
            Shown,
            ShownAlike,
            OldData,
            Reused,
            NeverReused,
            Changed,
            Harmless,
        ]
        .get(usize::try_from(number).ok()?)
        .copied()
    }
}

/// How a trial ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ending {
    /// By a check: a trapping instruction or abort. byssal's has the fault's number.
    Check { stage: Stage, fault: Option<u32> },
    /// By the page protection, at the wrong access itself.
    Protection,
    /// By a wild access inside a call: nobody checked, but the process is gone.
    Crash(Stage),
    /// It never ended.
    Hang(Stage),
    /// The allocator printed something and went on.
    Message,
    /// Nothing stopped it.
    Unseen(Saw),
    /// This trial says nothing about this allocator, e.g. it lacks the function.
    Skipped,
    /// The program itself failed: a defect of these tests, or of the allocator.
    Failed(u64),
}

/// One trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub ending: Ending,
    /// Calls since the stage began.
    pub count: u64,
    /// A number for the rows about placement.
    pub value: u64,
}

impl Trial {
    /// Reads a line of `misuse.h`'s run_trials; None for any other line.
    pub fn parse(line: &str) -> Option<Trial> {
        let mut words = line
            .strip_prefix("trial ")?
            .split(' ')
            .map(str::parse::<u64>);
        let mut next = || words.next()?.ok();
        let (stage, count, saw) = (next()?, next()?, next()?);
        let (code, signal, si_code) = (next()?, next()?, next()?);
        let (instruction, fault) = (next()?, next()?);
        let (_address, value, said) = (next()?, next()?, next()?);
        let stage = Stage::new(stage)?;
        let ending = match (signal, code) {
            (0, 0) if said > 0 => Ending::Message,
            (0, 0) => Ending::Unseen(Saw::new(saw)?),
            (0, 77) => Ending::Skipped,
            (0, code) => Ending::Failed(code),
            _ => killed(signal, si_code, instruction, fault, stage),
        };
        Some(Trial {
            ending,
            count,
            value,
        })
    }
}

const SIGILL: u64 = 4;
const SIGTRAP: u64 = 5;
const SIGABRT: u64 = 6;
const SIGALRM: u64 = 14;

/// The ending of a process that a signal killed.
fn killed(signal: u64, _si_code: u64, instruction: u64, fault: u64, stage: Stage) -> Ending {
    // musl's a_crash is hlt on x86_64, which raises SIGSEGV.
    let halts = cfg!(target_arch = "x86_64") && instruction & 0xff == 0xf4;
    match signal {
        SIGILL | SIGTRAP => Ending::Check {
            stage,
            fault: u32::try_from(fault).ok(),
        },
        SIGABRT => Ending::Check { stage, fault: None },
        SIGALRM => Ending::Hang(stage),
        _ if halts => Ending::Check { stage, fault: None },
        _ if stage == Stage::Access => Ending::Protection,
        _ => Ending::Crash(stage),
    }
}

impl Ending {
    /// Whether the misuse was stopped, by whatever means, or got nothing: a read that saw no more
    /// than zeros or another filling.
    pub fn is_stopped(self) -> bool {
        matches!(
            self,
            Ending::Check { .. }
                | Ending::Protection
                | Ending::Crash(_)
                | Ending::Unseen(Saw::Zeros | Saw::Filled | Saw::Stops)
        )
    }

    /// Whether the trial says something about this allocator: it ran, and changed something.
    pub fn counts(self) -> bool {
        !matches!(self, Ending::Skipped | Ending::Unseen(Saw::Harmless))
    }

    /// Whether it was stopped, but by something that happened afterwards: other calls, a reuse of
    /// the memory, the end of the process.
    fn is_late(self) -> bool {
        match self {
            Ending::Check { stage, .. } | Ending::Crash(stage) => stage >= Stage::Later,
            _ => false,
        }
    }

    /// The table's word for it.
    pub fn word(self) -> String {
        match self {
            Ending::Check { stage, .. } => stage.name().to_owned(),
            Ending::Protection => "faults".to_owned(),
            Ending::Crash(stage) => format!("*crash* ({})", stage.name()),
            Ending::Hang(stage) => format!("*hangs* ({})", stage.name()),
            Ending::Message => "message only".to_owned(),
            Ending::Unseen(Saw::Nothing | Saw::Reused | Saw::Changed) => "**no**".to_owned(),
            Ending::Unseen(Saw::NeverReused) => "not reused".to_owned(),
            Ending::Unseen(Saw::Harmless) => "harmless".to_owned(),
            Ending::Unseen(Saw::Zeros) => "zeros".to_owned(),
            Ending::Unseen(Saw::Filled) => "filled".to_owned(),
            Ending::Unseen(Saw::Stops) => "zero".to_owned(),
            Ending::Unseen(Saw::Shown) => "**shown**".to_owned(),
            Ending::Unseen(Saw::ShownAlike) => "**shown, alike**".to_owned(),
            Ending::Unseen(Saw::OldData) => "**old data**".to_owned(),
            Ending::Unseen(Saw::OtherData) => "other data".to_owned(),
            Ending::Skipped => "n/a".to_owned(),
            Ending::Failed(code) => format!("failed ({code})"),
        }
    }

    /// How good it is, 0 to 1, for comparisons. Stopped is best; of what a read finds, zeros are
    /// as good and old data is worst.
    pub fn worth(self) -> f64 {
        match self {
            Ending::Unseen(Saw::NeverReused) | Ending::Message => 0.9,
            Ending::Unseen(Saw::OtherData | Saw::Shown) => 0.5,
            ending if ending.is_stopped() => 1.0,
            _ => 0.0,
        }
    }
}

/// How sure it is that a misuse is stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// In every trial, by the misuse itself or by the free of the block.
    Always,
    /// In every trial, in some of them only by what came afterwards.
    Late,
    /// In some trials.
    Sometimes,
    /// In none.
    Never,
}

/// Trials of one program, size and heap under one allocator.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub trials: Vec<Trial>,
    /// What the program printed besides.
    pub said: String,
}

impl Cell {
    /// Reads all that the program printed.
    pub fn parse(output: &str) -> Cell {
        let mut cell = Cell::default();
        for line in output.lines() {
            match Trial::parse(line) {
                Some(trial) => cell.trials.push(trial),
                None => {
                    cell.said.push_str(line);
                    cell.said.push('\n');
                }
            }
        }
        cell
    }

    /// How many trials did not end by themselves.
    pub fn hangs(&self) -> usize {
        let endings = self.counted();
        endings.filter(|e| matches!(e, Ending::Hang(_))).count()
    }

    /// How many trials ended in each word.
    pub fn words(&self) -> BTreeMap<String, usize> {
        let mut words = BTreeMap::new();
        for trial in &self.trials {
            *words.entry(trial.ending.word()).or_insert(0) += 1;
        }
        words
    }

    /// Trials that say something about this allocator.
    fn counted(&self) -> impl Iterator<Item = Ending> + '_ {
        let endings = self.trials.iter().map(|trial| trial.ending);
        endings.filter(|ending| ending.counts())
    }

    /// How sure it is that the misuse is stopped; None if no trial says anything.
    pub fn verdict(&self) -> Option<Verdict> {
        let all = self.counted().count();
        let stopped = self.counted().filter(|ending| ending.is_stopped()).count();
        match stopped {
            _ if all == 0 => None,
            0 => Some(Verdict::Never),
            n if n < all => Some(Verdict::Sometimes),
            _ if self.counted().any(Ending::is_late) => Some(Verdict::Late),
            _ => Some(Verdict::Always),
        }
    }

    /// Mean worth; None if the row says nothing here.
    pub fn worth(&self) -> Option<f64> {
        let counted: Vec<f64> = self.counted().map(Ending::worth).collect();
        (!counted.is_empty()).then(|| counted.iter().sum::<f64>() / counted.len() as f64)
    }

    /// The latest call of other blocks at which a trial was stopped.
    pub fn latest(&self) -> u64 {
        let late = self.trials.iter().filter(|trial| {
            matches!(
                trial.ending,
                Ending::Check {
                    stage: Stage::Later,
                    ..
                }
            )
        });
        late.map(|trial| trial.count).max().unwrap_or(0)
    }

    /// Share of the most common value.
    pub fn mode(&self) -> f64 {
        let mut counts = BTreeMap::new();
        for trial in &self.trials {
            *counts.entry(trial.value).or_insert(0usize) += 1;
        }
        counts.values().copied().max().unwrap_or(0) as f64 / self.trials.len().max(1) as f64
    }

    /// Mean value.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.trials.iter().map(|trial| trial.value as f64).sum();
        sum / self.trials.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(line: &str) -> Ending {
        Trial::parse(line).expect("a trial").ending
    }

    #[test]
    fn endings_are_told_apart() {
        let check = |stage, fault| Ending::Check { stage, fault };
        assert_eq!(
            ending("trial 2 0 0 0 4 2 2831 1 99 0 0"),
            check(Stage::Call, Some(1))
        );
        assert_eq!(
            ending("trial 3 0 0 0 6 0 0 7 7 0 40"),
            check(Stage::Free, None)
        );
        assert_eq!(ending("trial 1 0 0 0 11 2 136 0 0 0 0"), Ending::Protection);
        assert_eq!(
            ending("trial 2 0 0 0 11 1 136 0 0 0 0"),
            Ending::Crash(Stage::Call)
        );
        assert_eq!(
            ending("trial 6 0 8 0 0 0 0 0 0 0 0"),
            Ending::Unseen(Saw::Reused)
        );
        assert_eq!(ending("trial 6 0 0 0 0 0 0 0 0 0 9"), Ending::Message);
        assert_eq!(ending("trial 6 0 0 77 0 0 0 0 0 0 20"), Ending::Skipped);
        assert_eq!(ending("trial 0 0 0 1 0 0 0 0 0 0 20"), Ending::Failed(1));
        assert!(Trial::parse("free(): invalid pointer").is_none());
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            ending("trial 2 0 0 0 11 128 244 0 0 0 0"),
            check(Stage::Call, None)
        );
    }
    #[test]
    fn verdicts_count_every_trial() {
        let verdict = |lines: &[&str]| Cell::parse(&lines.join("\n")).verdict();
        let call = "trial 2 0 0 0 4 2 2831 1 99 0 0";
        let exit = "trial 6 0 0 0 4 2 2831 3 99 0 0";
        let zeros = "trial 6 0 1 0 0 0 0 0 0 0 0";
        let missed = "trial 6 0 0 0 0 0 0 0 0 0 0";
        let skipped = "trial 6 0 0 77 0 0 0 0 0 0 20";
        assert_eq!(verdict(&[call, zeros]), Some(Verdict::Always));
        assert_eq!(verdict(&[call, exit]), Some(Verdict::Late));
        assert_eq!(verdict(&[call, missed, exit]), Some(Verdict::Sometimes));
        assert_eq!(verdict(&[missed, skipped]), Some(Verdict::Never));
        assert_eq!(verdict(&[skipped]), None);
        let harmless = "trial 6 0 11 0 0 0 0 0 0 0 0";
        assert_eq!(verdict(&[harmless]), None, "nothing was changed");
        assert_eq!(verdict(&[harmless, call]), Some(Verdict::Always));
    }
}
