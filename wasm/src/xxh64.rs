//! XXH64 with seed 0, by the specification `xxhash_spec.md` of the xxHash project (section "XXH64 Algorithm
//! Description"), which is also where the five primes come from.
//!
//! There is no SIMD twin: WebAssembly multiplies 64-bit lanes no faster in a vector, and the four lanes of XXH64
//! already fill the one multiplier that a core has. So this one kernel is both the fast and the portable one.

use crate::guard::{Digest, KEY_BYTES, Tag, Workspace};

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// Bytes of one step of the main loop: two stripes of 32. One stripe leaves V8 with a loop counter and branch per four
/// multiplications; more than two gain nothing.
const STEP: usize = 64;

/// Bytes that every piece but the last must be a multiple of.
const STRIPE: usize = 32;

/// A digest whose input comes in pieces. Any bit pattern is one, so that it may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct State {
    lanes: [u64; 4],
    /// Bytes so far.
    length: u64,
    /// The last bytes, as many as are over a multiple of [`STRIPE`].
    rest: [u8; STRIPE],
}

impl State {
    /// Before the first piece.
    const START: Self = Self {
        lanes: [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg()],
        length: 0,
        rest: [0; STRIPE],
    };

    /// Takes a piece. Every piece but the last must be a multiple of [`STRIPE`] bytes.
    #[inline(always)]
    fn update(&mut self, bytes: &[u8]) {
        debug_assert!(self.length.is_multiple_of(STRIPE as u64), "only the last piece is odd");
        self.length = self.length.wrapping_add(bytes.len() as u64);
        let mut lanes = self.lanes;
        let (steps, rest) = bytes.as_chunks::<STEP>();
        for step in steps {
            stripe(&mut lanes, step.first_chunk().expect("half a step"));
            stripe(&mut lanes, step.last_chunk().expect("half a step"));
        }
        let (stripes, rest) = rest.as_chunks::<STRIPE>();
        for half in stripes {
            stripe(&mut lanes, half);
        }
        self.lanes = lanes;
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The digest of all pieces.
    #[inline(always)]
    fn finish(&self) -> u64 {
        let mut hash = if self.length < STRIPE as u64 {
            PRIME_5
        } else {
            converge(self.lanes)
        };
        hash = hash.wrapping_add(self.length);
        let mut rest = &self.rest[..(self.length % STRIPE as u64) as usize];
        while let Some((head, tail)) = rest.split_first_chunk::<8>() {
            hash ^= round(0, u64::from_le_bytes(*head));
            hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
            rest = tail;
        }
        if let Some((head, tail)) = rest.split_first_chunk::<4>() {
            hash ^= u64::from(u32::from_le_bytes(*head)).wrapping_mul(PRIME_1);
            hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
            rest = tail;
        }
        for &byte in rest {
            hash ^= u64::from(byte).wrapping_mul(PRIME_5);
            hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
        }
        avalanche(hash)
    }
}

impl Digest for State {
    const TAG_BYTES: usize = 8;

    fn new(_key: Option<&[u8; KEY_BYTES]>) -> Self {
        Self::START
    }

    fn update(&mut self, bytes: &[u8], _work: &mut Workspace) {
        self.update(bytes);
    }

    fn finish(&mut self) -> Tag {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&State::finish(self).to_le_bytes());
        tag
    }
}

/// One word into one lane.
#[inline(always)]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

/// 32 bytes into the four lanes.
#[inline(always)]
fn stripe(lanes: &mut [u64; 4], bytes: &[u8; 32]) {
    let (words, _) = bytes.as_chunks::<8>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = round(*lane, u64::from_le_bytes(*word));
    }
}

/// The four lanes become one.
#[inline(always)]
fn converge(lanes: [u64; 4]) -> u64 {
    let [a, b, c, d] = lanes;
    let mut hash = a
        .rotate_left(1)
        .wrapping_add(b.rotate_left(7))
        .wrapping_add(c.rotate_left(12))
        .wrapping_add(d.rotate_left(18));
    for lane in lanes {
        hash = (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    hash
}

/// Every bit of the input reaches every bit of the output.
#[inline(always)]
fn avalanche(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::{STRIPE, State};

    fn digest(bytes: &[u8]) -> u64 {
        let mut state = State::START;
        state.update(bytes);
        state.finish()
    }

    #[test]
    fn known_digests() {
        assert_eq!(digest(b""), 0xef46_db37_51d8_e999);
        assert_eq!(digest(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(digest(b"abc"), 0x44bc_2cf5_ad77_0999);
    }
    #[test]
    fn pieces_give_what_the_whole_gives() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
        for length in 0..bytes.len() {
            for cut in (0..=length).step_by(STRIPE) {
                let mut state = State::START;
                state.update(&bytes[..cut]);
                state.update(&bytes[cut..length]);
                assert_eq!(state.finish(), digest(&bytes[..length]), "{length} bytes cut at {cut}");
            }
        }
    }
}
