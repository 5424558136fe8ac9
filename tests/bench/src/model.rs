//! What many cores would make of counted costs: the model that docs/scaling.md explains.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Of one operation of a pattern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// Atomic read-modify-writes, the lock's among them.
    pub rmws: f64,
    pub fences: f64,
    pub remote_frees: f64,
    /// Writes to lines that other threads read or write: see `Counts::costs`.
    pub shared_writes: f64,
    pub locks: f64,
    /// The part of the locks that was found held.
    pub awaited: f64,
    /// Nanoseconds that the lock is held.
    pub hold: f64,
    /// Calls of the system for memory.
    pub calls: f64,
}

/// A pattern's costs by number of threads, and the CPU time of an operation with few of them.
pub struct Pattern {
    pub name: &'static str,
    pub nanoseconds: f64,
    pub costs: BTreeMap<u32, Costs>,
}

/// A machine of the model.
struct Machine {
    cores: f64,
    /// Nanoseconds until a core has a line that another core wrote.
    line: f64,
}

/// The sources of these figures stand in docs/scaling.md.
const MACHINES: [Machine; 2] = [
    Machine {
        cores: 64.0,
        line: 115.0,
    },
    Machine {
        cores: 256.0,
        line: 197.0,
    },
];

/// Lines that the holder of the lock takes over from the last one: the lock, the page heap, a
/// chunk's header and its bitmap.
const LOCKED_LINES: f64 = 4.0;

/// Nanoseconds for which a call of the system for memory keeps others out.
const CALL: f64 = 1000.0;

/// How many times one core's throughput a machine has at most: by its cores and the lines that
/// they hand on, by the one lock, by the kernel's lock of the address space.
fn bounds(nanoseconds: f64, costs: &Costs, machine: &Machine) -> [f64; 3] {
    let own = nanoseconds + costs.shared_writes * machine.line;
    let locked = costs.locks * (costs.hold + LOCKED_LINES * machine.line);
    [
        machine.cores * nanoseconds / own,
        nanoseconds / locked,
        nanoseconds / (costs.calls * CALL),
    ]
}

/// The cells of a machine: its three bounds, the least of them bold.
fn cells(bounds: [f64; 3]) -> String {
    let least = bounds.into_iter().fold(f64::INFINITY, f64::min);
    let cell = |bound: f64| {
        let text = match bound {
            b if b > 9999.0 => "–".into(),
            b if b < 9.95 => format!("{b:.1}"),
            b => format!("{b:.0}"),
        };
        if bound == least {
            format!(" **{text}** |")
        } else {
            format!(" {text} |")
        }
    };
    bounds.map(cell).concat()
}

/// A small number with a precision that fits it.
fn small(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        x if x < 0.0005 => "<.001".into(),
        x if x < 1.0 => format!("{x:.3}").trim_start_matches('0').into(),
        x => format!("{x:.2}"),
    }
}

/// Both tables.
pub fn tables(patterns: &[Pattern]) -> String {
    let mut text = String::from(
        "| pattern | threads | RMWs | fences | frees of others' blocks | shared-line writes | locks | found held | held, ns | system calls |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for pattern in patterns {
        for (threads, c) in &pattern.costs {
            let _ = writeln!(
                text,
                "| {} | {threads} | {} | {} | {} | {} | {} | {:.1} % | {:.0} | {} |",
                pattern.name,
                small(c.rmws),
                small(c.fences),
                small(c.remote_frees),
                small(c.shared_writes),
                small(c.locks),
                c.awaited * 100.0,
                c.hold,
                small(c.calls),
            );
        }
    }
    text.push_str(
        "\n| pattern | ns an operation | 64 cores: lines | lock | system | 256 cores: lines | lock | system |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for pattern in patterns {
        let Some((_, costs)) = pattern.costs.last_key_value() else {
            continue;
        };
        let _ = write!(text, "| {} | {:.0} |", pattern.name, pattern.nanoseconds);
        for machine in &MACHINES {
            text.push_str(&cells(bounds(pattern.nanoseconds, costs, machine)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_as_the_page_says() {
        let none = bounds(100.0, &Costs::default(), &MACHINES[0]);
        assert_eq!(none, [64.0, f64::INFINITY, f64::INFINITY]);
        let costs = Costs {
            shared_writes: 1.0,
            locks: 0.5,
            hold: 540.0,
            calls: 0.25,
            ..Costs::default()
        };
        let [lines, lock, system] = bounds(100.0, &costs, &MACHINES[0]);
        assert!((lines - 64.0 * 100.0 / 215.0).abs() < 1e-9, "{lines}");
        assert_eq!((lock, system), (0.2, 0.4));
    }

    #[test]
    fn the_least_bound_stands_out() {
        let text = cells([64.0, 3.24, f64::INFINITY]);
        assert_eq!(text, " 64 | **3.2** | – |");
    }
}
