//! The tags of the frames of one direction: what payloads and headers are protected with, behind one interface for all
//! algorithms (SPEC.md, sections 4.1 and 4.3).
//!
//! A guard's state lies in the host's memory, which the host wipes. So every bit pattern must be a valid state: all of
//! it is integers.

use crate::{compare, crc32c, passage::Passage};

/// Bytes of a header. Its payload tag and its own tag follow it.
pub const HEADER_BYTES: usize = 48;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of the host's memory that a guard's state may take, and what they are aligned to. Of the 1024 that a guard is
/// given the last 64 are for the host to hand over keys.
pub const STATE_BYTES: usize = 960;
/// See [`STATE_BYTES`].
pub const STATE_ALIGNMENT: usize = 64;

/// A tag, in the first bytes.
pub type Tag = [u8; 32];

/// What algorithms work in. It keeps nothing from call to call, so all guards share one.
#[repr(C)]
pub struct Workspace {
    /// Of CRC-32C.
    pub fold: crc32c::Scratch,
}

impl Workspace {
    /// A workspace of zeroes.
    pub const fn new() -> Self {
        Self {
            fold: crc32c::Scratch::new(),
        }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// Tags, and for a cipher the encryption, of one direction. Pieces belong to one payload at a time; headers may come in
/// between.
pub trait Guard {
    /// Bytes of a tag.
    fn tag_bytes(&self) -> usize;
    /// Makes ready what works without keys.
    fn start(&mut self);
    /// Makes ready with these keys. A cipher uses the first for both.
    fn set_keys(&mut self, header: &[u8; KEY_BYTES], payload: &[u8; KEY_BYTES]);
    /// Begins a payload.
    fn begin(&mut self, nonce: u64);
    /// Takes a piece of plaintext, and for a cipher writes the ciphertext.
    fn seal(&mut self, text: Passage, work: &mut Workspace);
    /// Takes a piece of what has been sealed, and for a cipher writes the plaintext.
    fn open(&mut self, text: Passage, work: &mut Workspace);
    /// The tag of all pieces.
    fn finish(&mut self) -> Tag;
    /// Seals a header in place and binds it to its payload tag: the tag of both. `bound` are header and payload tag.
    fn seal_header(&mut self, nonce: u64, bound: &mut [u8], work: &mut Workspace) -> Tag;
    /// Opens a header in place: the tag that it should have.
    fn open_header(&mut self, nonce: u64, bound: &mut [u8], work: &mut Workspace) -> Tag;

    /// Writes the tag of all pieces.
    fn finish_seal(&mut self, tag: &mut [u8]) {
        tag.copy_from_slice(&self.finish()[..self.tag_bytes()]);
    }

    /// Whether this is the tag of all pieces.
    fn finish_open(&mut self, tag: &[u8]) -> bool {
        compare::equal(tag, &self.finish()[..self.tag_bytes()])
    }

    /// Seals the header of a prefix, which is header, payload tag and the tag to be written.
    fn seal_prefix(&mut self, nonce: u64, prefix: &mut [u8], work: &mut Workspace) {
        let (bound, tag) = prefix.split_at_mut(HEADER_BYTES + self.tag_bytes());
        tag.copy_from_slice(&self.seal_header(nonce, bound, work)[..tag.len()]);
    }

    /// Opens the header of a prefix. Answers whether its tag is right.
    fn open_prefix(&mut self, nonce: u64, prefix: &mut [u8], work: &mut Workspace) -> bool {
        let (bound, tag) = prefix.split_at_mut(HEADER_BYTES + self.tag_bytes());
        compare::equal(tag, &self.open_header(nonce, bound, work)[..tag.len()])
    }
}

/// An algorithm that makes a tag of bytes which stay as they are.
pub trait Digest: Copy {
    /// Bytes of a tag.
    const TAG_BYTES: usize;
    /// Before the first piece, with a key or without.
    fn new(key: Option<&[u8; KEY_BYTES]>) -> Self;
    /// Takes a piece. Every piece but the last is a multiple of 512 bytes.
    fn update(&mut self, bytes: &[u8], work: &mut Workspace);
    /// The tag of all pieces.
    fn finish(&mut self) -> Tag;
}

/// A guard that does not encrypt.
#[repr(C)]
pub struct DigestGuard<D> {
    /// What the digest of every header begins with, and every payload's: what there is to do with a key has been done.
    header: D,
    payload: D,
    /// That of the payload at hand.
    running: D,
}

impl<D: Digest> Guard for DigestGuard<D> {
    fn tag_bytes(&self) -> usize {
        D::TAG_BYTES
    }

    fn start(&mut self) {
        self.header = D::new(None);
        self.payload = D::new(None);
    }

    fn set_keys(&mut self, header: &[u8; KEY_BYTES], payload: &[u8; KEY_BYTES]) {
        self.header = D::new(Some(header));
        self.payload = D::new(Some(payload));
    }

    fn begin(&mut self, _nonce: u64) {
        self.running = self.payload;
    }

    fn seal(&mut self, text: Passage, work: &mut Workspace) {
        self.running.update(text.input(), work);
    }

    fn open(&mut self, text: Passage, work: &mut Workspace) {
        self.running.update(text.input(), work);
    }

    fn finish(&mut self) -> Tag {
        self.running.finish()
    }

    fn seal_header(&mut self, _nonce: u64, bound: &mut [u8], work: &mut Workspace) -> Tag {
        let mut digest = self.header;
        digest.update(bound, work);
        digest.finish()
    }

    fn open_header(&mut self, nonce: u64, bound: &mut [u8], work: &mut Workspace) -> Tag {
        self.seal_header(nonce, bound, work)
    }
}
