//! Sums over what a walk found.

use std::collections::BTreeMap;
use std::fmt::Write;

use byssal_heap::base::config::{CLASSES, RUN_PAGE};
use byssal_heap::inspect::format::{Line, SlotState, Total};

use crate::look::memory::Thread;
use crate::look::snapshot::Snapshot;
use crate::look::view::{Block, Class, ExtentKind, Group, Retained, Totals, View, FORMAT};
use crate::look::walk::{Owner, Walk};

/// Blocks that are told one by one.
const LARGEST: usize = 10;

/// Name of the preset with so many bytes of guard.
fn preset(guard: u16) -> &'static str {
    if guard > 1 {
        "hardened"
    } else {
        "default"
    }
}

/// What is seen, and the text that the program's own `dump_heap` would print.
pub fn of(snapshot: &Snapshot, walk: Walk, threads: &[Thread]) -> View {
    let numbers = snapshot.found.numbers;
    let mut view = View {
        format: FORMAT,
        preset: preset(numbers.preset[0]).to_owned(),
        word: numbers.word,
        problems: snapshot
            .problems
            .iter()
            .chain(&walk.problems)
            .cloned()
            .collect(),
        ..View::default()
    };
    let mut by_class: BTreeMap<usize, Class> = BTreeMap::new();
    let mut owners = walk.owners;
    for group in &walk.groups {
        add_group(&mut view.totals, &mut view.retained, group);
        let class = by_class.entry(group.class).or_default();
        add_to_class(class, group);
        let owner = usize::from(group.heap).wrapping_sub(1);
        if let Some(owner) = owners.get_mut(owner) {
            add_to_heap(owner, group);
        }
    }
    for extent in &walk.extents {
        match extent.kind {
            ExtentKind::Live => {
                view.totals.live += extent.bytes;
                view.retained.slack += extent.len - extent.bytes;
                if extent.is_run {
                    view.totals.runs += 1;
                } else {
                    view.totals.mappings += 1;
                    view.totals.mapped += extent.len;
                }
            }
            ExtentKind::Kept => view.retained.mappings += extent.len,
            ExtentKind::Refused => view.retained.refused += extent.len,
        }
    }
    let [_, used, dirty, closed, zero, ..] = numbers.memory.map(u64::from);
    let word = |place: u64| snapshot.word(snapshot.found.state + place).unwrap_or(0);
    let page = RUN_PAGE as u64;
    view.totals.used_pages = word(used).saturating_sub(word(closed)).saturating_mul(page);
    view.totals.small_blocks += word(zero);
    view.totals.blocks = view.totals.small_blocks + view.totals.runs + view.totals.mappings;
    view.retained.pages = word(dirty).saturating_mul(page);
    view.retained.spans = owners.iter().map(|owner| owner.heap.idle_spans).sum();
    view.retained.metadata = snapshot.copied();
    view.largest = largest(&walk.groups, &walk.extents);
    name_threads(&mut owners, threads);
    view.heaps = owners.into_iter().map(|owner| owner.heap).collect();
    view.classes = by_class.into_values().collect();
    (view.groups, view.extents, view.chunks) = (walk.groups, walk.extents, walk.chunks);
    view
}

fn add_group(totals: &mut Totals, retained: &mut Retained, group: &Group) {
    let stride = group.stride();
    totals.groups += 1;
    totals.group_bytes += group.bytes();
    let is_empty = group.is_empty();
    for (index, slot) in group.slots.iter().enumerate() {
        let bytes = match slot.state {
            None => {
                totals.unclear += 1;
                continue;
            }
            Some(SlotState::Live) => {
                let length = group.block(index).map_or(0, |block| block.bytes);
                totals.small_blocks += 1;
                totals.live += length;
                totals.small_live += length;
                totals.live_slots += stride;
                retained.slack += stride - length;
                continue;
            }
            Some(_) if is_empty => &mut retained.empty_groups,
            Some(SlotState::Freed) => &mut retained.freed,
            Some(SlotState::Unused) => &mut retained.unused,
            Some(SlotState::Avail) => &mut retained.ready,
            Some(SlotState::Remote) => &mut retained.remote,
            Some(SlotState::Deferred) => &mut retained.deferred,
            Some(SlotState::Quarantine) => &mut retained.quarantine,
        };
        *bytes += stride;
        if slot.is_purged() {
            retained.purged += stride;
        }
    }
}

fn add_to_class(class: &mut Class, group: &Group) {
    class.class = group.class;
    class.stride = group.stride();
    class.groups += 1;
    class.slots += group.slots.len() as u64;
    for (index, slot) in group.slots.iter().enumerate() {
        if let Some(block) = group.block(index) {
            class.blocks += 1;
            class.live += block.bytes;
        } else if !slot.is_purged() {
            class.retained += class.stride;
        }
    }
}

