//! Sixteen bytes at a time, with and without SIMD.
//!
//! A kernel written over [`Vector`] exists twice: as [`core::arch::wasm32::v128`] it is the fast one, as [`u128`] its
//! portable twin with the same signature, which also runs natively under `cargo test`.

/// What a kernel needs of sixteen bytes. The order of the bytes is that of the memory.
pub trait Vector: Copy {
    /// All bytes zero.
    const ZERO: Self;
    /// The first sixteen bytes of the slice, at any alignment. Panics if it is shorter.
    fn load(from: &[u8]) -> Self;
    /// Stores to the first sixteen bytes of the slice, at any alignment. Panics if it is shorter.
    fn store(self, to: &mut [u8]);
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
}

impl Vector for u128 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load(from: &[u8]) -> Self {
        u128::from_ne_bytes(*from.first_chunk().expect("sixteen bytes"))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8]) {
        *to.first_chunk_mut().expect("sixteen bytes") = self.to_ne_bytes();
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }
}

#[cfg(target_arch = "wasm32")]
mod simd {
    use super::Vector;
    use core::arch::wasm32::{u64x2, v128, v128_load, v128_store, v128_xor};

    impl Vector for v128 {
        const ZERO: Self = u64x2(0, 0);

        #[inline(always)]
        fn load(from: &[u8]) -> Self {
            let bytes: &[u8; 16] = from.first_chunk().expect("sixteen bytes");
            // SAFETY: the sixteen bytes read are those of the array; v128_load asks for no alignment.
            unsafe { v128_load(bytes.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, to: &mut [u8]) {
            let bytes: &mut [u8; 16] = to.first_chunk_mut().expect("sixteen bytes");
            // SAFETY: the sixteen bytes written are those of the array; v128_store asks for no alignment.
            unsafe { v128_store(bytes.as_mut_ptr().cast(), self) }
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            v128_xor(self, other)
        }
    }
}
