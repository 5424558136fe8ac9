//! The fault that stopped a program: what the address is that it names, what lies beside it, and how
//! far the damage reaches.

use byssal_heap::base::config::CLASSES;
use byssal_heap::inspect::format::{self, Mark, SlotState};
use siphasher::sip::SipHasher13;

use crate::look::memory::Memory;
use crate::look::snapshot::Snapshot;
use crate::look::view::{Extent, ExtentKind, Fault, Group, View};

/// Names by number, as in `base/fault.rs`.
const NAMES: [&str; 6] = [
    "double free",
    "invalid pointer",
    "overflow",
    "write after free",
    "size mismatch",
    "corruption",
];

/// Bytes before a block that a guard stands in at most, see `layout/guard.rs`.
const FRONT: u64 = 64;
/// Bytes behind a large block that are guarded, without guards around slots and with them.
const LARGE: [u64; 2] = [16, 128];
/// Slots behind the first that are told of.
const MOST: usize = 32;

/// Reads what stands around blocks.
struct Reader<'a> {
    memory: &'a dyn Memory,
    snapshot: &'a Snapshot,
}

/// What was written beside a block, or over a free slot: addresses of the first byte and of the one
/// behind the last that are seen.
type Damage = Option<(u64, u64)>;

/// What is to be told of the fault, if there is one. The program must not run meanwhile.
pub fn describe(memory: &dyn Memory, snapshot: &Snapshot, view: &View) -> Option<Fault> {
    let [number, address] = snapshot.fault;
    if number == 0 {
        return None;
    }
    let name = usize::try_from(number - 1)
        .ok()
        .and_then(|index| NAMES.get(index));
    let mut fault = Fault {
        number,
        name: (*name.unwrap_or(&"unknown")).to_owned(),
        address,
        place: "in no memory of the heap".to_owned(),
        neighbours: Vec::new(),
        damage: None,
    };
    let reader = Reader { memory, snapshot };
    let inside = |base: u64, len: u64| address.wrapping_sub(base) < len;
    // A byte behind a block of whole pages is still told of with it.
    let extent = view
        .extents
        .iter()
        .find(|extent| inside(extent.base, extent.len + 1));
    if let Some(group) = view
        .groups
        .iter()
        .find(|group| inside(group.base, group.bytes()))
    {
        reader.tell_group(&mut fault, group);
    } else if let Some(extent) = extent {
        reader.tell_extent(&mut fault, extent);
    } else if let Some(chunk) = view
        .chunks
        .iter()
        .find(|chunk| inside(chunk.base, chunk.open))
    {
        let (at, base) = (address - chunk.base, chunk.base);
        let what = if at < chunk.data {
            "the records"
        } else {
            "free pages"
        };
        fault.place = format!("in {what} of the chunk at {base:#x}");
    }
    Some(fault)
}

