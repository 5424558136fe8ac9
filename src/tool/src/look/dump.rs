//! What the program's own `byssal_dump_heap` would print.

use std::collections::HashMap;
use std::fmt::Write;

use byssal_heap::base::config::{CLASSES, RUN_PAGE};
use byssal_heap::inspect::format::{self, Line, SlotState, Total};

use crate::look::snapshot::Snapshot;
use crate::look::summary::preset;
use crate::look::view::{Extent, ExtentKind, Group, View};
use crate::look::walk::Owner;

/// The text.
pub fn text(snapshot: &Snapshot, owners: &[Owner], view: &View) -> String {
    let mut out = String::new();
    let head = Line::Head {
        preset: preset(snapshot),
        heaps: owners.len(),
    };
    let _ = writeln!(out, "{head}");
    let mut groups = HashMap::<(u16, usize), u32>::new();
    for group in &view.groups {
        *groups.entry((group.heap, group.class)).or_default() += 1;
    }
    for owner in owners {
        add_heap(&mut out, snapshot, owner, &groups);
    }
    for group in &view.groups {
        add_group(&mut out, group);
    }
    let live = |extent: &&Extent| extent.kind == ExtentKind::Live;
    for extent in view.extents.iter().filter(live) {
        let (base, bytes) = (extent.base as usize, extent.bytes as usize);
        let len = extent.len as usize;
        let line = if extent.is_run {
            let pages = len / RUN_PAGE;
            Line::Run { base, pages, bytes }
        } else {
            let mapped = len;
            Line::Large {
                base,
                mapped,
                bytes,
            }
        };
        let _ = writeln!(out, "{line}");
    }
    let totals = &view.totals;
    let total = Line::Total(Total {
        groups: totals.groups as usize,
        live: totals.small_blocks as usize,
        runs: totals.runs as usize,
        large: totals.mappings as usize,
        live_bytes: totals.live as usize,
        used: totals.used_pages as usize,
        dirty: view.retained.pages as usize,
        cached: view.retained.mappings as usize,
    });
    let _ = writeln!(out, "{total}");
    out
}

/// A heap and its classes that have groups.
fn add_heap(
    out: &mut String,
    snapshot: &Snapshot,
    owner: &Owner,
    groups: &HashMap<(u16, usize), u32>,
) {
    let id = owner.heap.id;
    let line = Line::Heap {
        id,
        life: format::life(owner.life),
        idle: owner.heap.idle as usize,
    };
    let _ = writeln!(out, "{line}");
    for class in 0..CLASSES {
        let Some(&groups) = groups.get(&(id, class)) else {
            continue;
        };
        let [slots, queued, empty] = owner.class_numbers(snapshot, class);
        let line = Line::Class {
            heap: id,
            class,
            slots,
            groups,
            queued,
            empty,
        };
        let _ = writeln!(out, "{line}");
    }
}

/// A group and the letters of its slots.
fn add_group(out: &mut String, group: &Group) {
    let line = Line::Group {
        heap: group.heap,
        class: group.class,
        base: group.base as usize,
        bytes: group.bytes() as usize,
        state: format::group_state(group.state),
    };
    let _ = write!(out, "{line}");
    let letters = group.slots.iter();
    out.extend(letters.map(|slot| slot.state.map_or('?', SlotState::letter)));
    out.push('\n');
}
