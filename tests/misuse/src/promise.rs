//! What byssal promises of a misuse, and whether a cell keeps it.

use crate::outcome::{Cell, Ending, Saw, Stage, Trial};

/// What must come of a trial.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// byssal's check stops it, at this stage at the latest, as one of these faults; or the page
    /// protection does, at the access.
    Caught(Stage, &'static [u32]),
    /// The page protection stops it, at the access.
    Protected,
    /// As `Caught`, unless the address was given out again.
    CaughtUnlessReused(&'static [u32]),
    /// As `Caught`, in all but so many of 25 trials. Where each trial misses with probability 1/63,
    /// 9 are exceeded with less than 3e-12 (25 over 10, by 1/63 to the 10th).
    Mostly(Stage, &'static [u32], usize),
    /// It is not stopped, and a read sees zeros if anything.
    Zeros,
    /// A read sees zeros if anything, or byssal stops the process by one of these faults.
    ZerosOr(&'static [u32]),
    /// A string without an end stops at a zero, or by the page protection.
    Stops,
    /// The freed block's address is no new block's.
    Elsewhere,
    /// It is not stopped, and changes nothing.
    Harmless,
    /// Nothing is promised; it may be stopped.
    Nothing,
}

/// Whether a check of byssal, or the page protection, stopped it in time and by its right name.
fn caught(trial: &Trial, latest: Stage, faults: &[u32]) -> bool {
    match trial.ending {
        Ending::Check {
            stage,
            fault: Some(fault),
        } => stage <= latest && faults.contains(&fault),
        Ending::Protection => true,
        _ => false,
    }
}

impl Expect {
    /// What is wrong with a cell, if something is.
    pub fn broken(self, cell: &Cell) -> Option<String> {
        let good = |trial: &Trial| match self {
            Expect::Caught(latest, faults) | Expect::Mostly(latest, faults, _) => {
                caught(trial, latest, faults)
            }
            Expect::Protected => trial.ending == Ending::Protection,
            Expect::CaughtUnlessReused(faults) => {
                trial.ending == Ending::Unseen(Saw::Reused) || caught(trial, Stage::Call, faults)
            }
            Expect::Zeros => matches!(
                trial.ending,
                Ending::Protection | Ending::Unseen(Saw::Zeros)
            ),
            Expect::ZerosOr(faults) => {
                trial.ending == Ending::Unseen(Saw::Zeros) || caught(trial, Stage::Exit, faults)
            }
            Expect::Stops => matches!(
                trial.ending,
                Ending::Protection | Ending::Unseen(Saw::Stops)
            ),
            Expect::Elsewhere => trial.value == 0,
            Expect::Harmless => trial.ending == Ending::Unseen(Saw::Harmless),
            Expect::Nothing => !matches!(
                trial.ending,
                Ending::Crash(_) | Ending::Hang(_) | Ending::Failed(_) | Ending::Message
            ),
        };
        let spare = match self {
            Expect::Mostly(_, _, spare) => spare * cell.trials.len().div_ceil(25),
            _ => 0,
        };
        let bad: Vec<&Trial> = cell
            .trials
            .iter()
            .filter(|trial| trial.ending != Ending::Skipped && !good(trial))
            .collect();
        if cell.trials.is_empty() {
            return Some(format!("no trial ran\n{}", cell.said));
        }
        (bad.len() > spare).then(|| {
            format!(
                "{} of {} trials are not {self:?}, the first is {:?}\n{}",
                bad.len(),
                cell.trials.len(),
                bad[0].ending,
                cell.said
            )
        })
    }
}
