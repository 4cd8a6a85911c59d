//! XXH64 with seed 0, by the specification `xxhash_spec.md` of the xxHash project (section "XXH64 Algorithm
//! Description"), which is also where the five primes come from.
//!
//! There is no SIMD twin: WebAssembly multiplies 64-bit lanes no faster in a vector, and the four lanes of XXH64
//! already fill the one multiplier that a core has. So this one kernel is both the fast and the portable one.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// Bytes of one step of the main loop: two stripes of 32. One stripe leaves V8 with a loop counter and branch per four
/// multiplications; more than two gain nothing.
const STEP: usize = 64;

/// The digest of the bytes, as a number; the wire carries it little-endian.
pub fn digest(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    let (mut hash, mut rest) = if bytes.len() < 32 {
        (PRIME_5, bytes)
    } else {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, PRIME_1.wrapping_neg()];
        let (steps, rest) = bytes.as_chunks::<STEP>();
        for step in steps {
            stripe(&mut lanes, step.first_chunk().expect("half a step"));
            stripe(&mut lanes, step.last_chunk().expect("half a step"));
        }
        let (stripes, rest) = rest.as_chunks::<32>();
        for half in stripes {
            stripe(&mut lanes, half);
        }
        (converge(lanes), rest)
    };
    hash = hash.wrapping_add(length);
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
    use super::digest;

    #[test]
    fn known_digests() {
        assert_eq!(digest(b""), 0xef46_db37_51d8_e999);
        assert_eq!(digest(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(digest(b"abc"), 0x44bc_2cf5_ad77_0999);
    }
}
