//! A walk over all groups.

use crate::base::config::{CLASSES, GRANULE};
use crate::base::platform::Platform;
use crate::layout::group::Group;
use crate::pages::memory::Locked;

/// Calls `each` for every group of a size class that a map leads to, once.
pub fn each_group<P: Platform, E>(
    locked: &Locked<'_, P>,
    mut each: impl FnMut(&'static Group) -> Result<(), E>,
) -> Result<(), E> {
    for chunk in locked.pages.each_chunk() {
        let header = locked.pages.header(chunk);
        let data = header.data.get() as usize / GRANULE..header.open.get() as usize / GRANULE;
        let mut last = 0;
        for granule in data {
            let number = chunk.cell_at(granule);
            if number != 0 && number != last && chunk.cell(number).class() < CLASSES {
                each(chunk.cell(number))?;
            }
            last = number;
        }
    }
    Ok(())
}
