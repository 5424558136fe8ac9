//! What the child of a fork does with the heaps of threads that stayed behind.

use super::*;

/// A process in whose heap 2 a thread worked that a fork did not take along. Some of its blocks
/// are given to `each`, the others it freed itself: their slots are in its rings and queues.
fn left_behind(each: impl Fn(usize) -> bool + Sync) -> (Boxed, Vec<Live>) {
    let process = Boxed::new(true);
    let first = process.malloc(1);
    let blocks = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            Mock::new_thread();
            let made: Vec<Live> = (0..4000)
                .map(|i| (i * 37) % 20_000)
                .map(|n| Live::new(process.malloc(n), n, n as u8))
                .collect();
            let mut given = Vec::new();
            for (index, block) in made.into_iter().enumerate() {
                if each(index) {
                    given.push(block);
                } else {
                    // SAFETY: live.
                    unsafe { process.free(block.at) };
                }
            }
            // No thread_exit: in the child it never comes to that.
            given
        });
        made.join().unwrap()
    });
    process.before_fork();
    // SAFETY: the only thread that does anything from here on; live.
    unsafe {
        process.after_fork_child();
        process.free(first);
    }
    (process, blocks)
}

/// Lines of the dump that tell of groups of heap 2.
fn groups_left(process: &Boxed) -> usize {
    let mut dump = String::new();
    process.dump(&mut dump).unwrap();
    dump.matches("\ngroup heap=2 ").count()
}

#[test]
fn a_dead_heap_s_groups_go_with_their_last_blocks() {
    let (process, blocks) = left_behind(|index| index % 3 == 0);
    let before = process.verify();
    assert_eq!(before.live, blocks.len());
    for block in &blocks {
        block.verify();
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
    }
    let after = process.verify();
    assert_eq!(after.live, 0);
    assert_eq!(groups_left(&process), 0);
    assert!(after.used_bytes < before.used_bytes / 8, "{after:?}");
}

#[test]
fn a_dead_heap_s_empty_groups_go_before_another_chunk_comes() {
    let (process, blocks) = left_behind(|_| false);
    assert!(blocks.is_empty() && groups_left(&process) > 0);
    // More than the chunks hold that the thread left.
    let live: Vec<_> = (0..2000).map(|_| process.malloc(50_000)).collect();
    assert_eq!(groups_left(&process), 0);
    for block in live {
        assert!(!block.is_null());
        // SAFETY: live.
        unsafe { process.free(block) };
    }
    assert_eq!(process.verify().live, 0);
}

#[test]
fn double_frees_into_a_dead_heap_are_found() {
    let (process, blocks) = left_behind(|_| true);
    for block in &blocks {
        // SAFETY: live, its thread is not here.
        unsafe { process.free(block.at) };
        assert!(
            // SAFETY: the misuse under test.
            faults("", || unsafe { process.free(block.at) }),
            "double free of {} bytes",
            block.n
        );
    }
    assert_eq!(process.verify().live, 0);
}

/// Threads of the child free what the parent's threads made.
#[test]
fn threads_of_the_child_free_into_dead_heaps() {
    let (process, blocks) = left_behind(|_| true);
    std::thread::scope(|scope| {
        for part in blocks.chunks(1000) {
            let process = &process;
            scope.spawn(move || {
                Mock::new_thread();
                for block in part {
                    block.verify();
                    // SAFETY: live, handed over.
                    unsafe { process.free(block.at) };
                    let own = Live::new(process.malloc(block.n), block.n, 3);
                    own.verify();
                    // SAFETY: live.
                    unsafe { process.free(own.at) };
                }
                process.thread_exit();
            });
        }
    });
    assert_eq!(process.verify().live, 0);
}
