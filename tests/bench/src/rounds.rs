//! The rounds: every program under every allocator, again and again, in turn, within a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use byssal_peers::Peer;
use byssal_tool::error::Result;
use byssal_tool::progress::say;

use crate::measure::{Outcome, Runner};
use crate::programs::Work;
use crate::results::{Cell, Row};

/// Curves have many points and show slopes: two samples of each are enough.
const CURVE_ROUNDS: usize = 2;

/// What is measured and how long it may take.
pub struct Plan<'a> {
    pub works: &'a [Work],
    pub peers: &'a [Peer],
    pub rounds: usize,
    /// When the last round must be over.
    pub end: Instant,
}

/// Outputs of one program, to find the one that most agree on.
type Outputs = BTreeMap<String, Vec<&'static str>>;

/// Runs the rounds. Gives the rows and how many rounds were whole.
///
/// # Errors
/// When a program cannot be started at all.
pub fn run(plan: &Plan, runner: &Runner, notes: &mut Vec<String>) -> Result<(Vec<Row>, usize)> {
    let mut rows: Vec<Row> = plan.works.iter().map(row).collect();
    let mut outputs: Vec<Outputs> = plan.works.iter().map(|_| Outputs::new()).collect();
    let begin = Instant::now();
    let mut whole = 0;
    for round in 0..plan.rounds {
        let started = Instant::now();
        if round > 0 && started + longest(&rows) > plan.end {
            notes.push(format!(
                "{round} rounds, not {}: no time for another",
                plan.rounds
            ));
            break;
        }
        for (i, work) in plan.works.iter().enumerate() {
            if Instant::now() > plan.end {
                let left = plan.works.len() - i;
                notes.push(format!(
                    "round {}: no time for its last {left} programs",
                    round + 1
                ));
                judge(&mut rows, &outputs);
                return Ok((rows, whole));
            }
            if work.curve.is_some() && round >= CURVE_ROUNDS {
                continue;
            }
            one(plan, runner, work, round + i, &mut rows[i], &mut outputs[i])?;
            let done = round * plan.works.len() + i + 1;
            progress(plan, begin, done, round, &work.name);
        }
        whole += 1;
    }
    judge(&mut rows, &outputs);
    Ok((rows, whole))
}

fn row(work: &Work) -> Row {
    Row {
        name: work.name.clone(),
        curve: work.curve.clone(),
        pattern: work.pattern.clone(),
        threads: work.threads,
        real: work.real,
        cells: BTreeMap::new(),
    }
}

/// How long a round takes, from what the runs so far took.
fn longest(rows: &[Row]) -> Duration {
    let cells = rows.iter().flat_map(|r| r.cells.values());
    let seconds = cells
        .filter_map(|c| c.samples.last())
        .map(|s| s.wall + 0.01);
    Duration::from_secs_f64(seconds.sum())
}

/// One program under all allocators, one after the other. Each round begins with another, so that
/// nobody always runs after the same neighbour or on the machine's first heat.
fn one(
    plan: &Plan,
    runner: &Runner,
    work: &Work,
    turn: usize,
    row: &mut Row,
    outputs: &mut Outputs,
) -> Result<()> {
    let count = plan.peers.len();
    for k in 0..count {
        let peer = &plan.peers[(k + turn) % count];
        let Some(job) = work.jobs.get(peer.name) else {
            continue;
        };
        let cell = row.cells.entry(peer.name.to_owned()).or_default();
        if cell.failure.is_some() {
            continue;
        }
        let Outcome {
            sample,
            output,
            failure,
        } = runner.run(job, peer)?;
        match failure {
            Some(why) => fail(cell, &work.name, peer.name, why),
            None => {
                cell.samples.push(sample);
                if matches!(job.check, crate::catalogue::Check::SameOutput) {
                    outputs.entry(output).or_default().push(peer.name);
                }
            }
        }
    }
    Ok(())
}

fn fail(cell: &mut Cell, program: &str, peer: &str, why: String) {
    say(&format!("  {program} under {peer} FAILED: {why}"));
    cell.failure = Some(why);
}

/// Who printed something other than most did has computed something wrong.
fn judge(rows: &mut [Row], outputs: &[Outputs]) {
    for (row, outputs) in rows.iter_mut().zip(outputs) {
        let Some(agreed) = outputs
            .iter()
            .max_by_key(|(_, who)| who.len())
            .map(|(o, _)| o)
        else {
            continue;
        };
        for (output, who) in outputs.iter().filter(|(o, _)| *o != agreed) {
            for peer in who {
                if let Some(cell) = row.cells.get_mut(*peer) {
                    let printed: String = output.chars().take(60).collect();
                    let wanted: String = agreed.chars().take(60).collect();
                    let why = format!("printed {printed:?}, most others {wanted:?}");
                    fail(cell, &row.name, peer, why);
                }
            }
        }
    }
}

fn progress(plan: &Plan, begin: Instant, done: usize, round: usize, name: &str) {
    let all = plan.rounds * plan.works.len();
    let took = begin.elapsed().as_secs_f64();
    let end = plan
        .end
        .saturating_duration_since(Instant::now())
        .as_secs_f64();
    let left = (took / done as f64 * (all - done) as f64).min(end);
    say(&format!(
        "  [{done}/{all}] round {} of at most {}: {name}; {took:.0} s, about {left:.0} s left",
        round + 1,
        plan.rounds
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn whoever_disagrees_with_most_fails() {
        let mut rows = results().rows;
        rows.truncate(1);
        rows[0].cells.insert("third".into(), Cell::default());
        let outputs = Outputs::from([
            ("sum 1".to_owned(), vec!["byssal", "third"]),
            ("sum 2".to_owned(), vec!["peer"]),
        ]);
        judge(&mut rows, &[outputs]);
        let failure = |name: &str| rows[0].cells[name].failure.clone();
        assert_eq!(failure("byssal"), None);
        assert!(failure("peer").is_some_and(|f| f.contains("sum 2")));
    }

    #[test]
    fn a_round_takes_what_the_last_one_took() {
        let rows = results().rows;
        let seconds = longest(&rows).as_secs_f64();
        assert!((seconds - (1.0 + 2.0 + 1.2 + 8.8 + 0.04)).abs() < 1e-6);
    }
}
