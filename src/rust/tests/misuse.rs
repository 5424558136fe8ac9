//! Each misuse in a process of its own, which stops by the named fault.

use std::alloc::{dealloc, realloc, Layout};
use std::env;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command};

#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A block that the compiler does not see through: it may leave out pairs of alloc and dealloc, and
/// what is written to a block right before its dealloc.
///
/// # Safety
/// As for `std::alloc::alloc`.
unsafe fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's.
    black_box(unsafe { std::alloc::alloc(layout) })
}

/// What the child does. None ends with an orderly exit, unless the misuse goes undetected.
const MISUSES: [(&str, &str, fn()); 15] = [
    ("double_free", "fault 1: double free", || {
        let layout = layout(100, 8);
        // SAFETY: the misuse under test, here and below.
        unsafe {
            let block = alloc(layout);
            dealloc(block, layout);
            dealloc(block, layout);
        }
    }),
    (
        "double_free_of_another_thread",
        "fault 1: double free",
        || {
            let layout = layout(100, 8);
            // SAFETY: see above.
            unsafe {
                let block = alloc(layout).expose_provenance();
                let free = move || dealloc(std::ptr::with_exposed_provenance_mut(block), layout);
                std::thread::spawn(free).join().unwrap();
                free();
            }
        },
    ),
    (
        "double_free_of_a_large_block",
        "fault 1: double free",
        || {
            let layout = layout(300_000, 8);
            // SAFETY: see above.
            unsafe {
                let block = alloc(layout);
                dealloc(block, layout);
                dealloc(block, layout);
            }
        },
    ),
    ("resize_of_a_freed_block", "fault 1: double free", || {
        let layout = layout(100, 8);
        // SAFETY: see above.
        unsafe {
            let block = alloc(layout);
            dealloc(block, layout);
            let _ = realloc(block, layout, 110);
        }
    }),
    ("move_of_a_freed_block", "fault 1: double free", || {
        let layout = layout(100, 8);
        // SAFETY: see above.
        unsafe {
            let block = alloc(layout);
            dealloc(block, layout);
            let _ = realloc(block, layout, 200);
        }
    }),
    ("move_of_the_stack", "fault 2: invalid pointer", || {
        let mut local = [0u64; 8];
        // SAFETY: see above.
        let _ = unsafe { realloc(local.as_mut_ptr().cast(), layout(64, 8), 200) };
    }),
    ("interior_pointer", "fault 2: invalid pointer", || {
        let layout = layout(100, 8);
        // SAFETY: see above.
        unsafe { dealloc(alloc(layout).add(16), layout) }
    }),
    ("pointer_to_the_stack", "fault 2: invalid pointer", || {
        let mut local = [0u64; 8];
        // SAFETY: see above.
        unsafe { dealloc(local.as_mut_ptr().cast(), layout(64, 8)) }
    }),
    ("overflow", "fault 3: overflow", || {
        let layout = layout(100, 8);
        // SAFETY: see above.
        unsafe {
            let block = alloc(layout);
            // To the slot's end, whatever the place in it.
            (100..104).for_each(|at| block.add(at).write_volatile(0x41));
            dealloc(block, layout);
        }
        process::exit(0);
    }),
    ("size_too_small", "fault 5: size mismatch", || {
        // SAFETY: see above.
        unsafe { dealloc(alloc(layout(100, 8)), layout(50, 8)) }
    }),
    ("size_too_large", "fault 5: size mismatch", || {
        // SAFETY: see above.
        unsafe { dealloc(alloc(layout(100, 8)), layout(101, 8)) }
    }),
    (
        "size_of_a_block_that_moves",
        "fault 5: size mismatch",
        || {
            // SAFETY: see above.
            let _ = unsafe { realloc(alloc(layout(100, 8)), layout(99, 8), 200) };
        },
    ),
    ("size_of_a_wide_class", "fault 5: size mismatch", || {
        // SAFETY: see above.
        unsafe { dealloc(alloc(layout(5000, 8)), layout(4000, 8)) }
    }),
    ("size_of_a_large_block", "fault 5: size mismatch", || {
        // SAFETY: see above.
        unsafe { dealloc(alloc(layout(300_000, 8)), layout(300_001, 8)) }
    }),
    ("alignment", "fault 5: size mismatch", || {
        // SAFETY: see above.
        unsafe {
            let blocks: Vec<*mut u8> = (0..9).map(|_| alloc(layout(100, 8))).collect();
            let odd = blocks.iter().find(|block| block.addr() % 128 != 0);
            dealloc(*odd.unwrap(), layout(100, 128));
        }
    }),
];

/// What `hardened` finds besides.
const HARDENED: [(&str, &str, fn()); 2] = [
    ("write_after_free", "fault 4: write after free", || {
        let layout = layout(100, 8);
        // SAFETY: see above.
        unsafe {
            let block = alloc(layout);
            dealloc(block, layout);
            block.add(50).write_volatile(1);
            // Until its slot's turn comes.
            (0..100_000).for_each(|_| dealloc(alloc(layout), layout));
        }
    }),
    ("write_before_a_block", "fault 3: overflow", || {
        let layout = layout(100, 8);
        // SAFETY: see above. A slot has 8 bytes of guard, before or behind a block.
        unsafe {
            let block = alloc(layout);
            for distance in [-1, 100] {
                let byte = block.offset(distance);
                byte.write_volatile(!byte.read());
            }
            dealloc(block, layout);
        }
    }),
];

/// Those of this build.
fn misuses() -> impl Iterator<Item = (&'static str, &'static str, fn())> {
    let hardened: &[_] = if cfg!(feature = "hardened") {
        &HARDENED
    } else {
        &[]
    };
    MISUSES.iter().chain(hardened).copied()
}

/// Which of them, in the child.
const WHICH: &str = "BYSSAL_MISUSE";

/// In the child alone: does what it is told.
#[test]
fn child() {
    let Ok(which) = env::var(WHICH) else { return };
    let misuse = misuses().find(|(name, ..)| *name == which);
    // Live blocks beside the one that is misused: with a group's last block the group may go, and
    // with it what tells a double free from an invalid pointer.
    let neighbours: Vec<Box<[u8; 100]>> = (0..40).map(|_| Box::new([1; 100])).collect();
    misuse.unwrap().2();
    drop(neighbours);
    process::exit(0);
}

#[test]
fn each_misuse_stops_the_process() {
    for (name, fault, _) in misuses() {
        if byssal::is_libcs() && fault.contains("size") {
            println!("skipped: {name}: musl's free does not know the size");
            continue;
        }
        let mut program = Command::new(env::current_exe().unwrap());
        program.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        let output = program.env(WHICH, name).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.signal().is_some(),
            "{name}: {:?} {told}",
            output.status
        );
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        assert_eq!(output.status.signal(), Some(libc::SIGILL), "{name}: {told}");
        // Inside libc nothing is printed.
        if !byssal::is_libcs() {
            assert!(told.contains(fault), "{name}: {told}");
        }
    }
}
