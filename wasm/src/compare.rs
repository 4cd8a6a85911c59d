//! Comparison of tags in constant time.

use core::hint::black_box;

/// Whether both are equal, in a time that depends on nothing but their length: how many of its first bytes are right
/// must not be seen of a forged tag. Panics if the lengths differ.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    assert_eq!(one.len(), other.len());
    let mut differing = 0;
    for (a, b) in one.iter().zip(other) {
        // Opaque, or else the compiler might stop at the first difference.
        differing = black_box(differing | (a ^ b));
    }
    differing == 0
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn every_bit_counts() {
        let tag: Vec<u8> = (0..32).collect();
        assert!(equal(&tag, &tag) && equal(&[], &[]));
        for bit in 0..tag.len() * 8 {
            let mut other = tag.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!equal(&tag, &other) && !equal(&other, &tag), "bit {bit}");
        }
    }
}
