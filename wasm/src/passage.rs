//! Bytes on their way through a cipher: in place, or from one range to another.

use core::{cell::Cell, marker::PhantomData, ptr, slice};

/// Bytes that may change while there are references to them.
pub type Text = [Cell<u8>];

/// A range of bytes and the range, of the same length, that takes what becomes of them: the same one, or one apart from
/// it.
pub struct Passage<'a> {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    ranges: PhantomData<&'a mut [u8]>,
}

impl<'a> Passage<'a> {
    /// Of ranges that the caller knows about.
    ///
    /// # Safety
    /// For `'a`, both ranges of `bytes` are valid, the second for writing too, and nothing else refers to them. They
    /// are the same or apart.
    pub unsafe fn new(from: *const u8, to: *mut u8, bytes: usize) -> Self {
        Self {
            from,
            to,
            bytes,
            ranges: PhantomData,
        }
    }

    /// The bytes are replaced by what becomes of them.
    pub fn in_place(bytes: &'a mut [u8]) -> Self {
        // SAFETY: one range, exclusively borrowed.
        unsafe { Self::new(bytes.as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// The bytes stay, and what becomes of them goes elsewhere. Panics if the lengths differ.
    pub fn apart(from: &'a mut [u8], to: &'a mut [u8]) -> Self {
        assert_eq!(from.len(), to.len());
        // SAFETY: two ranges, each exclusively borrowed.
        unsafe { Self::new(from.as_ptr(), to.as_mut_ptr(), from.len()) }
    }

    /// The bytes as they came, for who only reads.
    pub fn input(&self) -> &[u8] {
        // SAFETY: as `new` was promised; nobody writes while `self` is borrowed.
        unsafe { slice::from_raw_parts(self.from, self.bytes) }
    }

    /// Where to read and where to write, which may be the same place.
    pub fn both(&mut self) -> (&Text, &Text) {
        // SAFETY: as `new` was promised; cells may refer to the same bytes.
        unsafe {
            let from = ptr::slice_from_raw_parts(self.from.cast::<Cell<u8>>(), self.bytes);
            let to = ptr::slice_from_raw_parts(self.to.cast_const().cast::<Cell<u8>>(), self.bytes);
            (&*from, &*to)
        }
    }
}

/// The sixteen bytes as two little-endian words.
#[inline(always)]
pub fn words_of(block: &[Cell<u8>; 16]) -> [u64; 2] {
    // SAFETY: the bytes read are those of the array; it has no alignment.
    let bytes: [[u8; 8]; 2] = unsafe { block.as_ptr().cast::<[[u8; 8]; 2]>().read() };
    bytes.map(u64::from_le_bytes)
}
