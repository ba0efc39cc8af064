//! The process's allocator. A server allocates large buffers on many threads (snapshots, training) and then idles for long: mimalloc
//! gives such memory back, where the C library keeps an arena for each thread.
#![allow(unsafe_code)] // the one module that may: mimalloc's options have no safe interface

use libmimalloc_sys::{mi_option_set, mi_option_t, mi_option_use_numa_nodes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the crate does not name: in the pinned version's `mimalloc.h` it stands right before this one.
const PURGE_DELAY: mi_option_t = mi_option_use_numa_nodes - 1;

/// Lets freed memory go back to the system at once rather than after 10 ms: replaying a year this lowered the peak by about a
/// fifth at no cost in time. `MIMALLOC_PURGE_DELAY` in the environment has the last word. To be called before any thread starts.
pub fn give_memory_back() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
        return;
    }
    // SAFETY: the option exists in the pinned version (see above), and no other thread runs yet that could read it meanwhile.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}
