//! A 256-bit key on a page of its own.
#![expect(unsafe_code, reason = "locked pages have no safe interface")]

use std::fmt;
use std::ptr::NonNull;
use zeroize::Zeroize;

const KEY_BYTES: usize = 32;
const PAGE_BYTES: usize = 4096;

/// A 256-bit key, alone on a memory page which is locked (never swapped), left out of core dumps and not inherited by
/// forked children. Wiped on drop.
///
/// Locking is best effort: where the limit on locked memory is spent, the key still works and [`Key32::is_locked`] says so.
pub struct Key32 {
    page: NonNull<[u8; KEY_BYTES]>,
    locked: bool,
}

// SAFETY: the page is owned by this value alone, and shared access only reads it.
unsafe impl Send for Key32 {}
// SAFETY: as above.
unsafe impl Sync for Key32 {}

impl Key32 {
    /// Makes a key by filling its page in place, so that no copy passes over the stack of the caller.
    pub fn make(fill: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
        let mut key = Self::empty();
        // SAFETY: the page is mapped, writable and referenced by nobody else yet.
        fill(unsafe { key.page.as_mut() });
        key
    }

    /// Makes a key by filling its page in place; nothing is kept when `fill` fails.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn try_make<E>(fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self::empty();
        // SAFETY: the page is mapped, writable and referenced by nobody else yet.
        fill(unsafe { key.page.as_mut() })?;
        Ok(key)
    }

    /// Shows the bytes to `look` and to nobody else.
    pub fn expose<R>(&self, look: impl FnOnce(&[u8; KEY_BYTES]) -> R) -> R {
        // SAFETY: the page stays mapped until drop, and is only written before the value is handed out.
        look(unsafe { self.page.as_ref() })
    }

    /// Whether the page could be locked into memory.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    fn empty() -> Self {
        // SAFETY: an anonymous private mapping of one page; the result is checked before use.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let page = if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast::<[u8; KEY_BYTES]>()) };
        let Some(page) = page else {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; PAGE_BYTES]>());
        };
        // SAFETY: the three calls act on the page mapped above and cannot move it.
        let locked = unsafe {
            libc::madvise(at, PAGE_BYTES, libc::MADV_DONTDUMP);
            libc::madvise(at, PAGE_BYTES, libc::MADV_DONTFORK);
            libc::mlock(at, PAGE_BYTES) == 0
        };
        Self { page, locked }
    }
}

impl Drop for Key32 {
    fn drop(&mut self) {
        // SAFETY: the page is still mapped and nobody else can reach it.
        unsafe {
            self.page.as_mut().zeroize();
            libc::munmap(self.page.as_ptr().cast(), PAGE_BYTES);
        }
    }
}

impl fmt::Debug for Key32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_in_place_and_prints_nothing() {
        let key = Key32::make(|b| b.fill(7));
        assert!(key.expose(|b| b.iter().all(|x| *x == 7)));
        assert_eq!(format!("{key:?}"), "Key32");
        assert_eq!(Key32::try_make(|_| Err::<(), _>("no")).err(), Some("no"));
    }
}
