//! byssal in a shared object that this program, which has another allocator, loads and closes while
//! one of its threads has a heap there.

use std::env;
use std::ffi::{c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Barrier;
use std::thread;

/// The last message of the dynamic linker.
fn message() -> String {
    // SAFETY: null or a text.
    unsafe {
        let text = libc::dlerror();
        assert!(!text.is_null());
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

#[test]
fn a_plug_in_stays_while_its_threads_end() {
    // cargo builds examples beside its tests: target/debug/deps and target/debug/examples.
    let test = env::current_exe().unwrap();
    let built = test.parent().and_then(|deps| deps.parent()).unwrap();
    let file = built.join("examples/libplugin.so");
    if !file.exists() {
        println!("skipped: cargo made no {}", file.display());
        return;
    }
    let name = CString::new(file.as_os_str().as_bytes()).unwrap();
    // SAFETY: the plug-in's constructors are the allocator's.
    let plugin = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!plugin.is_null(), "{}", message());
    let (used, closed) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        // SAFETY: only looks for the name.
        let sum = unsafe { libc::dlsym(plugin, c"plugin_sum".as_ptr()) };
        assert!(!sum.is_null(), "{}", message());
        // SAFETY: the function has this type.
        let sum = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(u64) -> u64>(sum) };
        let (used, closed) = (&used, &closed);
        scope.spawn(move || {
            assert_eq!(sum(10_000), 49_995_000);
            used.wait();
            closed.wait();
            // At its end the heap is handed over, by a function of the plug-in.
        });
        used.wait();
        // SAFETY: nothing of the plug-in is called from here on, but by itself.
        assert_eq!(unsafe { libc::dlclose(plugin) }, 0);
        closed.wait();
    });
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains("libplugin.so"), "the plug-in was unloaded");
}
