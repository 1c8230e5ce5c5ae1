//! What the process asks of its allocators, so that memory that a burst took is given back when it is over.
//!
//! Measured with a million hostile frames (`tests/hostile/storm.rs`): 8.4 MB are in use all the time. With transparent
//! huge pages the process held 42 to 47 MB of memory, without them 20 to 25, and with what is here 15 to 17.

/// Blocks of C libraries (zstd's states) from this size on are mapped for themselves and unmapped when they are freed.
/// Left alone, the C library raises its threshold to the largest block it ever frees, and keeps those after it.
const MAPPED_FROM_BYTES: libc::c_int = 128 << 10;

/// To be called before any other thread exists.
pub(super) fn settle() {
    // SAFETY: both only change how this process gets its memory.
    unsafe {
        // A huge page is held as a whole for one block in it, and what is large is the page cache: no concern of this.
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        #[cfg(target_env = "gnu")]
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    }
}

/// Gives the free pages of this thread's heap back to the kernel: 0.1 to 0.6 ms for a small one.
pub(super) fn give_back() {
    // SAFETY: may be called at any time; touches nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
