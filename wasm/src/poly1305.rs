//! Poly1305 (RFC 8439, section 2.5), as ChaCha20-Poly1305 uses it: over blocks of sixteen bytes, the last one filled up
//! with zeroes.
//!
//! # How
//!
//! Scalar: the accumulator h is four limbs of 32 bits and a short one, in words of 64 bits. Multiplying by a limb of r
//! beyond 2^128 is multiplying by 5/4 of it, as 2^130 = 5 modulo 2^130 - 5, and clamping has made the limbs of r but
//! the lowest multiples of 4. Carries are lazy: each limb hands on what is over 32 bits once a block, so a limb may be
//! longer than that. A vector of 26-bit limbs would be slower, and it would compete with ChaCha20 for the vector units:
//! these multiplications run beside it for next to nothing.
//!
//! # Why nothing overflows
//!
//! r0 < 2^28, and the other limbs of r < 2^28, so 5/4 of them < 1.25 * 2^28. Before a block, let h0 < 2.57 * 2^32, h1,
//! h2, h3 < 2 * 2^32, h4 <= 3; with the block's words added h0 < 3.57 * 2^32, h1, h2, h3 < 3 * 2^32, h4 <= 4. Then each
//! sum of products is below (3 * 3 * 1.25 + 3.57) * 2^60 + 2^32 < 15 * 2^60 < 2^64. Afterwards h1, h2, h3 are a limb
//! and a carry, < 2 * 2^32; d4 < 4 * 2^28 + 2^32, so h0 < 2^32 + 5/4 * d4 < 2.57 * 2^32; h4 <= 3 again.

use crate::passage::{Text, words_of};
use core::cell::Cell;

/// Bytes of a block.
pub const BLOCK: usize = 16;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// A tag in the making. Any bit pattern is one, so that it may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Poly1305 {
    /// The accumulator: four limbs of 32 bits and what they carried, and the bits from 2^128.
    h: [u64; 5],
    r: [u64; 4],
    /// 5/4 of r1, r2, r3.
    s: [u64; 3],
    /// What is added in the end.
    pad: [u64; 4],
}

impl Poly1305 {
    /// With a one-time key.
    pub fn new(key: &[u8; 32]) -> Self {
        let word = |index: usize| u64::from(u32::from_le_bytes(key.as_chunks().0[index]));
        // RFC 8439, section 2.5: clamping.
        let r = [
            word(0) & 0x0fff_ffff,
            word(1) & 0x0fff_fffc,
            word(2) & 0x0fff_fffc,
            word(3) & 0x0fff_fffc,
        ];
        Self {
            h: [0; 5],
            r,
            s: [r[1] / 4 * 5, r[2] / 4 * 5, r[3] / 4 * 5],
            pad: [word(4), word(5), word(6), word(7)],
        }
    }

    /// Takes a block, given as two words.
    #[inline(always)]
    pub fn block(&mut self, [low, high]: [u64; 2]) {
        const LOW: u64 = 0xffff_ffff;
        let [r0, r1, r2, r3] = self.r;
        let [s1, s2, s3] = self.s;
        let h0 = self.h[0] + (low & LOW);
        let h1 = self.h[1] + (low >> 32);
        let h2 = self.h[2] + (high & LOW);
        let h3 = self.h[3] + (high >> 32);
        let h4 = self.h[4] + 1;
        let d3 = h3 * r0 + h2 * r1 + h1 * r2 + h4 * s3 + h0 * r3;
        let d0 = h3 * s1 + h2 * s2 + h1 * s3 + h0 * r0;
        let d1 = h3 * s2 + h2 * s3 + h1 * r0 + h4 * s1 + h0 * r1;
        let d2 = h3 * s3 + h2 * r0 + h1 * r1 + h4 * s2 + h0 * r2;
        let d4 = h4 * r0 + (d3 >> 32);
        self.h = [
            (d0 & LOW) + (d4 >> 2) * 5,
            (d1 & LOW) + (d0 >> 32),
            (d2 & LOW) + (d1 >> 32),
            (d3 & LOW) + (d2 >> 32),
            d4 & 3,
        ];
    }