impl Reader<'_> {
    fn tell_group(&self, fault: &mut Fault, group: &Group) {
        let index = ((fault.address - group.base) / group.stride()) as usize;
        let count = group.slots.len();
        if index >= count {
            fault.place = format!("behind the last slot of the group at {:#x}", group.base);
            return;
        }
        fault.place = format!(
            "in slot {index} of {count}, each of {} bytes, of the group at {:#x}: {}",
            group.stride(),
            group.base,
            place_in(group, index, fault.address)
        );
        let mut damage: Damage = None;
        let last = (index + MOST).min(count - 1);
        for at in index.saturating_sub(1)..=last {
            let here = self.damage(group, at);
            if at > index + 1 && here.is_none() {
                break;
            }
            fault.neighbours.push(self.tell_slot(group, at, here));
            if at >= index {
                if let Some((from, to)) = here {
                    damage = Some((damage.map_or(from, |(first, _)| first), to));
                }
            }
        }
        fault.damage = damage.map(|(from, to)| tell_damage(from, to));
    }

    fn tell_slot(&self, group: &Group, index: usize, damage: Damage) -> String {
        let state = match group.slots[index].state {
            None if damage.is_some() => "free, and out of use for its damage",
            None => "in an unclear state",
            Some(SlotState::Live) => "live",
            Some(SlotState::Freed) => "free",
            Some(SlotState::Remote) => "freed by another thread",
            Some(SlotState::Deferred) => "freed by a thread that has not sent it yet",
            Some(SlotState::Avail) => "free, at hand for malloc",
            Some(SlotState::Quarantine) => "freed, in quarantine",
            Some(SlotState::Unused) => "never used",
        };
        let block = group.block(index).map_or(String::new(), |block| {
            format!(", a block of {} bytes at {:#x}", block.bytes, block.address)
        });
        let damage = match damage {
            Some((from, to)) => format!(": damaged, {}", tell_damage(from, to)),
            None => ": no damage seen".to_owned(),
        };
        format!(
            "slot {index} at {:#x} is {state}{block}{damage}",
            group.slot(index)
        )
    }

    /// What was written where nothing is to be written in a slot, as far as it can be seen.
    fn damage(&self, group: &Group, index: usize) -> Damage {
        let (start, stride) = (group.slot(index), group.stride());
        let bytes = self.memory.bytes(start, stride as usize)?;
        let slot = group.slots[index];
        let numbers = self.snapshot.found.numbers;
        let is_live = slot.state == Some(SlotState::Live);
        let wrong = if numbers.preset[0] > 1 {
            if is_live {
                let (offset, length) = format::block(group.class, slot.record)?;
                self.guard_damage(&bytes, start, offset, length)
            } else {
                span(&bytes, |_, byte| byte == 0)
            }
        } else {
            let canary = self.canary(group.class);
            let is_masked = matches!(slot.state, Some(SlotState::Freed | SlotState::Unused));
            let mark = Mark::of(slot.record).filter(|_| is_masked);
            match mark {
                Some(Mark::Used) => tail_damage(&bytes, bytes.len() - 1, canary),
                Some(_) => None,
                None => {
                    let tail =
                        if let Some((offset, length)) = format::block(group.class, slot.record) {
                            bytes.len().checked_sub(offset + length)?
                        } else {
                            format::tail(group.class, slot.record)
                        };
                    tail_damage(&bytes, bytes.len().checked_sub(tail)?, canary)
                }
            }
        };
        wrong.map(|(from, to)| (start + from as u64, start + to as u64))
    }

    /// Bytes that are not the guard's around a block of a slot of these bytes.
    fn guard_damage(
        &self,
        bytes: &[u8],
        start: u64,
        offset: usize,
        length: usize,
    ) -> Option<(usize, usize)> {
        let word = self.guard(start);
        // A damaged record may tell of a place behind the slot.
        let offset = offset.min(bytes.len());
        let length = length.min(bytes.len() - offset);
        let (front, end) = (offset - offset.min(FRONT as usize), offset + length);
        let has_nul = bytes.len() - end > 1;
        span(bytes, |at, byte| {
            let guarded = (front..offset).contains(&at) || at >= end;
            !guarded
                || if at == end && has_nul {
                    byte == 0
                } else {
                    byte == word[at % 8]
                }
        })
    }

    /// The eight bytes that stand for an address, see `Secrets::guard`.
    fn guard(&self, address: u64) -> [u8; 8] {
        let at = self.snapshot.found.state + u64::from(self.snapshot.found.numbers.memory[6]);
        let key = [0, 8].map(|behind| self.snapshot.u64(at + behind).unwrap_or(0));
        let hash = SipHasher13::new_with_keys(key[0], key[1]).hash(&address.to_le_bytes());
        (hash | u64::from_ne_bytes([0x80; 8])).to_le_bytes()
    }

    /// The canary of a class, or, behind them, that of large blocks.
    fn canary(&self, class: usize) -> u8 {
        let at = self.snapshot.found.state + u64::from(self.snapshot.found.numbers.memory[5]);
        self.snapshot.u8(at + class as u64).unwrap_or(0)
    }

    fn tell_extent(&self, fault: &mut Fault, extent: &Extent) {
        let what = match extent.kind {
            ExtentKind::Live => "a large block",
            ExtentKind::Kept | ExtentKind::Refused => "the memory of a freed large block",
        };
        let (base, bytes) = (extent.base, extent.bytes);
        let at = fault.address - base;
        let place = if at < bytes {
            format!("{at} bytes into it")
        } else {
            format!("{} bytes behind its end", at - bytes)
        };
        fault.place = format!("{what} of {bytes} bytes at {base:#x}: {place}");
        let damage = Some(extent).filter(|extent| extent.kind == ExtentKind::Live);
        let damage = damage.and_then(|extent| self.extent_damage(extent));
        fault.damage = damage.map(|(from, to)| tell_damage(from, to));
    }

    fn extent_damage(&self, extent: &Extent) -> Damage {
        let has_guards = self.snapshot.found.numbers.preset[0] > 1;
        let guarded = LARGE[usize::from(has_guards)];
        let end = (extent.bytes + guarded).next_multiple_of(8).min(extent.len);
        let start = extent.base + extent.bytes;
        let bytes = self.memory.bytes(start, (end - extent.bytes) as usize)?;
        let word = if has_guards {
            self.guard(extent.base)
        } else {
            [self.canary(CLASSES); 8]
        };
        let first = extent.bytes as usize;
        let has_nul = bytes.len() > 1;
        let wrong = span(&bytes, |at, byte| {
            byte == if at == 0 && has_nul {
                0
            } else {
                word[(first + at) % 8]
            }
        });
        wrong.map(|(from, to)| (start + from as u64, start + to as u64))
    }
}

/// From the first byte that is not right to behind the last.
fn span(bytes: &[u8], is_right: impl Fn(usize, u8) -> bool) -> Option<(usize, usize)> {
    let wrong = |&at: &usize| !is_right(at, bytes[at]);
    let first = (0..bytes.len()).find(wrong)?;
    let last = (first..bytes.len()).rev().find(wrong)?;
    Some((first, last + 1))
}

/// What was written of a tail from `end` on that has a NUL first, if it is longer than a byte, and a
/// canary last; what stands between may be anything.
fn tail_damage(bytes: &[u8], end: usize, canary: u8) -> Option<(usize, usize)> {
    let last = bytes.len().checked_sub(1)?;
    span(bytes, |at, byte| {
        if at == last {
            byte == canary
        } else {
            at != end || byte == 0
        }
    })
}

/// Where in a slot an address is.
fn place_in(group: &Group, index: usize, address: u64) -> String {
    let Some(block) = group.block(index) else {
        return format!(
            "{} bytes into a slot that holds no block",
            address - group.slot(index)
        );
    };
    let (at, end) = (block.address, block.address + block.bytes);
    if address < at {
        format!(
            "{} bytes before its block of {} bytes",
            at - address,
            block.bytes
        )
    } else if address < end {
        format!(
            "{} bytes into its block of {} bytes",
            address - at,
            block.bytes
        )
    } else {
        let behind = address - end;
        format!(
            "{behind} bytes behind the end of its block of {} bytes",
            block.bytes
        )
    }
}

fn tell_damage(from: u64, to: u64) -> String {
    let last = to - 1;
    if from == last {
        format!("the byte at {from:#x} was written")
    } else {
        format!("bytes from {from:#x} to at least {last:#x} were written")
    }
}
