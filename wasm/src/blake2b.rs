//! BLAKE2b (RFC 7693) with 32 bytes of output, keyed and not.
//!
//! There is no SIMD twin: two 64-bit words to a vector leave half of the vector units' width unused for what the
//! shuffles cost, and a core's scalar units do these additions and rotations as fast.

use crate::guard::{Digest, KEY_BYTES, Tag, Workspace};
use core::array;

/// Bytes of a block.
const BLOCK: usize = 128;
/// RFC 7693, section 2.6.
const IV: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];
/// Which words of a block each round adds, in order: RFC 7693, section 2.7.
const SIGMA: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

/// A hash whose input comes in pieces. Any bit pattern is one, so that it may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct State {
    h: [u64; 8],
    /// Bytes that `h` covers, the key's block with them.
    covered: u64,
    /// Bytes in `last`, or 0 before the first piece.
    held: u64,
    /// The block that may be the message's last, which is compressed in a way of its own. Before the first piece: the
    /// key's, which is the last where the message is empty.
    last: [u8; BLOCK],
    /// What `h` was before the key's block.
    parameters: u64,
}

impl State {
    /// Before the first piece: at most 64 bytes of key, and 1 to 64 of output.
    fn begin(key: &[u8], output_bytes: usize) -> Self {
        // RFC 7693, section 2.5: output length, key length, fanout 1, depth 1.
        let parameters = output_bytes as u64 | (key.len() as u64) << 8 | 0x0101_0000;
        let mut state = Self {
            h: first(parameters),
            covered: 0,
            held: 0,
            last: [0; BLOCK],
            parameters,
        };
        state.last[..key.len()].copy_from_slice(key);
        if !key.is_empty() {
            state.covered = BLOCK as u64;
            compress(&mut state.h, &state.last, state.covered, false);
        }
        state
    }

    /// Takes a piece. Every piece but the last is a multiple of [`BLOCK`].
    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.held > 0 {
            debug_assert!(self.held == BLOCK as u64, "only the last piece is odd");
            self.covered += BLOCK as u64;
            compress(&mut self.h, &self.last, self.covered, false);
        }
        // At least one byte stays.
        let (blocks, rest) = bytes[..bytes.len() - 1].as_chunks::<BLOCK>();
        for block in blocks {
            self.covered += BLOCK as u64;
            compress(&mut self.h, block, self.covered, false);
        }
        let rest = &bytes[bytes.len() - 1 - rest.len()..];
        self.last = [0; BLOCK];
        self.last[..rest.len()].copy_from_slice(rest);
        self.held = rest.len() as u64;
    }

    /// The hash of all pieces, as many bytes of it as were asked for.
    fn hash(&self) -> [u8; 64] {
        let mut h = self.h;
        if self.held == 0 {
            // An empty message. Without a key, it is a block of no bytes; else what has been compressed was the last.
            h = first(self.parameters);
        }
        compress(&mut h, &self.last, self.covered + self.held, true);
        let mut bytes = [0; 64];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(h) {
            *to = word.to_le_bytes();
        }
        bytes
    }
}

impl Digest for State {
    const TAG_BYTES: usize = 32;

    fn new(key: Option<&[u8; KEY_BYTES]>) -> Self {
        Self::begin(key.map_or(&[], |key| key), Self::TAG_BYTES)
    }

    fn update(&mut self, bytes: &[u8], _work: &mut Workspace) {
        self.take(bytes);
    }

    fn finish(&mut self) -> Tag {
        *self.hash().first_chunk().expect("half of it")
    }
}

fn first(parameters: u64) -> [u64; 8] {
    let mut h = IV;
    h[0] ^= parameters;
    h
}

