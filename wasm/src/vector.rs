//! Sixteen bytes at a time, with and without SIMD.
//!
//! A kernel written over [`Vector`] exists twice: as [`core::arch::wasm32::v128`] it is the fast one, as [`u128`] its
//! portable twin with the same signature, which also runs natively under `cargo test`.

/// What a kernel needs of sixteen bytes. The order of the bytes is that of the memory.
pub trait Vector: Copy {
    /// All bytes zero.
    const ZERO: Self;
    /// Sixteen bytes of the slice, from `at` on, at any alignment. Panics if it ends before.
    fn load(from: &[u8], at: usize) -> Self;
    /// Stores to sixteen bytes of the slice, from `at` on, at any alignment. Panics if it ends before.
    fn store(self, to: &mut [u8], at: usize);
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
    /// Sixteen bytes of the two one after the other, from `at` on, which is 1 to 15 and known to the compiler.
    fn splice(self, next: Self, at: usize) -> Self;
}

impl Vector for u128 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load(from: &[u8], at: usize) -> Self {
        u128::from_ne_bytes(*from[at..].first_chunk().expect("sixteen bytes"))
    }

    #[inline(always)]
    fn store(self, to: &mut [u8], at: usize) {
        *to[at..].first_chunk_mut().expect("sixteen bytes") = self.to_ne_bytes();
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    fn splice(self, next: Self, at: usize) -> Self {
        let (first, second) = (
            u128::from_le_bytes(self.to_ne_bytes()),
            u128::from_le_bytes(next.to_ne_bytes()),
        );
        Self::from_ne_bytes((first >> (8 * at) | second << (128 - 8 * at)).to_le_bytes())
    }
}

#[cfg(target_arch = "wasm32")]
mod simd {
    use super::Vector;
    use core::arch::wasm32::{i8x16_shuffle, u64x2, v128, v128_load, v128_store, v128_xor};

    impl Vector for v128 {
        const ZERO: Self = u64x2(0, 0);

        #[inline(always)]
        fn load(from: &[u8], at: usize) -> Self {
            assert!(at + 16 <= from.len(), "sixteen bytes");
            // SAFETY: the sixteen bytes read are of the slice; v128_load asks for no alignment.
            unsafe { v128_load((&raw const from[at]).cast()) }
        }

        #[inline(always)]
        fn store(self, to: &mut [u8], at: usize) {
            assert!(at + 16 <= to.len(), "sixteen bytes");
            // SAFETY: the sixteen bytes written are of the slice; v128_store asks for no alignment.
            unsafe { v128_store((&raw mut to[at]).cast(), self) }
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            v128_xor(self, other)
        }

        #[inline(always)]
        fn splice(self, next: Self, at: usize) -> Self {
            match at {
                1 => i8x16_shuffle::<1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16>(self, next),
                2 => i8x16_shuffle::<2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17>(self, next),
                3 => i8x16_shuffle::<3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18>(self, next),
                4 => i8x16_shuffle::<4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19>(self, next),
                5 => i8x16_shuffle::<5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20>(self, next),
                6 => i8x16_shuffle::<6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21>(self, next),
                7 => i8x16_shuffle::<7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22>(self, next),
                8 => i8x16_shuffle::<8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23>(self, next),
                9 => i8x16_shuffle::<9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24>(self, next),
                10 => i8x16_shuffle::<10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25>(self, next),
                11 => i8x16_shuffle::<11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26>(self, next),
                12 => i8x16_shuffle::<12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27>(self, next),
                13 => i8x16_shuffle::<13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28>(self, next),
                14 => i8x16_shuffle::<14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29>(self, next),
                15 => i8x16_shuffle::<15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30>(self, next),
                _ => unreachable!("1 to 15"),
            }
        }
    }
}
