//! Random sequences of steps against the model, shrunk to a minimal one when they fail.
//!
//! A minimal failing sequence is written to `tests/regressions/`, where the next run finds it
//! first: commit it with the fix. `BYSSAL_CASES` sets the number of sequences, `BYSSAL_SEED` which
//! they are.

use super::*;
use crate::base::size_class::MAX_SMALL;
use crate::model::{decode, parse, print, run, Op, Step};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};
use std::path::PathBuf;

/// Sequences of a plain `cargo test`; each has up to `STEPS` steps.
pub(super) const CASES: u32 = few(60, 15) as u32;
const STEPS: usize = few(300, 10);

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions"))
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0u32..700,
        4 => 0u32..9000,
        2 => 0u32..=MAX_SMALL as u32,
        1 => MAX_SMALL as u32..1_000_000,
    ]
}

/// Steps that may stand anywhere, or those that end a sequence.
fn step(last: bool) -> impl Strategy<Value = Step> {
    let ops = Op::ALL.iter().filter(|(op, _)| op.is_last() == last);
    let ops: Vec<_> = ops.map(|&(op, weight)| (weight.max(1), Just(op))).collect();
    let op = proptest::strategy::Union::new_weighted(ops);
    (op, any::<u16>(), size()).prop_map(|(op, which, n)| Step { op, which, n })
}

fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let steps = proptest::collection::vec(step(false), 1..STEPS);
    let end = proptest::option::weighted(0.5, step(true));
    (steps, end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}

/// Sequences that failed once.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
pub(super) fn sequences_that_failed_once() {
    for entry in std::fs::read_dir(folder()).expect("the folder of regressions") {
        let path = entry.expect("readable").path();
        let steps = parse(&std::fs::read_to_string(&path).expect("text"));
        for has_break in [true, false] {
            eprintln!("{} {has_break}", path.display());
            run(&Boxed::new(has_break), &steps);
        }
    }
}

/// The corpus of the fuzzer (`ci/fuzz`), or `BYSSAL_CORPUS`: other folders, with `:` between. In a
/// debug build every eighth input.
#[test]
#[cfg_attr(miri, ignore = "too long for Miri")]
fn the_fuzzers_corpus_agrees_with_the_model() {
    corpus_agrees(if cfg!(debug_assertions) { 8 } else { 1 });
}

/// Every so many-th input of it.
pub(super) fn corpus_agrees(every: usize) {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus");
    let folders = std::env::var("BYSSAL_CORPUS").unwrap_or_else(|_| own.into());
    let mut inputs = 0;
    for folder in folders.split(':') {
        for entry in std::fs::read_dir(folder).expect("the corpus") {
            inputs += 1;
            if inputs % every != 0 {
                continue;
            }
            let path = entry.expect("readable").path();
            let bytes = std::fs::read(&path).expect("readable");
            let (has_break, steps) = decode(&bytes);
            if std::env::var_os("BYSSAL_STEPS").is_some() {
                eprintln!("{}\n{}", path.display(), print(&steps));
            }
            run(&Boxed::new(has_break), &steps);
        }
    }
    println!("{inputs} inputs");
    assert!(inputs > 0, "a corpus");
}

#[test]
fn random_steps_agree_with_the_model() {
    let cases = std::env::var("BYSSAL_CASES");
    steps_agree(cases.ok().and_then(|n| n.parse().ok()).unwrap_or(CASES));
}

/// So many random sequences.
pub(super) fn steps_agree(cases: u32) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100_000,
        ..ProptestConfig::default()
    };
    let (mut steps_run, mut calls, mut faults, mut refused) = (0u64, 0u64, 0u64, 0u64);
    let sums = std::cell::RefCell::new((&mut steps_run, &mut calls, &mut faults, &mut refused));
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&crate::mock::seed().to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let result = TestRunner::new_with_rng(config, rng).run(
        &(sequence(), any::<bool>()),
        |(steps, has_break)| {
            let report = run(&Boxed::new(has_break), &steps);
            let mut sums = sums.borrow_mut();
            *sums.0 += steps.len() as u64;
            *sums.1 += report.calls;
            *sums.2 += report.faults;
            *sums.3 += report.refused;
            Ok(())
        },
    );
    println!("{cases} sequences, {steps_run} steps, {calls} calls");
    println!("{faults} misuses named, {refused} allocations refused");
    if let Err(TestError::Fail(why, (steps, has_break))) = result {
        let text = format!(
            "# {}\n# with a break: {has_break}\n{}",
            why.message().lines().next().unwrap_or(""),
            print(&steps)
        );
        let name = format!("{:08x}.steps", crate::model::fingerprint(&text) as u32);
        let path = folder().join(name);
        let saved = std::fs::write(&path, &text);
        panic!(
            "{why}\nminimal sequence, {saved:?} in {}:\n{text}",
            path.display()
        );
    } else if let Err(abort) = result {
        panic!("{abort}");
    }
}

#[test]
fn a_sequence_survives_print_and_parse() {
    let all = Op::ALL.iter().enumerate();
    let steps: Vec<Step> = all
        .map(|(i, &(op, _))| Step {
            op,
            which: i as u16 * 999,
            n: i as u32 * 77_777,
        })
        .collect();
    assert_eq!(parse(&print(&steps)), steps);
}
