//! What is seen of a heap, for people.

use std::fmt::Write;

use crate::look::view::{Class, Retained, View};
use crate::progress;

/// Bytes in the unit that fits.
pub fn bytes(bytes: u64) -> String {
    progress::bytes(bytes as f64)
}

/// A part of a whole, in percent.
fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        whole => format!("{:.0} %", part as f64 / whole as f64 * 100.0),
    }
}

/// All of it.
pub fn text(view: &View) -> String {
    let mut out = String::new();
    let totals = &view.totals;
    let rest = match (view.signal, view.at_rest) {
        (Some(signal), _) => format!("ended by signal {signal}"),
        (None, true) => format!("stopped for {:.1} ms", view.stopped as f64 / 1000.0),
        (None, false) => "not stopped: numbers may contradict each other".to_owned(),
    };
    let _ = writeln!(
        out,
        "{}: byssal, preset {}, {} bits; {rest}",
        view.program,
        view.preset,
        view.word * 8
    );
    if let Some(fault) = &view.fault {
        let _ = writeln!(
            out,
            "\nfault {}: {} at {:#x}\n  {}",
            fault.number, fault.name, fault.address, fault.place
        );
        for line in &fault.neighbours {
            let _ = writeln!(out, "  {line}");
        }
        if let Some(damage) = &fault.damage {
            let _ = writeln!(out, "  in all: {damage}");
        }
    }
    for problem in &view.problems {
        let _ = writeln!(out, "damaged: {problem}");
    }
    let _ = writeln!(
        out,
        "\nlive        {:>10}  in {} blocks ({} in slots, {} in pages, {} in mappings)",
        bytes(totals.live),
        totals.blocks,
        totals.small_blocks,
        totals.runs,
        totals.mappings
    );
    if totals.unclear > 0 {
        let _ = writeln!(
            out,
            "            {:>10}  slots are in the hands of threads, or out of use",
            totals.unclear
        );
    }
    let sum = view.retained.sum();
    let _ = writeln!(
        out,
        "retained    {:>10}  memory that holds no block",
        bytes(sum)
    );
    retained(&mut out, &view.retained);
    let held = totals.live + view.retained.slack + sum + view.retained.metadata;
    let _ = writeln!(
        out,
        "slack       {:>10}  behind blocks in their slots and pages\n\
         metadata    {:>10}\nof {} held, {} is live",
        bytes(view.retained.slack),
        bytes(view.retained.metadata),
        bytes(held),
        percent(totals.live, held)
    );
    classes(&mut out, &view.classes);
    heaps(&mut out, view);
    let _ = writeln!(out, "\nlargest blocks");
    for block in &view.largest {
        let _ = writeln!(out, "  {:>10}  at {:#x}", bytes(block.bytes), block.address);
    }
    out
}

fn retained(out: &mut String, retained: &Retained) {
    let kinds = [
        ("at hand for malloc, in reuse queues", retained.ready),
        ("free slots of groups that hold blocks", retained.freed),
        ("slots never used of such groups", retained.unused),
        ("empty groups", retained.empty_groups),
        ("freed by other threads, to be collected", retained.remote),
        ("freed by other threads, not sent yet", retained.deferred),
        ("in quarantine", retained.quarantine),
        ("free granules of spans", retained.spans),
        ("free pages", retained.pages),
        ("mappings of freed large blocks", retained.mappings),
        ("mappings that the system refused to take", retained.refused),
    ];
    for (name, amount) in kinds.into_iter().filter(|(_, amount)| *amount > 0) {
        let _ = writeln!(out, "  {:>20}  {name}", bytes(amount));
    }
    if retained.purged > 0 {
        let amount = format!("-{}", bytes(retained.purged));
        let _ = writeln!(
            out,
            "  {amount:>20}  of these slots, pages went back to the system"
        );
    }
}

fn classes(out: &mut String, classes: &[Class]) {
    let _ = writeln!(
        out,
        "\n{:>8} {:>8} {:>9} {:>9} {:>11} {:>11} {:>6}",
        "slot", "groups", "slots", "blocks", "live", "retained", "used"
    );
    for class in classes {
        let _ = writeln!(
            out,
            "{:>8} {:>8} {:>9} {:>9} {:>11} {:>11} {:>6}",
            class.stride,
            class.groups,
            class.slots,
            class.blocks,
            bytes(class.live),
            bytes(class.retained),
            percent(class.live, class.slots * class.stride)
        );
    }
}

fn heaps(out: &mut String, view: &View) {
    let _ = writeln!(
        out,
        "\n{:>5} {:<8} {:<24} {:>9} {:>11} {:>11} {:>11}",
        "heap", "is", "thread", "blocks", "live", "groups", "empty"
    );
    let mut quiet = 0;
    for heap in &view.heaps {
        if heap.life != "active" && heap.group_bytes == 0 {
            quiet += 1;
            continue;
        }
        let thread = match (heap.thread, &heap.thread_name) {
            (Some(number), Some(name)) => format!("{number} {name}"),
            (Some(number), None) => number.to_string(),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            out,
            "{:>5} {:<8} {:<24} {:>9} {:>11} {:>11} {:>11}",
            heap.id,
            heap.life,
            thread,
            heap.blocks,
            bytes(heap.live),
            bytes(heap.group_bytes),
            bytes(heap.empty_bytes)
        );
    }
    if quiet > 0 {
        let _ = writeln!(out, "{quiet} more without a thread and without a group");
    }
}
