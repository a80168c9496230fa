//! An allocator that forgets.
#![expect(unsafe_code, reason = "a global allocator has no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};

/// Global allocator of the programs that handle secrets: every block is wiped before it goes back to the system.
///
/// Secrets pass through code that is not ours (HTTP and JSON buffers); with this allocator a buffer that they free keeps
/// nothing. A block that grows is copied and the old one wiped, as `realloc` of the system would leave it behind.
/// Never wipes memory that C libraries allocate by themselves.
pub struct WipingAllocator;

// SAFETY: all memory comes from and goes back to `System` with the layout it was asked for.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the block is `layout.size()` bytes long and still ours; `explicit_bzero` is not optimised away.
        unsafe {
            libc::explicit_bzero(ptr.cast(), layout.size());
            System.dealloc(ptr, layout);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_block_that_grows_keeps_its_bytes() {
        let old = Layout::from_size_align(8, 8).unwrap_or_else(|e| panic!("{e}"));
        // SAFETY: layouts match between the calls, and the pointer is checked.
        unsafe {
            let at = WipingAllocator.alloc(old);
            assert!(!at.is_null());
            at.write_bytes(9, 8);
            let grown = WipingAllocator.realloc(at, old, 4096);
            assert_eq!(std::slice::from_raw_parts(grown, 8), [9; 8]);
            let new = Layout::from_size_align(4096, 8).unwrap_or_else(|e| panic!("{e}"));
            WipingAllocator.dealloc(grown, new);
        }
    }
}
