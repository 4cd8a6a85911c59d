//! CRC-32C: the Castagnoli polynomial 0x1EDC6F41, bits reflected, initial value and final xor all ones (RFC 3720,
//! section 12.1).
//!
//! # How it is fast without a CRC or carry-less multiplication instruction
//!
//! A message and the same message plus any multiple of the polynomial have the same remainder. So, given a *sparse*
//! multiple whose terms are whole bytes apart,
//!
//! ```text
//! x^8h + x^8(h - t1) + x^8(h - t2) + ... + 1        (t1 < t2 < ... < tn = h)
//! ```
//!
//! a byte may be removed from the front of the message if it is added (xor) to the bytes t1, t2, ... tn places further
//! on. Seen from the byte that receives: the folded byte i is the byte i plus the folded bytes i - t1, i - t2, ... i -
//! tn. That is loads and xors only, and as long as the nearest tap is at least 16, sixteen bytes at a time. What
//! remains is the last h bytes or so, whose checksum by tables is that of the whole.
//!
//! The folded bytes go to a line buffer of our own: the message itself must stay as it is.
//!
//! # Where the taps come from
//!
//! By exhaustive search over the powers x^8i mod P: for four terms, the xor of two powers looked up in a table of the
//! xor of 1 and one power; for six, the xor of three in a table of the xor of 1 and two. `tests` below repeats the
//! searches and shows that [`Sparse`] reaches least of all with four terms, and [`Dense`] least of all with six; that
//! they are multiples is checked at compile time.

use crate::{
    guard::{Digest, KEY_BYTES, Tag, Workspace},
    vector::Vector,
};
use core::marker::PhantomData;

/// 0x1EDC6F41 with its bits reflected, as bit 0 of a byte is the highest power.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Below this, in bytes, the tables alone are as fast as a fold and the tables for what remains of it.
const DENSE_FROM: usize = 384;
/// From this, in bytes, two folds are faster than one: the sparse one has fewer loads, but leaves 5 KiB.
const SPARSE_FROM: usize = 20480;
/// How much is folded before the line buffer starts over, in bytes: together with the message it fits the first-level
/// cache.
const SEGMENT: usize = 16384;

/// A sparse multiple of the polynomial.
trait Multiple {
    /// How many bytes further on a byte is added, ascending; the last is the multiple's degree in bytes.
    const TAPS: &'static [usize];
    /// The last tap.
    const REACH: usize = Self::TAPS[Self::TAPS.len() - 1];
    /// Whether what a tap needs is put together from two loads that are aligned, and lie wholly in one store and one
    /// cache line, each used twice. More work for the vector units, less for those that load. No tap is a multiple of
    /// 16 then.
    const SPLICED: bool;
    /// Bytes of folded history that a step looks back on: the reach, rounded up to whole vectors.
    const HISTORY: usize = Self::REACH.next_multiple_of(16);
}

/// Four terms: the least work a byte.
struct Sparse;
impl Multiple for Sparse {
    const TAPS: &'static [usize] = &[767, 2524, 5275];
    const SPLICED: bool = false;
}

/// Six terms, and a short rest. Loads that overlap two stores, as they would in most places, have to wait until both
/// are out of the way to the cache: with a tap as near as 65 that would be often.
struct Dense;
impl Multiple for Dense {
    const TAPS: &'static [usize] = &[65, 155, 170, 195, 209];
    const SPLICED: bool = true;
}

const _: () = assert!(Sparse::TAPS.len() <= TAPS_MAX && Dense::TAPS.len() <= TAPS_MAX);
const _: () = assert!(is_multiple(Sparse::TAPS) && is_multiple(Dense::TAPS));

/// The most taps that there are.
const TAPS_MAX: usize = 5;

/// Bytes of what a fold leaves, at most: less than its reach and one vector.
const fn residue_bytes(reach: usize) -> usize {
    (reach + 16).next_multiple_of(16)
}

