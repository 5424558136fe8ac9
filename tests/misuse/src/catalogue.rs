//! The rows, and what byssal promises in each.

use crate::outcome::{Cell, Ending, Saw, Stage, Trial};

/// Sizes of the block that is misused: small, a page, large.
pub const SIZES: [(&str, usize); 3] = [("small", 24), ("page", 4096), ("large", 300_000)];

/// Faults by number, as `src/heap/base/fault.rs` defines them.
const FREED: &[u32] = &[1, 2];
const INVALID: &[u32] = &[2];
const OVERFLOW: &[u32] = &[3];
const WRITTEN: &[u32] = &[4];
const MISMATCH: &[u32] = &[5];
/// What a write outside of a block may be named where free memory is watched.
const DAMAGE: &[u32] = &[3, 4];
/// The same when the block that is freed is the damaged one's neighbour.
const CALL: Stage = Stage::Call;

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
    /// Nothing is promised; it may be stopped.
    Nothing,
}

/// How a cell is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// What ended the trials.
    Endings,
    /// Share of the most common value.
    Mode,
    /// Mean of the values.
    Mean,
}

/// One misuse.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub group: &'static str,
    pub what: &'static str,
    pub program: &'static str,
    pub variant: u64,
    /// Whether each trial may come out differently: then there are many.
    pub chance: bool,
    /// Whether the block's size matters.
    pub sizes: usize,
    pub show: Show,
    pub default: Expect,
    pub hardened: Expect,
    /// Of large blocks, where that is more.
    pub large: [Option<Expect>; 2],
}

impl Row {
    const fn new(
        group: &'static str,
        what: &'static str,
        program: &'static str,
        expect: Expect,
    ) -> Self {
        Row {
            group,
            what,
            program,
            variant: 0,
            chance: false,
            sizes: SIZES.len(),
            show: Show::Endings,
            default: expect,
            hardened: expect,
            large: [None; 2],
        }
    }

    const fn variant(self, variant: u64) -> Self {
        Row { variant, ..self }
    }

    const fn chance(self) -> Self {
        Row {
            chance: true,
            ..self
        }
    }

    /// The block plays no part.
    const fn any_size(self) -> Self {
        Row { sizes: 1, ..self }
    }

    const fn hardened(self, hardened: Expect) -> Self {
        Row { hardened, ..self }
    }

    const fn large(self, default: Expect, hardened: Expect) -> Self {
        Row {
            large: [Some(default), Some(hardened)],
            ..self
        }
    }

    const fn show(self, show: Show) -> Self {
        Row { show, ..self }
    }

    /// What a preset promises for a size.
    pub fn expect(&self, hardened: bool, size: usize) -> Expect {
        let general = if hardened {
            self.hardened
        } else {
            self.default
        };
        if size == SIZES[2].1 {
            self.large[usize::from(hardened)].unwrap_or(general)
        } else {
            general
        }
    }
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
                Ending::Protection | Ending::Unseen(Saw::Zeros | Saw::NeverReused)
            ),
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

/// All rows.
pub fn rows() -> Vec<Row> {
    [
        double_free(),
        invalid_free(),
        replay(),
        overflow(),
        after_free(),
        other_calls(),
        placement(),
    ]
    .concat()
}

fn double_free() -> Vec<Row> {
    let row = |what, program| Row::new("double free", what, program, Expect::Caught(CALL, FREED));
    let ops = |what, n| Row {
        default: Expect::CaughtUnlessReused(FREED),
        hardened: Expect::CaughtUnlessReused(FREED),
        ..row(what, "double_free_ops").variant(n).chance()
    };
    let race = |what, variant| Row {
        // No trial may miss: whoever comes second is seen at once, or when the owner collects, at
        // exit at the latest.
        default: Expect::Caught(Stage::Exit, &[0, 1, 2]),
        // Both may be clearing the block when one of them looks at its tail. Without a number: a
        // thread sends its deferred frees when it ends, with all signals blocked, so that the
        // program's handler, which would tell the fault, does not run (musl).
        hardened: Expect::Caught(Stage::Exit, &[0, 1, 2, 3]),
        ..row(what, "double_free_race").variant(variant).chance()
    };
    vec![
        row("at once", "double_free"),
        row("after other frees", "double_free_later"),
        ops("after 1 other operation", 1),
        ops("after 10", 10),
        ops("after 100", 100),
        ops("after 1000", 1000),
        row("by another thread, then the owner", "double_free_remote"),
        row("by the owner, then another thread", "double_free_by_other"),
        row("by two other threads", "double_free_two_threads"),
        race("by owner and other at the same time", 0),
        race("by two others at the same time", 1),
        row(
            "of the old pointer after realloc moved it",
            "double_free_realloc",
        ),
    ]
}

fn invalid_free() -> Vec<Row> {
    let row =
        |what, program| Row::new("invalid free", what, program, Expect::Caught(CALL, INVALID));
    vec![
        row("1 byte into a block", "free_odd"),
        row("8 bytes into a block", "free_misaligned"),
        row("16 bytes into a block", "free_interior"),
        row("a page into a block", "free_interior").variant(1),
        row("the stack", "free_stack").any_size(),
        row("a global", "free_global").any_size(),
        row("never mapped", "free_unmapped").any_size(),
        row("the program's own mapping", "free_mapped").any_size(),
        row("address 4096", "free_wild").any_size(),
        row("non-canonical address", "free_wild")
            .variant(1)
            .any_size(),
        row("past the end of a chunk (4 MiB)", "free_chunk_end"),
        row("last 16 bytes of a chunk", "free_chunk_end").variant(1),
        row("the allocator's state (head)", "free_metadata"),
        row("the allocator's state (16 KiB on)", "free_metadata").variant(1),
        row("16 bytes before an aligned block", "free_aligned_raw"),
    ]
}

