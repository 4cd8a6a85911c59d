//! The core of DST: digests and ciphers over bytes where they lie, in the one memory that a Worker shares with the
//! kernel.
//!
//! Every export takes offsets in that memory and writes its result to one, so that only 32-bit numbers cross the
//! boundary. Nothing allocates, and the memory never grows from within. Unsafe are `boundary.rs`, `passage.rs`, and the
//! loads and stores of `vector.rs` and `lanes.rs`.
#![cfg_attr(all(target_arch = "wasm32", not(test)), no_std)]

pub mod aead;
pub mod blake2b;
pub mod chacha20;
pub mod compare;
pub mod crc32c;
pub mod guard;
pub mod lanes;
pub mod passage;
pub mod poly1305;
pub mod sha256;
pub mod vector;
pub mod xxh64;

#[cfg(target_arch = "wasm32")]
mod boundary;
