//! A map of a heap as a picture: addresses from left to right and from top to bottom, a colour for
//! each size class, pale where slots are free and white where pages went back.

use std::collections::BTreeMap;
use std::fmt::Write;

use byssal_heap::base::config::{CLASSES, RUN_PAGE};
use svg::node::element::{Group as Node, Path, Rectangle, Text, Title};
use svg::Document;

use crate::look::report::bytes;
use crate::look::view::{Chunk, ExtentKind, Group, View};

/// Pixels of the picture.
const WIDTH: u64 = 1200;
/// Left of a row stands its address.
const LEFT: u64 = 120;
/// Pixels of a row, so many of the program's bytes each.
const ROW: u64 = 1024;
const HEIGHT: u64 = 14;
const GAP: u64 = 4;
/// Rows that chunks take at most, by taking more bytes for a pixel.
const MOST_ROWS: u64 = 48;
/// Bars of mappings at most; those that are shorter share one.
const MOST_BARS: usize = 24;

/// What bytes are to the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No memory, or nothing that is told.
    None,
    /// The allocator's state.
    Metadata,
    /// Live blocks in slots of a class.
    Live(usize),
    /// Free slots of a class.
    Free(usize),
    /// Pages in use that no slot and no large block has: the rest of spans, heaps and tables.
    Rest,
    /// Free slots whose pages went back.
    Purged,
    /// Large blocks.
    Run,
    /// Free pages that hold memory.
    Dirty,
    /// Free pages of zeros.
    Clean,
}

/// How many bytes of each kind lie in a pixel: the one with most paints it.
struct Raster {
    pixel: u64,
    kinds: Vec<Vec<(Kind, u64)>>,
}

impl Raster {
    fn new(len: u64, pixel: u64) -> Self {
        Raster {
            pixel,
            kinds: vec![Vec::new(); len.div_ceil(pixel) as usize],
        }
    }

    /// Paints bytes that are painted as the rest over.
    fn paint_over(&mut self, at: u64, len: u64, kind: Kind) {
        self.paint(at, len, kind);
        let end = self.end(at, len);
        for pixel in at / self.pixel..end.div_ceil(self.pixel) {
            let part = ((pixel + 1) * self.pixel).min(end) - (pixel * self.pixel).max(at);
            let kinds = self.kinds.get_mut(pixel as usize).into_iter().flatten();
            for (_, sum) in kinds.filter(|(here, _)| *here == Kind::Rest) {
                *sum = sum.saturating_sub(part);
            }
        }
    }

    /// Where that many bytes from `at` on end, or where the picture does: a damaged length may be any.
    fn end(&self, at: u64, len: u64) -> u64 {
        (at + len).min(self.kinds.len() as u64 * self.pixel)
    }

    /// Paints the bytes from `at` on.
    fn paint(&mut self, mut at: u64, len: u64, kind: Kind) {
        let end = self.end(at, len);
        while at < end {
            let pixel = at / self.pixel;
            let part = ((pixel + 1) * self.pixel).min(end) - at;
            let kinds = &mut self.kinds[pixel as usize];
            match kinds.iter_mut().find(|(here, _)| *here == kind) {
                Some((_, sum)) => *sum += part,
                None => kinds.push((kind, part)),
            }
            at += part;
        }
    }

    /// The kind that paints a pixel.
    fn kind(&self, pixel: usize) -> Kind {
        let most = self.kinds[pixel].iter().max_by_key(|(_, sum)| *sum);
        most.map_or(Kind::None, |(kind, _)| *kind)
    }
}

/// A colour: classes go round the circle of hues, small slots blue, large ones red.
fn colour(kind: Kind) -> String {
    let hue = |class: usize| 240 - class * 240 / (CLASSES - 1);
    match kind {
        Kind::None => "none".to_owned(),
        Kind::Metadata => "#555".to_owned(),
        Kind::Live(class) => format!("hsl({},70%,45%)", hue(class)),
        Kind::Free(class) => format!("hsl({},60%,82%)", hue(class)),
        Kind::Rest => "#b9c0cf".to_owned(),
        Kind::Purged => "#fff".to_owned(),
        Kind::Run => "#7b3f9e".to_owned(),
        Kind::Dirty => "#d8d2c4".to_owned(),
        Kind::Clean => "#f3f1ec".to_owned(),
    }
}

/// Bytes of a chunk that have memory, cells and data together.
fn extent_of(chunk: &Chunk) -> u64 {
    chunk.open.max(chunk.cells)
}