fn replay() -> Vec<Row> {
    let row = |what, program, expect| Row::new("forged state", what, program, expect);
    vec![
        row(
            "a neighbour's header copied into a block, free behind it",
            "replay_interior",
            Expect::Caught(CALL, INVALID),
        ),
        row(
            "double free, all bytes in and around restored",
            "replay_double",
            Expect::Caught(CALL, FREED),
        ),
        row(
            "overflow by 16 that copies a neighbour's end",
            "replay_tail",
            Expect::Nothing,
        )
        .chance()
        .hardened(Expect::Mostly(Stage::Later, DAMAGE, 9)),
    ]
}

fn overflow() -> Vec<Row> {
    let late = Expect::Caught(Stage::Later, DAMAGE);
    let free = Expect::Caught(Stage::Free, OVERFLOW);
    let row = |what, program| {
        Row::new("overflow", what, program, late)
            .hardened(free)
            .large(free, free)
    };
    let mostly = |what, program, spare| Row {
        default: Expect::Mostly(Stage::Later, OVERFLOW, spare),
        hardened: Expect::Mostly(Stage::Later, OVERFLOW, spare),
        large: [None; 2],
        ..row(what, program).chance()
    };
    vec![
        row("by 1 (text)", "overflow_byte"),
        row("by strcpy's NUL", "overflow_string"),
        mostly("by 1 (random other byte)", "overflow_random", 3),
        mostly("by 1 (one of byssal's 63 canaries)", "overflow_guess", 9),
        row("by 4", "overflow_tail").variant(4),
        row("by 8", "overflow_tail").variant(8),
        row("by 32", "overflow_tail").variant(32),
        row("by 4096", "overflow_tail")
            .variant(4096)
            .large(free, Expect::Protected),
        row("by 1, freed last of all", "overflow_at_exit")
            .large(free, free)
            .hardened(free),
        row("by 1, freed by another thread", "overflow_remote"),
        row("by 1, then realloc", "realloc_overflowed"),
    ]
    .into_iter()
    .map(|row| {
        if row.program == "overflow_at_exit" {
            Row {
                default: Expect::Caught(Stage::Exit, OVERFLOW),
                ..row
            }
        } else {
            row
        }
    })
    .chain([1, 8, 32].map(|n| {
        let what = ["by 1", "by 8", "by 32"][[1, 8, 32].iter().position(|&k| k == n).unwrap_or(0)];
        Row::new("underflow", what, "underflow", Expect::Nothing)
            .variant(n)
            .chance()
    }))
    .collect()
}

fn after_free() -> Vec<Row> {
    vec![
        Row::new(
            "after free",
            "write at once",
            "write_freed",
            Expect::Nothing,
        )
        .chance()
        .hardened(Expect::Caught(Stage::Exit, WRITTEN))
        .large(Expect::Nothing, Expect::Protected),
        Row::new(
            "after free",
            "write after reuse",
            "write_reused",
            Expect::Nothing,
        )
        .chance(),
        Row::new("after free", "read at once", "read_freed", Expect::Nothing)
            .hardened(Expect::Zeros)
            .large(Expect::Nothing, Expect::Protected),
        Row::new(
            "uninitialised",
            "read of reused memory",
            "read_new",
            Expect::Nothing,
        )
        .hardened(Expect::Zeros),
        Row::new(
            "zero-size block",
            "write",
            "zero_size",
            Expect::Caught(Stage::Later, OVERFLOW),
        )
        .any_size()
        .hardened(Expect::Protected),
        Row::new("zero-size block", "read", "zero_size", Expect::Nothing)
            .variant(1)
            .any_size()
            .hardened(Expect::Protected),
    ]
}

fn other_calls() -> Vec<Row> {
    let row = |what, program, faults| {
        Row::new("other calls", what, program, Expect::Caught(CALL, faults))
    };
    vec![
        row("realloc of a freed block", "realloc_freed", FREED),
        row(
            "realloc, 16 bytes into a block",
            "realloc_interior",
            INVALID,
        ),
        row("realloc of a global", "realloc_foreign", INVALID).any_size(),
        row(
            "malloc_usable_size of a freed block",
            "usable_size_freed",
            FREED,
        ),
        row(
            "malloc_usable_size of a global",
            "usable_size_foreign",
            INVALID,
        )
        .any_size(),
        row("free_sized with a wrong size", "free_sized_wrong", MISMATCH),
        row("free_sized of a freed block", "free_sized_freed", FREED),
        row("free_sized of a global", "free_sized_foreign", INVALID).any_size(),
    ]
}

fn placement() -> Vec<Row> {
    let row = |what, variant, show| {
        Row::new("placement", what, "place", Expect::Nothing)
            .variant(variant)
            .chance()
            .show(show)
    };
    vec![
        row("most common address of a block", 0, Show::Mode),
        row("most common distance to the next block", 1, Show::Mode),
        row("a freed block comes back at once", 2, Show::Mean),
        row("a freed block is among the next 8", 3, Show::Mean),
    ]
}