fn add_to_heap(owner: &mut Owner, group: &Group) {
    let heap = &mut owner.heap;
    heap.group_bytes += group.bytes();
    if group.is_empty() {
        heap.empty_bytes += group.bytes();
    }
    for block in (0..group.slots.len()).filter_map(|index| group.block(index)) {
        heap.blocks += 1;
        heap.live += block.bytes;
    }
}

fn largest(groups: &[Group], extents: &[crate::look::view::Extent]) -> Vec<Block> {
    let live = extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Live);
    let mut blocks: Vec<Block> = live
        .map(|extent| Block {
            address: extent.base,
            bytes: extent.bytes,
        })
        .collect();
    let least = |blocks: &mut Vec<Block>| {
        blocks.sort_by_key(|block| (std::cmp::Reverse(block.bytes), block.address));
        blocks.truncate(LARGEST);
        blocks.get(LARGEST - 1).map_or(0, |block| block.bytes)
    };
    let mut floor = least(&mut blocks);
    for group in groups.iter().filter(|group| !group.is_empty()) {
        if group.stride() <= floor {
            continue;
        }
        blocks.extend((0..group.slots.len()).filter_map(|index| group.block(index)));
        floor = least(&mut blocks);
    }
    blocks
}

/// Tells heaps their threads. That of a thread which the allocator does not number, or which a fork
/// copied, is the first one's, if no other is.
fn name_threads(owners: &mut [Owner], threads: &[Thread]) {
    let mut first = threads.iter().find(|thread| thread.is_first);
    for owner in owners.iter_mut().filter(|owner| owner.is_active()) {
        let thread = threads.iter().find(|thread| thread.number == owner.thread);
        if let Some(thread) = thread {
            if thread.is_first {
                first = None;
            }
            tell(owner, thread);
        }
    }
    let unknown = |owner: &&mut Owner| owner.is_active() && owner.heap.thread.is_none();
    if let (Some(owner), Some(first)) = (owners.iter_mut().find(unknown), first) {
        tell(owner, first);
    }
}

fn tell(owner: &mut Owner, thread: &Thread) {
    owner.heap.thread = Some(thread.number);
    owner.heap.thread_name = Some(thread.name.clone()).filter(|name| !name.is_empty());
}

/// What the program's own `dump_heap` would print.
pub fn dump(snapshot: &Snapshot, walk: &Walk) -> String {
    let mut out = String::new();
    let preset = preset(snapshot.found.numbers.preset[0]);
    let heaps = walk.owners.len();
    let mut line = |line: Line| _ = writeln!(out, "{line}");
    line(Line::Head { preset, heaps });
    for owner in &walk.owners {
        let id = owner.heap.id;
        line(Line::Heap {
            id,
            life: byssal_heap::inspect::format::life(owner.life),
            idle: owner.heap.idle as usize,
        });
        let mut groups = [0; CLASSES];
        for group in walk.groups.iter().filter(|group| group.heap == id) {
            groups[group.class] += 1;
        }
        for (class, &groups) in groups.iter().enumerate().filter(|(_, &groups)| groups != 0) {
            let [slots, queued, empty] = owner.class_numbers(snapshot, class);
            line(Line::Class {
                heap: id,
                class,
                slots,
                groups,
                queued,
                empty,
            });
        }
    }
    let mut total = Total::default();
    for group in &walk.groups {
        total.groups += 1;
        dump_group(&mut out, group, &mut total);
    }
    let live = walk
        .extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Live);
    for extent in live {
        let (base, bytes) = (extent.base as usize, extent.bytes as usize);
        total.live_bytes += bytes;
        let line = if extent.is_run {
            total.runs += 1;
            let pages = extent.len as usize / RUN_PAGE;
            Line::Run { base, pages, bytes }
        } else {
            total.large += 1;
            let mapped = extent.len as usize;
            Line::Large {
                base,
                mapped,
                bytes,
            }
        };
        let _ = writeln!(out, "{line}");
    }
    let numbers = snapshot.found.numbers;
    let [_, used, dirty, closed, zero, ..] = numbers.memory.map(u64::from);
    let word = |place: u64| snapshot.word(snapshot.found.state + place).unwrap_or(0) as usize;
    total.live += word(zero);
    total.used = word(used)
        .saturating_sub(word(closed))
        .saturating_mul(RUN_PAGE);
    total.dirty = word(dirty).saturating_mul(RUN_PAGE);
    total.cached = word(u64::from(numbers.large[5]));
    let _ = writeln!(out, "{}", Line::Total(total));
    out
}

fn dump_group(out: &mut String, group: &Group, total: &mut Total) {
    let _ = write!(
        out,
        "{}",
        Line::Group {
            heap: group.heap,
            class: group.class,
            base: group.base as usize,
            bytes: group.bytes() as usize,
            state: byssal_heap::inspect::format::group_state(group.state),
        }
    );
    for (index, slot) in group.slots.iter().enumerate() {
        out.push(slot.state.map_or('?', SlotState::letter));
        if let Some(block) = group.block(index) {
            total.live += 1;
            total.live_bytes += block.bytes as usize;
        }
    }
    out.push('\n');
}
