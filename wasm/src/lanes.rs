//! Four 32-bit words side by side, with and without SIMD.
//!
//! A kernel written over [`Lanes`] exists twice: as [`core::arch::wasm32::v128`] it is the fast one, as [`Portable`]
//! its twin with the same signature, which also runs natively under `cargo test`.

use core::{array, cell::Cell};

/// What a kernel needs of four words. In memory they are little-endian.
pub trait Lanes: Copy {
    /// What the rotations by whole bytes are done with.
    type Masks: Copy;
    /// To be asked once before a loop, not within.
    fn masks() -> Self::Masks;
    /// Four words.
    fn new(words: [u32; 4]) -> Self;
    /// The same word four times, from memory.
    fn splat(word: &u32) -> Self;
    /// At any alignment.
    fn load(from: &[Cell<u8>; 16]) -> Self;
    /// At any alignment.
    fn store(self, to: &[Cell<u8>; 16]);
    /// Sums modulo 2^32.
    fn add(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    fn xor(self, other: Self) -> Self;
    /// Each word rotated left by 16 bits.
    fn rotate_16(self, masks: Self::Masks) -> Self;
    /// Each word rotated left by 12 bits.
    fn rotate_12(self) -> Self;
    /// Each word rotated left by 8 bits.
    fn rotate_8(self, masks: Self::Masks) -> Self;
    /// Each word rotated left by 7 bits.
    fn rotate_7(self) -> Self;
    /// The words one place down, the first becomes the last.
    fn turn_1(self) -> Self;
    /// The words two places down.
    fn turn_2(self) -> Self;
    /// The words three places down, the last becomes the first.
    fn turn_3(self) -> Self;
    /// Rows become columns.
    fn transpose(rows: [Self; 4]) -> [Self; 4];
}

/// Without SIMD.
#[derive(Clone, Copy)]
pub struct Portable([u32; 4]);

impl Portable {
    #[inline(always)]
    fn each(self, change: impl FnMut(u32) -> u32) -> Self {
        Self(self.0.map(change))
    }
}

impl Lanes for Portable {
    type Masks = ();

    #[inline(always)]
    fn masks() {}

    #[inline(always)]
    fn new(words: [u32; 4]) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn splat(word: &u32) -> Self {
        Self([*word; 4])
    }

    #[inline(always)]
    fn load(from: &[Cell<u8>; 16]) -> Self {
        Self(array::from_fn(|word| {
            u32::from_le_bytes(array::from_fn(|byte| from[4 * word + byte].get()))
        }))
    }

    #[inline(always)]
    fn store(self, to: &[Cell<u8>; 16]) {
        for (bytes, word) in to.as_chunks::<4>().0.iter().zip(self.0) {
            for (to, byte) in bytes.iter().zip(word.to_le_bytes()) {
                to.set(byte);
            }
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(array::from_fn(|lane| self.0[lane].wrapping_add(other.0[lane])))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(array::from_fn(|lane| self.0[lane] ^ other.0[lane]))
    }

    #[inline(always)]
    fn rotate_16(self, _masks: ()) -> Self {
        self.each(|word| word.rotate_left(16))
    }

    #[inline(always)]
    fn rotate_12(self) -> Self {
        self.each(|word| word.rotate_left(12))
    }

    #[inline(always)]
    fn rotate_8(self, _masks: ()) -> Self {
        self.each(|word| word.rotate_left(8))
    }

    #[inline(always)]
    fn rotate_7(self) -> Self {
        self.each(|word| word.rotate_left(7))
    }

    #[inline(always)]
    fn turn_1(self) -> Self {
        let [a, b, c, d] = self.0;
        Self([b, c, d, a])
    }

    #[inline(always)]
    fn turn_2(self) -> Self {
        let [a, b, c, d] = self.0;
        Self([c, d, a, b])
    }

    #[inline(always)]
    fn turn_3(self) -> Self {
        let [a, b, c, d] = self.0;
        Self([d, a, b, c])
    }

    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        array::from_fn(|column| Self(rows.map(|row| row.0[column])))
    }
}

#[cfg(target_arch = "wasm32")]
mod simd {
    use super::Lanes;
    use core::{
        arch::wasm32::{
            i8x16_relaxed_swizzle, i32x4_add, i32x4_shl, i32x4_shuffle, i64x2_shuffle, u32x4, u32x4_shr, v128,
            v128_load, v128_load32_splat, v128_or, v128_store, v128_xor,
        },
        cell::Cell,
        ptr,
    };

