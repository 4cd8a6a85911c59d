//! ChaCha20 (RFC 8439, section 2.3), four blocks at a time: word i of the four blocks is vector i of sixteen, so that a
//! round needs no shuffles.

use crate::lanes::Lanes;
use core::{array, cell::Cell};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a block.
pub const BLOCK: usize = 64;
/// Bytes of four blocks.
pub const GROUP: usize = 4 * BLOCK;
/// How often a block goes through a double round.
pub const DOUBLE_ROUNDS: usize = 10;

/// Where the counter of blocks stands in a block's words.
const COUNTER: usize = 12;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The words that a stream of blocks begins with. Any bit pattern is one, so that it may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct Stream([u32; 16]);

impl Stream {
    /// A stream at its block 0.
    pub fn new(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> Self {
        let mut words = [0; 16];
        words[..4].copy_from_slice(&CONSTANTS);
        for (word, bytes) in words[4..COUNTER].iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (word, bytes) in words[COUNTER + 1..].iter_mut().zip(nonce.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// The number of the next block.
    pub fn counter(&self) -> u32 {
        self.0[COUNTER]
    }

    /// Goes over a number of blocks.
    pub fn skip(&mut self, blocks: u32) {
        self.0[COUNTER] += blocks;
    }

    /// The next four blocks, or the four after as many more, before the first round.
    #[inline(always)]
    pub fn group<L: Lanes>(&self, first: u32) -> Group<L> {
        let mut words = array::from_fn(|index| L::splat(&self.0[index]));
        words[COUNTER] = words[COUNTER].add(counters(first));
        Group(words)
    }

    /// Ends what [`Self::group`] began: the key stream of the four blocks is added to the bytes.
    #[inline(always)]
    pub fn apply<L: Lanes>(&self, group: &Group<L>, first: u32, from: &[Cell<u8>; GROUP], to: &[Cell<u8>; GROUP]) {
        self.apply_row::<L, 0>(group, first, from, to);
        self.apply_row::<L, 1>(group, first, from, to);
        self.apply_row::<L, 2>(group, first, from, to);
        self.apply_row::<L, 3>(group, first, from, to);
    }

    /// Sixteen bytes of each block.
    #[inline(always)]
    fn apply_row<L: Lanes, const ROW: usize>(
        &self,
        group: &Group<L>,
        first: u32,
        from: &[Cell<u8>; GROUP],
        to: &[Cell<u8>; GROUP],
    ) {
        let mut words: [L; 4] = array::from_fn(|column| {
            let index = 4 * ROW + column;
            group.0[index].add(L::splat(&self.0[index]))
        });
        if ROW == COUNTER / 4 {
            words[COUNTER % 4] = words[COUNTER % 4].add(counters(first));
        }
        for (block, key_stream) in L::transpose(words).into_iter().enumerate() {
            let at = BLOCK * block + 16 * ROW;
            L::load(sixteen(from, at)).xor(key_stream).store(sixteen(to, at));
        }
    }

    /// The next block alone, before the first round.
    #[inline(always)]
    pub fn single<L: Lanes>(&self) -> Single<L> {
        let (rows, _) = self.0.as_chunks::<4>();
        Single(array::from_fn(|row| L::new(rows[row])))
    }

    /// Ends what [`Self::single`] began: the first half of the block.
    #[inline(always)]
    pub fn first_half<L: Lanes>(&self, single: &Single<L>) -> [u8; 32] {
        let begun = self.single::<L>();
        let mut half = [0; 32];
        let cells = Cell::from_mut(&mut half).as_array_of_cells();
        single.0[0].add(begun.0[0]).store(sixteen(cells, 0));
        single.0[1].add(begun.0[1]).store(sixteen(cells, 16));
        half
    }
}

/// What makes four streams' counters of one.
#[inline(always)]
fn counters<L: Lanes>(first: u32) -> L {
    L::new([first, first + 1, first + 2, first + 3])
}

#[inline(always)]
fn sixteen(bytes: &[Cell<u8>], at: usize) -> &[Cell<u8>; 16] {
    bytes[at..].first_chunk().expect("sixteen bytes")
}

/// Four blocks on their way through the rounds.
#[derive(Clone, Copy)]
pub struct Group<L>([L; 16]);

impl<L: Lanes> Group<L> {
    /// Two rounds: columns, then diagonals.
    #[inline(always)]
    pub fn double_round(&mut self, masks: L::Masks) {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            self.quarter_round(a, b, c, d, masks);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            self.quarter_round(a, b, c, d, masks);
        }
    }

    #[inline(always)]
    fn quarter_round(&mut self, a: usize, b: usize, c: usize, d: usize, masks: L::Masks) {
        let x = &mut self.0;
        [x[a], x[b], x[c], x[d]] = quarter_round([x[a], x[b], x[c], x[d]], masks);
    }
}

/// One block on its way through the rounds, a row in each vector.
#[derive(Clone, Copy)]
pub struct Single<L>([L; 4]);

impl<L: Lanes> Single<L> {
    /// Two rounds: columns, then diagonals, which stand in columns for that time.
    #[inline(always)]
    pub fn double_round(&mut self, masks: L::Masks) {
        let [a, b, c, d] = quarter_round(self.0, masks);
        let [a, b, c, d] = quarter_round([a, b.turn_1(), c.turn_2(), d.turn_3()], masks);
        self.0 = [a, b.turn_3(), c.turn_2(), d.turn_1()];
    }
}

/// RFC 8439, section 2.1.
#[inline(always)]
fn quarter_round<L: Lanes>([mut a, mut b, mut c, mut d]: [L; 4], masks: L::Masks) -> [L; 4] {
    a = a.add(b);
    d = d.xor(a).rotate_16(masks);
    c = c.add(d);
    b = b.xor(c).rotate_12();
    a = a.add(b);
    d = d.xor(a).rotate_8(masks);
    c = c.add(d);
    b = b.xor(c).rotate_7();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Portable;

    /// The key of RFC 8439, sections 2.3.2 and 2.4.2: 0, 1, 2, ...
    fn key() -> [u8; KEY_BYTES] {
        array::from_fn(|index| index as u8)
    }

    fn four_blocks(stream: &Stream, first: u32) -> [u8; GROUP] {
        let mut bytes = [0; GROUP];
        let mut group = stream.group::<Portable>(first);
        for _ in 0..DOUBLE_ROUNDS {
            group.double_round(());
        }
        let cells = Cell::from_mut(&mut bytes).as_array_of_cells();
        stream.apply(&group, first, cells, cells);
        bytes
    }

    /// RFC 8439, section 2.3.2.
    #[test]
    fn the_block_of_the_rfc() {
        let nonce = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
        let mut stream = Stream::new(&key(), &nonce);
        stream.skip(1);
        let expected: [u32; 16] = [
            0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3, 0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3, 0x466482d2,
            0x09aa9f07, 0x05d7c214, 0xa2028bd9, 0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2,
        ];
        let blocks = four_blocks(&stream, 0);
        let words: [u32; 16] = array::from_fn(|index| u32::from_le_bytes(blocks.as_chunks().0[index]));
        assert_eq!(words, expected);
    }

    #[test]
    fn a_block_is_the_same_alone_and_in_every_place_of_a_group() {
        let mut stream = Stream::new(&key(), &[7; NONCE_BYTES]);
        let blocks = [four_blocks(&stream, 0), four_blocks(&stream, 4)].concat();
        for (index, block) in blocks.chunks_exact(BLOCK).enumerate() {
            let mut single = stream.single::<Portable>();
            for _ in 0..DOUBLE_ROUNDS {
                single.double_round(());
            }
            assert_eq!(stream.counter(), index as u32);
            assert_eq!(stream.first_half(&single), block[..BLOCK / 2]);
            assert_eq!(four_blocks(&stream, 0)[..BLOCK], *block);
            stream.skip(1);
        }
    }
}