/// The picture.
pub fn svg(view: &View) -> String {
    let lengths: u64 = view.chunks.iter().map(extent_of).sum();
    let mut pixel = 256;
    while lengths / (pixel * ROW) + view.chunks.len().min(MOST_ROWS as usize) as u64 / 2 > MOST_ROWS
    {
        pixel *= 2;
    }
    let mut node = Node::new();
    let mut y = 56;
    node = node.add(head(view));
    let mut last = None;
    let mut skipped = 0;
    let mut rows = 0;
    let mut groups = vec![&[][..]; view.chunks.len()];
    for same in view.groups.chunk_by(|one, next| one.chunk == next.chunk) {
        groups[same[0].chunk] = same;
    }
    for (chunk, groups) in view.chunks.iter().zip(groups) {
        let raster = raster(view, chunk, groups, pixel);
        for first in (0..raster.kinds.len()).step_by(ROW as usize) {
            rows += 1;
            if rows > 2 * MOST_ROWS {
                skipped += 1;
                continue;
            }
            let address = chunk.base + first as u64 * pixel;
            let is_new = last != Some(chunk.base);
            last = Some(chunk.base);
            node = node.add(row(&raster, first, address, y, is_new));
            y += HEIGHT + GAP;
        }
    }
    if skipped > 0 {
        node = node.add(label(
            LEFT,
            y + 10,
            &format!("{skipped} more rows are not shown"),
        ));
        y += HEIGHT + GAP;
    }
    let (mappings, end) = mappings(view, y + 20);
    let (legend, end) = legend(view, end + 24, pixel);
    let size = (WIDTH, end + 12);
    let document = Document::new()
        .set("viewBox", (0, 0, size.0, size.1))
        .set("width", size.0)
        .set("height", size.1)
        .set("font-family", "sans-serif")
        .set("font-size", 11)
        .add(
            Rectangle::new()
                .set("width", size.0)
                .set("height", size.1)
                .set("fill", "#fff"),
        )
        .add(node)
        .add(mappings)
        .add(legend);
    format!("{document}\n")
}

fn label(x: u64, y: u64, text: &str) -> Text {
    Text::new(text).set("x", x).set("y", y)
}

fn head(view: &View) -> Node {
    let totals = &view.totals;
    let text = format!(
        "live {} in {} blocks, retained {}, slack {}, metadata {}",
        bytes(totals.live),
        totals.blocks,
        bytes(view.retained.sum()),
        bytes(view.retained.slack),
        bytes(view.retained.metadata)
    );
    let name = label(12, 22, &format!("{}, preset {}", view.program, view.preset));
    Node::new()
        .add(name.set("font-size", 16))
        .add(label(12, 42, &text))
}

/// What a chunk holds, with its groups.
fn raster(view: &View, chunk: &Chunk, groups: &[Group], pixel: u64) -> Raster {
    let mut raster = Raster::new(extent_of(chunk), pixel);
    raster.paint(0, chunk.cells.min(chunk.data), Kind::Metadata);
    let page = RUN_PAGE as u64;
    for number in chunk.data / page..chunk.open / page {
        let is_set = |bits: &[u64]| {
            bits.get(number as usize / 64)
                .is_some_and(|w| w >> (number % 64) & 1 != 0)
        };
        let kind = if is_set(&chunk.used) {
            Kind::Rest
        } else if is_set(&chunk.dirty) {
            Kind::Dirty
        } else {
            Kind::Clean
        };
        raster.paint(number * page, page, kind);
    }
    let end = chunk.base + extent_of(chunk);
    let inside = |at: u64| (chunk.base..end).contains(&at);
    for group in groups {
        for (index, slot) in group.slots.iter().enumerate() {
            let kind = if group.block(index).is_some() {
                Kind::Live(group.class)
            } else if slot.is_purged() {
                Kind::Purged
            } else {
                Kind::Free(group.class)
            };
            raster.paint_over(group.slot(index) - chunk.base, group.stride(), kind);
        }
    }
    for extent in view
        .extents
        .iter()
        .filter(|extent| extent.is_run && inside(extent.base))
    {
        raster.paint_over(extent.base - chunk.base, extent.len, Kind::Run);
    }
    raster
}

/// A row of pixels, those of one kind in a row as one rectangle.
fn row(raster: &Raster, first: usize, address: u64, y: u64, is_new: bool) -> Node {
    let end = raster.kinds.len().min(first + ROW as usize);
    let mut node = Node::new();
    let mut text = label(12, y + 11, &format!("{address:#x}"));
    if !is_new {
        text = text.set("fill", "#999");
    }
    node = node.add(text);
    let frame = Rectangle::new()
        .set("x", LEFT)
        .set("y", y)
        .set("width", (end - first) as u64)
        .set("height", HEIGHT)
        .set("fill", "#fff")
        .set("stroke", "#bbb")
        .set("stroke-width", "0.5");
    node = node.add(frame);
    // A path for each colour: a rectangle for each piece would be four times as long.
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    let mut at = first;
    while at < end {
        let kind = raster.kind(at);
        let stop = (at..end)
            .find(|&pixel| raster.kind(pixel) != kind)
            .unwrap_or(end);
        if !matches!(kind, Kind::None | Kind::Purged) {
            let (x, width) = (LEFT + (at - first) as u64, stop - at);
            let path = paths.entry(colour(kind)).or_default();
            let _ = write!(path, "M{x} {y}h{width}v{HEIGHT}h-{width}z");
        }
        at = stop;
    }
    for (fill, path) in paths {
        node = node.add(Path::new().set("fill", fill).set("d", path));
    }
    node
}

