//! Sums over what a walk found.

use std::collections::BTreeMap;
use std::mem::take;

use byssal_heap::base::config::RUN_PAGE;
use byssal_heap::inspect::format::SlotState;

use crate::look::memory::{Thread, ADDRESS_BITS};
use crate::look::snapshot::Snapshot;
use crate::look::view::{Block, Class, ExtentKind, Group, Retained, Totals, View, FORMAT};
use crate::look::walk::{Owner, Walk};

/// Blocks that are told one by one.
const LARGEST: usize = 10;

/// Name of the preset: only one has guards.
pub fn preset(snapshot: &Snapshot) -> &'static str {
    let [guard, ..] = snapshot.found.numbers.preset;
    if guard > 1 {
        "hardened"
    } else {
        "default"
    }
}

/// What is seen. The heaps in `walk` learn their threads; groups, large blocks and chunks move to the
/// view.
pub fn of(snapshot: &Snapshot, walk: &mut Walk, threads: &[Thread]) -> View {
    let numbers = snapshot.found.numbers;
    let mut view = View {
        format: FORMAT,
        preset: preset(snapshot).to_owned(),
        word: numbers.word,
        problems: [&snapshot.problems, &walk.problems]
            .into_iter()
            .flat_map(|problems| problems.0.iter().cloned())
            .collect(),
        groups: take(&mut walk.groups),
        extents: take(&mut walk.extents),
        chunks: take(&mut walk.chunks),
        ..View::default()
    };
    let mut by_class: BTreeMap<usize, Class> = BTreeMap::new();
    let owners = &mut walk.owners;
    for group in &view.groups {
        add_group(&mut view.totals, &mut view.retained, group);
        let class = by_class.entry(group.class).or_default();
        add_to_class(class, group);
        let owner = usize::from(group.heap).wrapping_sub(1);
        if let Some(owner) = owners.get_mut(owner) {
            add_to_heap(owner, group);
        }
    }
    for extent in &view.extents {
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
    // A damaged number may tell of more than there are addresses, and is to be added to others.
    let fitting = |bytes: u64| bytes.min(1 << ADDRESS_BITS);
    let used = word(used).saturating_sub(word(closed));
    view.totals.used_pages = fitting(used.saturating_mul(page));
    view.totals.small_blocks += word(zero);
    view.totals.blocks = view.totals.small_blocks + view.totals.runs + view.totals.mappings;
    view.retained.pages = fitting(word(dirty).saturating_mul(page));
    let spans = owners.iter().map(|owner| owner.heap.idle_spans);
    view.retained.spans = fitting(spans.fold(0, u64::saturating_add));
    view.retained.metadata = snapshot.copied();
    view.largest = largest(&view.groups, &view.extents);
    name_threads(owners, threads);
    view.heaps = owners.iter().map(|owner| owner.heap.clone()).collect();
    view.classes = by_class.into_values().collect();
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