    /// Takes bytes, and zeroes up to a whole block.
    #[inline(never)]
    pub fn update(&mut self, text: &Text) {
        let mut running = *self;
        let (blocks, rest) = text.as_chunks::<BLOCK>();
        for block in blocks {
            running.block(words_of(block));
        }
        if !rest.is_empty() {
            let mut block = [0; BLOCK];
            for (to, from) in block.iter_mut().zip(rest) {
                *to = from.get();
            }
            running.block(words_of(Cell::from_mut(&mut block).as_array_of_cells()));
        }
        self.h = running.h;
    }

    /// The tag of what was taken.
    pub fn finish(&self) -> [u8; TAG_BYTES] {
        const LOW: u64 = 0xffff_ffff;
        let mut h = self.h;
        // What each limb is too long by goes up, and what the last one has beyond 2^130 comes back to the first, as 5
        // times as much. Once leaves h < 2^130 + 5, twice h < 2^130.
        for _ in 0..2 {
            carry(&mut h);
            h[0] += (h[4] >> 2) * 5;
            h[4] &= 3;
        }
        carry(&mut h);
        // h - p = h + 5 - 2^130, of which bit 130 of h + 5 tells whether it is negative.
        let mut reduced = h;
        reduced[0] += 5;
        carry(&mut reduced);
        let take_reduced = (reduced[4] >> 2).wrapping_neg();
        let mut tag = [0; TAG_BYTES];
        let mut sum = 0;
        for (index, bytes) in tag.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            sum += (reduced[index] & take_reduced | h[index] & !take_reduced) + self.pad[index];
            *bytes = ((sum & LOW) as u32).to_le_bytes();
            sum >>= 32;
        }
        tag
    }
}

/// Makes limbs of 32 bits; the last takes what is left.
fn carry(h: &mut [u64; 5]) {
    for index in 0..4 {
        h[index + 1] += h[index] >> 32;
        h[index] &= 0xffff_ffff;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, text: &str) -> String {
        let mut text = unhex(text);
        let mut mac = Poly1305::new(&unhex(key).try_into().expect("a key"));
        mac.update(Cell::from_mut(&mut text[..]).as_slice_of_cells());
        mac.finish().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(digits: &str) -> Vec<u8> {
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 8439, appendix A.3: the vectors that are of whole blocks, most of which are where carries go wrong.
    #[test]
    fn the_vectors_of_the_rfc() {
        const HARD: &str = "e33594d7505e43b900000000000000003394d7505e4379cd0100000000000000";
        let zeroes = "0".repeat(32);
        let ones = "f".repeat(32);
        let vectors = [
            // 1
            ("0".repeat(64), "0".repeat(128), zeroes.clone()),
            // 5: 2^128 - 1 and the block's own bit
            (
                format!("02{}{zeroes}", "0".repeat(30)),
                ones.clone(),
                format!("03{}", "0".repeat(30)),
            ),
            // 6: a sum beyond 2^128 with what is added in the end
            (
                format!("02{}{ones}", "0".repeat(30)),
                format!("02{}", "0".repeat(30)),
                format!("03{}", "0".repeat(30)),
            ),
            // 7
            (
                format!("01{}{zeroes}", "0".repeat(30)),
                format!("{ones}f0{}11{}", "f".repeat(30), "0".repeat(30)),
                format!("05{}", "0".repeat(30)),
            ),
            // 8
            (
                format!("01{}{zeroes}", "0".repeat(30)),
                format!("{ones}fb{}{}", "fe".repeat(15), "01".repeat(16)),
                zeroes.clone(),
            ),
            // 9: 2^130 - 6, the largest that is not reduced
            (
                format!("02{}{zeroes}", "0".repeat(30)),
                format!("fd{}", "f".repeat(30)),
                format!("fa{}", "f".repeat(30)),
            ),
            // 10
            (
                format!("01000000000000000400000000000000{zeroes}"),
                format!("{HARD}{zeroes}01{}", "0".repeat(30)),
                "14000000000000005500000000000000".into(),
            ),
            // 11
            (
                format!("01000000000000000400000000000000{zeroes}"),
                format!("{HARD}{zeroes}"),
                format!("13{}", "0".repeat(30)),
            ),
        ];
        for (key, text, expected) in vectors {
            assert_eq!(tag(&key, &text), expected, "{text}");
        }
    }
}