/// Bars of large blocks in mappings, by address; where the next thing may stand.
fn mappings(view: &View, mut y: u64) -> (Node, u64) {
    let mut node = Node::new();
    let mut extents: Vec<_> = view
        .extents
        .iter()
        .filter(|extent| !extent.is_run)
        .collect();
    if extents.is_empty() {
        return (node, y);
    }
    let sum: u64 = extents.iter().map(|extent| extent.len).sum();
    let count = extents.len();
    extents.sort_by_key(|extent| std::cmp::Reverse(extent.len));
    let longest = extents[0].len;
    extents.truncate(MOST_BARS);
    extents.sort_by_key(|extent| extent.base);
    let shown = extents.len();
    let what = if shown == count {
        format!(
            "{count} mappings of large blocks, live or freed, {}",
            bytes(sum)
        )
    } else {
        format!(
            "the {shown} longest of {count} mappings of large blocks, live or freed, {} in all",
            bytes(sum)
        )
    };
    node = node.add(label(12, y, &what));
    y += 8;
    for extent in extents {
        let width = (extent.len as u128 * u128::from(ROW) / u128::from(longest)).max(2) as u64;
        let bar = Rectangle::new()
            .set("x", LEFT)
            .set("y", y)
            .set("width", width)
            .set("height", HEIGHT)
            .set(
                "fill",
                if extent.kind == ExtentKind::Live {
                    colour(Kind::Run)
                } else {
                    colour(Kind::Dirty)
                },
            )
            .add(Title::new(format!(
                "{} at {:#x}",
                bytes(extent.bytes),
                extent.base
            )));
        node = node
            .add(label(12, y + 11, &format!("{:#x}", extent.base)))
            .add(bar);
        y += HEIGHT + GAP;
    }
    (node, y)
}

/// What the colours mean; where the picture ends.
fn legend(view: &View, mut y: u64, pixel: u64) -> (Node, u64) {
    const COLUMN: u64 = 197;
    let mut items = vec![
        (Kind::Metadata, "records".to_owned()),
        (Kind::Run, "large blocks".to_owned()),
        (Kind::Dirty, "free pages, freed mappings".to_owned()),
        (Kind::Clean, "free pages of zeros".to_owned()),
        (Kind::Rest, "rest of spans, heaps".to_owned()),
        (Kind::Purged, "pages given back".to_owned()),
    ];
    for class in &view.classes {
        let text = format!("{} B slots, {} live", class.stride, bytes(class.live));
        items.push((Kind::Live(class.class), text));
    }
    let mut node = Node::new().add(label(
        12,
        y,
        &format!(
            "A pixel is {} of addresses and has the colour of what most of it is. Live slots are dark, \
             free ones pale.",
            bytes(pixel)
        ),
    ));
    y += 10;
    let columns = (WIDTH - 12) / COLUMN;
    for (index, (kind, text)) in items.iter().enumerate() {
        let (x, y) = (
            12 + index as u64 % columns * COLUMN,
            y + index as u64 / columns * 18,
        );
        let mut square = |x: u64, fill: String| {
            let square = Rectangle::new()
                .set("x", x)
                .set("y", y)
                .set("width", 9)
                .set("height", 11)
                .set("fill", fill)
                .set("stroke", "#bbb")
                .set("stroke-width", "0.5");
            node = std::mem::take(&mut node).add(square);
        };
        square(x, colour(*kind));
        if let Kind::Live(class) = kind {
            square(x + 9, colour(Kind::Free(*class)));
        }
        node = node.add(label(x + 22, y + 10, text));
    }
    (node, y + (items.len() as u64).div_ceil(columns) * 18)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::view::{Extent, ExtentKind};

    #[test]
    fn a_run_of_a_damaged_length_ends_with_its_chunk() {
        let chunk = Chunk {
            base: 1 << 22,
            cells: 0x2000,
            data: 0x2000,
            open: 0x8000,
            used: vec![u64::MAX],
            dirty: vec![0],
        };
        let run = Extent {
            base: (1 << 22) + 0x4000,
            len: 1 << 51,
            bytes: 1 << 51,
            is_run: true,
            kind: ExtentKind::Live,
        };
        let view = View {
            chunks: vec![chunk.clone()],
            extents: vec![run],
            ..View::default()
        };
        let raster = raster(&view, &chunk, &[], 0x1000);
        let kinds: Vec<Kind> = (0..raster.kinds.len()).map(|at| raster.kind(at)).collect();
        let [records, rest, large] = [Kind::Metadata, Kind::Rest, Kind::Run];
        assert_eq!(
            kinds,
            [records, records, rest, rest, large, large, large, large]
        );
        assert!(svg(&view).contains("svg"));
    }
}