    /// Where each byte comes from when words are rotated left by 16 and by 8 bits.
    static BY_16: [u8; 16] = [2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13];
    static BY_8: [u8; 16] = [3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14];

    /// Byte shuffles of which the compiler does not know that they are constant: V8 would otherwise build the mask anew
    /// at each use. All indices are below 16, where the relaxed swizzle is the same on every processor.
    #[derive(Clone, Copy)]
    pub struct Masks {
        by_16: v128,
        by_8: v128,
    }

    impl Lanes for v128 {
        type Masks = Masks;

        #[inline(always)]
        fn masks() -> Masks {
            // SAFETY: both are sixteen bytes; a volatile read of v128 is compiled to an unaligned load.
            unsafe {
                Masks {
                    by_16: ptr::read_volatile((&raw const BY_16).cast()),
                    by_8: ptr::read_volatile((&raw const BY_8).cast()),
                }
            }
        }

        #[inline(always)]
        fn new([a, b, c, d]: [u32; 4]) -> Self {
            u32x4(a, b, c, d)
        }

        #[inline(always)]
        fn splat(word: &u32) -> Self {
            // SAFETY: the four bytes read are those of the word.
            unsafe { v128_load32_splat(word) }
        }

        #[inline(always)]
        fn load(from: &[Cell<u8>; 16]) -> Self {
            // SAFETY: the sixteen bytes read are those of the array; v128_load asks for no alignment.
            unsafe { v128_load(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store(self, to: &[Cell<u8>; 16]) {
            // SAFETY: the sixteen bytes written are those of the array, whose cells may be written; v128_store asks for
            // no alignment.
            unsafe { v128_store(to.as_ptr().cast_mut().cast(), self) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            i32x4_add(self, other)
        }

        #[inline(always)]
        fn xor(self, other: Self) -> Self {
            v128_xor(self, other)
        }

        #[inline(always)]
        fn rotate_16(self, masks: Masks) -> Self {
            i8x16_relaxed_swizzle(self, masks.by_16)
        }

        #[inline(always)]
        fn rotate_12(self) -> Self {
            v128_or(i32x4_shl(self, 12), u32x4_shr(self, 20))
        }

        #[inline(always)]
        fn rotate_8(self, masks: Masks) -> Self {
            i8x16_relaxed_swizzle(self, masks.by_8)
        }

        #[inline(always)]
        fn rotate_7(self) -> Self {
            v128_or(i32x4_shl(self, 7), u32x4_shr(self, 25))
        }

        #[inline(always)]
        fn turn_1(self) -> Self {
            i32x4_shuffle::<1, 2, 3, 0>(self, self)
        }

        #[inline(always)]
        fn turn_2(self) -> Self {
            i32x4_shuffle::<2, 3, 0, 1>(self, self)
        }

        #[inline(always)]
        fn turn_3(self) -> Self {
            i32x4_shuffle::<3, 0, 1, 2>(self, self)
        }

        #[inline(always)]
        fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            let (ab_low, ab_high) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
            let (cd_low, cd_high) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
            [
                i64x2_shuffle::<0, 2>(ab_low, cd_low),
                i64x2_shuffle::<1, 3>(ab_low, cd_low),
                i64x2_shuffle::<0, 2>(ab_high, cd_high),
                i64x2_shuffle::<1, 3>(ab_high, cd_high),
            ]
        }
    }
}