/// RFC 7693, section 3.2: the function F. `covered` are all bytes up to the end of the block. (Its high word is zero.)
#[inline(never)]
fn compress(h: &mut [u64; 8], block: &[u8; BLOCK], covered: u64, is_last: bool) {
    let (words, _) = block.as_chunks::<8>();
    let m: [u64; 16] = array::from_fn(|index| u64::from_le_bytes(words[index]));
    let mut v: [u64; 16] = array::from_fn(|index| if index < 8 { h[index] } else { IV[index - 8] });
    v[12] ^= covered;
    v[14] ^= u64::from(is_last).wrapping_neg();
    // Written out, so that the compiler knows every index and has all words in variables.
    round::<0>(&mut v, &m);
    round::<1>(&mut v, &m);
    round::<2>(&mut v, &m);
    round::<3>(&mut v, &m);
    round::<4>(&mut v, &m);
    round::<5>(&mut v, &m);
    round::<6>(&mut v, &m);
    round::<7>(&mut v, &m);
    round::<8>(&mut v, &m);
    round::<9>(&mut v, &m);
    round::<0>(&mut v, &m);
    round::<1>(&mut v, &m);
    for index in 0..8 {
        h[index] ^= v[index] ^ v[index + 8];
    }
}

#[inline(always)]
fn round<const R: usize>(v: &mut [u64; 16], m: &[u64; 16]) {
    let word = |index: usize| m[const { SIGMA[R] }[index]];
    mix(v, [0, 4, 8, 12], word(0), word(1));
    mix(v, [1, 5, 9, 13], word(2), word(3));
    mix(v, [2, 6, 10, 14], word(4), word(5));
    mix(v, [3, 7, 11, 15], word(6), word(7));
    mix(v, [0, 5, 10, 15], word(8), word(9));
    mix(v, [1, 6, 11, 12], word(10), word(11));
    mix(v, [2, 7, 8, 13], word(12), word(13));
    mix(v, [3, 4, 9, 14], word(14), word(15));
}

/// RFC 7693, section 3.1: the function G.
#[inline(always)]
fn mix(v: &mut [u64; 16], [a, b, c, d]: [usize; 4], x: u64, y: u64) {
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
    v[d] = (v[d] ^ v[a]).rotate_right(32);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(24);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
    v[d] = (v[d] ^ v[a]).rotate_right(16);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(63);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: &[u8], output_bytes: usize, bytes: &[u8]) -> Vec<u8> {
        let mut state = State::begin(key, output_bytes);
        state.take(bytes);
        state.hash()[..output_bytes].to_vec()
    }

    /// RFC 7693, appendix A: BLAKE2b-512 of "abc".
    #[test]
    fn the_example_of_the_rfc() {
        let digits = "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
                      7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923";
        let found: String = hash(&[], 64, b"abc").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digits);
    }

    /// RFC 7693, appendix E: the hash of the hashes of many lengths, keyed and not.
    #[test]
    fn the_self_test_of_the_rfc() {
        let sequence = |length: usize, seed: u32| -> Vec<u8> {
            let mut a = 0xdead_4bad_u32.wrapping_mul(seed);
            let mut b = 1u32;
            let next = || {
                let t = a.wrapping_add(b);
                (a, b) = (b, t);
                (t >> 24) as u8
            };
            core::iter::repeat_with(next).take(length).collect()
        };
        let mut hashes = vec![];
        for output_bytes in [20, 32, 48, 64] {
            for length in [0, 3, 128, 129, 255, 1024] {
                let bytes = sequence(length, length as u32);
                hashes.extend(hash(&[], output_bytes, &bytes));
                let key = sequence(output_bytes, output_bytes as u32);
                hashes.extend(hash(&key, output_bytes, &bytes));
            }
        }
        let found: String = hash(&[], 32, &hashes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            found,
            "c23a7800d98123bd10f506c61e29da5603d763b8bbad2e737f5e765a7bccd475"
        );
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let bytes: Vec<u8> = (0..1100u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
        for key in [&[][..], &[9; 32]] {
            for length in (0..200).chain(1020..1030) {
                for cut in (0..=length).step_by(BLOCK) {
                    let mut state = State::begin(key, 32);
                    state.take(&bytes[..cut]);
                    state.take(&bytes[cut..length]);
                    let whole = hash(key, 32, &bytes[..length]);
                    assert_eq!(state.hash()[..32], whole, "{length} bytes cut at {cut}");
                }
            }
        }
    }
}