/// The buffers of [`update`], which keep nothing from call to call. They exist so that a call neither allocates nor
/// clears a large stack frame.
#[repr(align(64))]
pub struct Scratch {
    /// History, one segment, and zeroes after its end.
    line: [u8; SEGMENT + 2 * Sparse::HISTORY + 16],
    sparse_residue: [u8; residue_bytes(Sparse::REACH)],
    dense_residue: [u8; residue_bytes(Dense::REACH)],
}

impl Scratch {
    /// Buffers of zeroes.
    pub const fn new() -> Self {
        Self {
            line: [0; SEGMENT + 2 * Sparse::HISTORY + 16],
            sparse_residue: [0; residue_bytes(Sparse::REACH)],
            dense_residue: [0; residue_bytes(Dense::REACH)],
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The state before the first byte. The checksum is the complement of the state after the last.
const START: u32 = !0;

/// Continues from `state` over the bytes: cutting a message into pieces gives the same as taking it whole.
fn update<V: Vector>(state: u32, bytes: &[u8], scratch: &mut Scratch) -> u32 {
    let Scratch {
        line,
        sparse_residue,
        dense_residue,
    } = scratch;
    if bytes.len() < DENSE_FROM {
        return by_tables(state, bytes);
    }
    let left = if bytes.len() < SPARSE_FROM {
        fold::<V, Dense>(state, bytes, line, dense_residue)
    } else {
        let left = fold::<V, Sparse>(state, bytes, line, sparse_residue);
        fold::<V, Dense>(0, &sparse_residue[..left], line, dense_residue)
    };
    by_tables(0, &dense_residue[..left])
}

/// A checksum whose input comes in pieces. Any bit pattern is one, so that it may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct State<V>(u32, PhantomData<V>);

impl<V: Vector> Digest for State<V> {
    const TAG_BYTES: usize = 8;

    fn new(_key: Option<&[u8; KEY_BYTES]>) -> Self {
        Self(START, PhantomData)
    }

    fn update(&mut self, bytes: &[u8], work: &mut Workspace) {
        self.0 = update::<V>(self.0, bytes, &mut work.fold);
    }

    fn finish(&mut self) -> Tag {
        let mut tag = [0; 32];
        tag[..4].copy_from_slice(&(!self.0).to_le_bytes());
        tag
    }
}

/// Folds `bytes`, whose checksum so far is `state`, into fewer bytes with the same checksum from state 0, puts them
/// into
/// `residue` and answers how many they are: at least the multiple's reach. `bytes` must be at least as long.
#[inline(always)]
fn fold<V: Vector, M: Multiple>(state: u32, mut bytes: &[u8], line: &mut [u8], residue: &mut [u8]) -> usize {
    // In front of the message there is nothing; but to start from a state is to add it to the first four bytes, and
    // that is what the farthest tap does with four bytes of history in its place. Every nearer tap looks past them.
    for vector in line[..M::HISTORY].chunks_exact_mut(16) {
        V::ZERO.store(vector, 0);
    }
    line[M::HISTORY - M::REACH..][..4].copy_from_slice(&state.to_le_bytes());

    let mut folding = (bytes.len() - M::REACH) & !15;
    loop {
        let length = folding.min(SEGMENT);
        let (segment, rest) = bytes.split_at(length);
        let (steps, odd) = segment.as_chunks::<64>();
        let mut taps = Taps::<V>::before::<M>(line);
        for (index, step) in steps.iter().enumerate() {
            let window = &mut line[index * 64..][..M::HISTORY + 64];
            taps.gather::<M>(V::load(step, 0), window, 0).store(window, M::HISTORY);
            taps.gather::<M>(V::load(step, 16), window, 16)
                .store(window, M::HISTORY + 16);
            taps.gather::<M>(V::load(step, 32), window, 32)
                .store(window, M::HISTORY + 32);
            taps.gather::<M>(V::load(step, 48), window, 48)
                .store(window, M::HISTORY + 48);
        }
        for (index, step) in odd.chunks_exact(16).enumerate() {
            let window = &mut line[steps.len() * 64 + index * 16..][..M::HISTORY + 16];
            let folded = taps.gather::<M>(V::load(step, 0), window, 0);
            folded.store(window, M::HISTORY);
        }
        bytes = rest;
        folding -= length;
        if folding == 0 {
            return finish::<V, M>(bytes, &mut line[length..], residue);
        }
        for at in (0..M::HISTORY).step_by(16) {
            V::load(line, length + at).store(line, at);
        }
    }
}

/// The last bytes, which are too few to be removed, receive what was removed before them. `line` starts with the
/// history of the first of them.
#[inline(always)]
fn finish<V: Vector, M: Multiple>(bytes: &[u8], line: &mut [u8], residue: &mut [u8]) -> usize {
    for vector in line[M::HISTORY..][..M::HISTORY + 16].chunks_exact_mut(16) {
        V::ZERO.store(vector, 0);
    }
    residue[..bytes.len()].copy_from_slice(bytes);
    let mut taps = Taps::<V>::before::<M>(line);
    for at in (0..bytes.len()).step_by(16) {
        let window = &line[at..][..M::HISTORY + 16];
        taps.gather::<M>(V::load(residue, at), window, 0).store(residue, at);
    }
    bytes.len()
}

/// What gathering remembers from place to place: for each tap of a spliced multiple, the last vector that was loaded.
struct Taps<V>([V; TAPS_MAX]);

impl<V: Vector> Taps<V> {
    /// For the place behind the history that the line begins with.
    #[inline(always)]
    fn before<M: Multiple>(line: &[u8]) -> Self {
        let mut taps = [V::ZERO; TAPS_MAX];
        for (last, tap) in taps.iter_mut().zip(M::TAPS) {
            *last = V::load(line, M::HISTORY - tap.next_multiple_of(16));
        }
        Self(taps)
    }

    /// The vector plus the folded bytes at each tap's distance before it, the nearest as the last to be added. Its own
    /// place in the window is `at` bytes after the history, and each call's is the next.
    #[inline(always)]
    fn gather<M: Multiple>(&mut self, mut vector: V, window: &[u8], at: usize) -> V {
        let place = M::HISTORY + at;
        for (last, tap) in self.0[..M::TAPS.len()].iter_mut().zip(M::TAPS).rev() {
            let folded = if M::SPLICED {
                let next = V::load(window, place - tap / 16 * 16);
                let folded = last.splice(next, 16 - tap % 16);
                *last = next;
                folded
            } else {
                V::load(window, place - tap)
            };
            vector = vector.xor(folded);
        }
        vector
    }
}

/// Continues from `state` over the bytes with one table lookup a byte, sixteen bytes at a time.
fn by_tables(mut state: u32, bytes: &[u8]) -> u32 {
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        // The word that needs the state comes last: until the block before is done, the others can be looked up.
        let mut sum = 0;
        for at in [3, 2, 1] {
            sum ^= look_up(u32::from_le_bytes(words[at]), 12 - 4 * at);
        }
        state = sum ^ look_up(u32::from_le_bytes(words[0]) ^ state, 12);
    }
    for &byte in rest {
        state = (state >> 8) ^ TABLES[0][((state ^ u32::from(byte)) & 255) as usize];
    }
    state
}

/// The remainder of the four bytes followed by a number of zero bytes.
#[inline(always)]
fn look_up(word: u32, zeroes: usize) -> u32 {
    let [a, b, c, d] = word.to_le_bytes().map(usize::from);
    (TABLES[zeroes + 3][a] ^ TABLES[zeroes + 2][b]) ^ (TABLES[zeroes + 1][c] ^ TABLES[zeroes][d])
}

/// `TABLES[n][byte]` is the remainder of the byte followed by n zero bytes.
static TABLES: [[u32; 256]; 16] = tables();

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut zeroes = 0;
        while zeroes < 16 {
            remainder = times_x8(remainder);
            tables[zeroes][byte] = remainder;
            zeroes += 1;
        }
        byte += 1;
    }
    tables
}

