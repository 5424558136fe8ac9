//! Threads that come and go for as long as one likes.

use super::*;
use crate::base::random::next_random;

/// STRESS_SECONDS of threads that come and go, hand blocks around, and meet failures.
#[test]
#[ignore]
fn stress() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let seconds: u64 = std::env::var("STRESS_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(30);
    let fail = std::env::var("STRESS_FAIL").is_ok();
    let begin = std::time::Instant::now();
    let mut round = seeded(0);
    while begin.elapsed().as_secs() < seconds {
        round += 1;
        let process = Boxed::new(round % 2 == 0);
        let shelf: Vec<std::sync::Mutex<Option<Live>>> =
            (0..400).map(|_| Default::default()).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if fail {
                let (process, done) = (&process, &done);
                scope.spawn(move || {
                    let seed = Cell::new(round);
                    while !done.load(Ordering::Relaxed) {
                        let r = next_random(&seed);
                        process
                            .platform()
                            .fail_once
                            .store(r & 1 == 0, Ordering::Relaxed);
                        process
                            .platform()
                            .calls_left
                            .store((r >> 8) as usize % 20, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_micros(200 + (r >> 20) % 400));
                        process
                            .platform()
                            .calls_left
                            .store(usize::MAX, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_micros((r >> 40) % 1000));
                    }
                    process
                        .platform()
                        .calls_left
                        .store(usize::MAX, Ordering::Relaxed);
                });
            }
            let workers: Vec<_> = (0..4u64)
                .map(|thread| {
                    let (process, shelf) = (&process, &shelf);
                    scope.spawn(move || {
                        let seed = Cell::new(round * 1000 + thread);
                        for life in 0..6u64 {
                            Mock::new_thread();
                            let mut own: Vec<Live> = Vec::new();
                            let bound = [64, 700, 3000, 140_000][(next_random(&seed) % 4) as usize];
                            for step in 0..4000u64 {
                                let r = next_random(&seed);
                                let n =
                                    (r as usize >> 3) % if r & 7 == 0 { 200_000 } else { bound };
                                let pick = (r >> 32) as usize;
                                match (r >> 24) % 16 {
                                    0..=4 => {
                                        let at = match (r >> 50) % 16 {
                                            0 => {
                                                process.aligned_alloc(1 << (5 + (r >> 54) % 10), n)
                                            }
                                            1 | 2 => {
                                                let at = process.malloc(n);
                                                if !at.is_null() && process.is_zero(at) {
                                                    // SAFETY: live.
                                                    let bytes = unsafe {
                                                        std::slice::from_raw_parts(at, n)
                                                    };
                                                    assert!(bytes.iter().all(|&b| b == 0), "zero");
                                                }
                                                at
                                            }
                                            _ => process.malloc(n),
                                        };
                                        if !at.is_null() {
                                            own.push(Live::new(at, n, step as u8));
                                        }
                                    }
                                    5..=8 if !own.is_empty() => {
                                        let b = own.swap_remove(pick % own.len());
                                        b.verify();
                                        // SAFETY: live.
                                        unsafe { process.free(b.at) };
                                    }
                                    9..=13 if !own.is_empty() => {
                                        let b = own.swap_remove(pick % own.len());
                                        let place = &shelf[(r >> 40) as usize % shelf.len()];
                                        let old = place.lock().unwrap().replace(b);
                                        if let Some(b) = old {
                                            b.verify();
                                            // SAFETY: ours now.
                                            unsafe { process.free(b.at) };
                                        }
                                    }
                                    14 => {
                                        let taken =
                                            shelf[pick % shelf.len()].lock().unwrap().take();
                                        own.extend(taken);
                                    }
                                    15 if !own.is_empty() => {
                                        let which = pick % own.len();
                                        let old = own[which];
                                        // SAFETY: live.
                                        let at = unsafe { process.realloc(old.at, n) };
                                        if at.is_null() {
                                            old.verify();
                                        } else {
                                            Live { at, ..old }.verify_first(old.n.min(n));
                                            own[which] = Live::new(at, n, step as u8);
                                        }
                                    }
                                    _ => {}
                                }
                                if r >> 52 == 0 && !process.mine().is_empty() {
                                    process.mine().trim();
                                }
                            }
                            if life % 2 == 0 {
                                for b in own.drain(..) {
                                    b.verify();
                                    // SAFETY: live.
                                    unsafe { process.free(b.at) };
                                }
                                process.thread_exit();
                            } else {
                                process.thread_exit();
                                for b in own.drain(..) {
                                    b.verify();
                                    // SAFETY: live.
                                    unsafe { process.free(b.at) };
                                }
                                // It may have got another heap to defer them in.
                                process.thread_exit();
                            }
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
            // First, as the thread that fails calls ends with it.
            done.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        process.verify();
        for place in &shelf {
            if let Some(b) = place.lock().unwrap().take() {
                b.verify();
                // SAFETY: live.
                unsafe { process.free(b.at) };
            }
        }
        let end = process.verify();
        assert_eq!(
            (end.live, end.live_bytes, end.runs, end.large),
            (0, 0, 0, 0)
        );
        assert!(end.heaps <= 6, "{end:?}");
        // At rest no heap keeps an empty group.
        process.thread_exit();
        process.mine().trim();
        let end = process.verify();
        assert!(end.used_bytes == 0, "{end:?}");
    }
    eprintln!("rounds: {}", round - seeded(0));
}
