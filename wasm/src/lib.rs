//! The core of DST: digests over bytes where they lie, in the one memory that a Worker shares with the kernel.
//!
//! Every export takes offsets in that memory and writes its result to one, so that only 32-bit numbers cross the
//! boundary. Nothing allocates, and the memory never grows from within. This file is the boundary; it and the loads and
//! stores of `vector.rs` are all that is unsafe.
#![cfg_attr(all(target_arch = "wasm32", not(test)), no_std)]

pub mod crc32c;
pub mod vector;
pub mod xxh64;

#[cfg(target_arch = "wasm32")]
mod boundary {
    use crate::{crc32c, vector::Vector, xxh64};
    use core::arch::wasm32::{unreachable, v128};

    #[cfg(not(test))]
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        unreachable()
    }

    /// Bytes of a page of the host's memory, which the free area starts on. 4 KiB on x86-64; the 64 KiB of a
    /// WebAssembly page and of some aarch64 kernels would only waste.
    const PAGE_BYTES: usize = 4096;

    unsafe extern "C" {
        /// Where the linker says that the stack and all statics end.
        static __heap_base: u8;
    }

    /// The offset where the memory that nothing in here uses begins, page-aligned.
    #[unsafe(no_mangle)]
    pub extern "C" fn free_from() -> usize {
        (&raw const __heap_base).addr().next_multiple_of(PAGE_BYTES)
    }

    /// CRC-32C of the bytes: four bytes little-endian, and four of zero.
    ///
    /// # Safety
    /// `[pointer, pointer + length)` and `[out, out + 8)` lie in the free area; `length` is below 2^31.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn crc32c(pointer: *const u8, length: usize, out: *mut u8) {
        // SAFETY: as the caller promised.
        unsafe { crc32c_by::<v128>(pointer, length, out) }
    }

    /// [`crc32c`] without SIMD.
    ///
    /// # Safety
    /// As for [`crc32c`].
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn crc32c_portable(pointer: *const u8, length: usize, out: *mut u8) {
        // SAFETY: as the caller promised.
        unsafe { crc32c_by::<u128>(pointer, length, out) }
    }

    /// XXH64 with seed 0 of the bytes: eight bytes little-endian.
    ///
    /// # Safety
    /// As for [`crc32c`].
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn xxh64(pointer: *const u8, length: usize, out: *mut u8) {
        // SAFETY: as the caller promised; the input is not used after the digest is known, so `out` may be in it.
        unsafe {
            let digest = xxh64::digest(core::slice::from_raw_parts(pointer, length));
            put(out, digest);
        }
    }

    /// # Safety
    /// As for [`crc32c`].
    #[inline(always)]
    unsafe fn crc32c_by<V: Vector>(pointer: *const u8, length: usize, out: *mut u8) {
        static mut SCRATCH: crc32c::Scratch = crc32c::Scratch::new();
        // SAFETY: the input is as the caller promised, and not in SCRATCH, which is no part of the free area. An
        // instance runs on one thread and nothing in here calls out of it, so this is SCRATCH's only reference. The
        // input is not used after the digest is known, so `out` may be in it.
        unsafe {
            let scratch = &raw mut SCRATCH;
            let digest = crc32c::digest::<V>(core::slice::from_raw_parts(pointer, length), &mut *scratch);
            put(out, u64::from(digest));
        }
    }

    /// # Safety
    /// `[out, out + 8)` is the caller's to write.
    #[inline(always)]
    unsafe fn put(out: *mut u8, digest: u64) {
        // SAFETY: as the caller promised; an array of bytes has no alignment.
        unsafe { out.cast::<[u8; 8]>().write(digest.to_le_bytes()) }
    }
}