/// The remainder multiplied by x^8: one zero byte more.
const fn times_x8(mut remainder: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        remainder = (remainder >> 1) ^ (POLYNOMIAL & (remainder & 1).wrapping_neg());
        bit += 1;
    }
    remainder
}

/// Whether x^8h + sum of x^8(h - t) over the taps t, the last of which is h, leaves no remainder.
const fn is_multiple(taps: &[usize]) -> bool {
    let reach = taps[taps.len() - 1];
    let mut sum = x8_power(reach);
    let mut index = 0;
    while index < taps.len() {
        sum ^= x8_power(reach - taps[index]);
        index += 1;
    }
    sum == 0
}

/// x^8n mod P. The coefficient of x^0 is bit 31.
const fn x8_power(n: usize) -> u32 {
    let mut power = 0x8000_0000;
    let mut index = 0;
    while index < n {
        power = times_x8(power);
        index += 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn digest<V: Vector>(bytes: &[u8], scratch: &mut Scratch) -> u32 {
        !update::<V>(START, bytes, scratch)
    }

    fn bit_by_bit(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |state, &byte| times_x8(state ^ u32::from(byte)))
    }

    #[test]
    fn check_value() {
        assert_eq!(digest::<u128>(b"123456789", &mut Scratch::new()), 0xe306_9283);
    }

    #[test]
    fn every_length_around_every_threshold_agrees_with_bit_by_bit() {
        let mut word = 1u64;
        let bytes: Vec<u8> = (0..3 * SEGMENT)
            .map(|_| {
                word = word.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (word >> 56) as u8
            })
            .collect();
        let mut scratch = Scratch::new();
        let edges = [
            0,
            64,
            DENSE_FROM,
            4096,
            SPARSE_FROM,
            SPARSE_FROM + Sparse::REACH,
            2 * SEGMENT + Sparse::REACH,
        ];
        for edge in edges {
            for length in edge.saturating_sub(17)..=edge + 17 {
                let input = &bytes[edge % 16..][..length];
                assert_eq!(
                    digest::<u128>(input, &mut scratch),
                    bit_by_bit(input),
                    "length {length}"
                );
            }
        }
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let bytes: Vec<u8> = (0..70000u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 24) as u8)
            .collect();
        let mut scratch = Scratch::new();
        for cut in [0, 1, 100, 511, 512, 4096, 20480, 65536, 70000] {
            let (head, tail) = bytes.split_at(cut);
            let state = update::<u128>(START, head, &mut scratch);
            assert_eq!(
                !update::<u128>(state, tail, &mut scratch),
                bit_by_bit(&bytes),
                "cut at {cut}"
            );
        }
    }

    /// The powers x^8i mod P for i up to n.
    fn powers(n: usize) -> Vec<u32> {
        let mut powers = vec![0x8000_0000];
        for i in 0..n {
            powers.push(times_x8(powers[i]));
        }
        powers
    }

    #[test]
    fn no_multiple_of_four_terms_reaches_less_than_sparse() {
        let powers = powers(Sparse::REACH);
        let mut one_and: HashMap<u32, usize> = HashMap::new();
        let mut found = vec![];
        for (high, &power) in powers.iter().enumerate().skip(1) {
            for (middle, &other) in powers[..high].iter().enumerate().skip(1) {
                if let Some(&low) = one_and.get(&(power ^ other)).filter(|&&low| low < middle) {
                    found.push([high - middle, high - low, high]);
                }
            }
            one_and.insert(powers[0] ^ power, high);
        }
        assert_eq!(found, [Sparse::TAPS]);
    }

    #[test]
    fn no_multiple_of_six_terms_reaches_less_than_dense() {
        let powers = powers(Dense::REACH);
        let mut one_and_two: HashMap<u32, (usize, usize)> = HashMap::new();
        for second in 2..powers.len() {
            for first in 1..second {
                one_and_two.insert(powers[0] ^ powers[first] ^ powers[second], (first, second));
            }
        }
        let mut found = vec![];
        for high in 16..powers.len() {
            for middle in 2..=high - 16 {
                for low in 1..middle {
                    let sum = powers[high] ^ powers[middle] ^ powers[low];
                    if let Some(&(first, second)) = one_and_two.get(&sum).filter(|(_, second)| *second < low) {
                        found.push([high - middle, high - low, high - second, high - first, high]);
                    }
                }
            }
        }
        assert_eq!(found, [Dense::TAPS]);
    }
}
