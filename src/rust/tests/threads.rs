//! Threads come and go, and the memory of their heaps does not grow. One test alone, as it looks at
//! the memory of the process.

use std::cell::RefCell;
use std::fs;
use std::sync::mpsc::channel;
use std::thread;

#[global_allocator]
static GLOBAL: byssal::Byssal = byssal::Byssal;

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

thread_local! {
    /// Dropped among the last things that a thread does.
    static LAST: RefCell<Late> = const { RefCell::new(Late(Vec::new())) };
}

/// Still allocates when it is dropped.
struct Late(Vec<u8>);

impl Drop for Late {
    fn drop(&mut self) {
        let more: Vec<String> = (0..20)
            .map(|n| "late".repeat(n + self.0.len() % 7))
            .collect();
        assert_eq!(more[19].len() % 4, 0);
    }
}

#[test]
fn ten_thousand_threads_come_and_go() {
    const AT_ONCE: usize = 8;
    let (send, receive) = channel::<Vec<Box<[u8]>>>();
    let mut begin = 0;
    for round in 0..10_000 / AT_ONCE {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let send = send.clone();
                thread::spawn(move || {
                    LAST.with_borrow_mut(|late| late.0.extend_from_slice(&[1; 300]));
                    let sizes = (0..200).map(|n| 1 + (n * 37 + number * 11) % 3000);
                    let blocks: Vec<Box<[u8]>> = sizes.map(|n| vec![7; n].into()).collect();
                    // Half of them outlive the thread.
                    let (gone, left): (Vec<_>, Vec<_>) =
                        blocks.into_iter().partition(|block| block.len() % 2 == 0);
                    drop(gone);
                    send.send(left).unwrap();
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        for blocks in receive.try_iter() {
            assert!(blocks.iter().all(|block| block[..] == vec![7; block.len()]));
        }
        if round == 100 {
            begin = resident();
        }
    }
    let end = resident();
    // A heap for each thread would be 8 KiB and more, 70 MiB in all.
    assert!(end < begin + (8 << 20), "grew from {begin} to {end} bytes");
}
