//! What the host sees: functions over offsets in the one memory.

use crate::{
    aead::ChaCha20Poly1305,
    blake2b, crc32c,
    guard::{DigestGuard, Guard, HEADER_BYTES, KEY_BYTES, STATE_ALIGNMENT, STATE_BYTES, Workspace},
    lanes::Portable,
    passage::Passage,
    sha256::Hmac,
    xxh64,
};
use core::{
    arch::wasm32::{unreachable, v128},
    mem::MaybeUninit,
    slice,
};

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    unreachable()
}

/// Bytes of a page of the host's memory, which the free area starts on. 4 KiB on x86-64; the 64 KiB of a
/// WebAssembly page and of some aarch64 kernels would only waste.
const PAGE_BYTES: usize = 4096;

unsafe extern "C" {
    /// Where the linker says that the stack and all statics end.
    static __heap_base: u8;
}

/// The offset where the memory that nothing in here uses begins, page-aligned.
#[unsafe(no_mangle)]
pub extern "C" fn free_from() -> usize {
    (&raw const __heap_base).addr().next_multiple_of(PAGE_BYTES)
}

/// The one workspace.
///
/// # Safety
/// The answer of the call before is not used any more.
#[inline(always)]
unsafe fn workspace() -> &'static mut Workspace {
    static mut WORKSPACE: Workspace = Workspace::new();
    // SAFETY: an instance runs on one thread and nothing in here calls out of it, so with what the caller promised
    // this is the only reference. It is no part of the free area, so no argument points into it either.
    unsafe {
        let workspace = &raw mut WORKSPACE;
        &mut *workspace
    }
}

/// Numbers of the algorithms: those of SPEC.md, section 2, for digests as they are, for ciphers with 256 added.
const CRC32C: u32 = 1;
const XXH64: u32 = 2;
const BLAKE2B_256: u32 = 3;
const HMAC_SHA_256: u32 = 4;
const CHACHA20_POLY1305: u32 = 256 + 1;
/// What is added for the twin without SIMD, which is there to be compared with.
const PORTABLE: u32 = 512;
const CRC32C_PORTABLE: u32 = PORTABLE + CRC32C;
const CHACHA20_POLY1305_PORTABLE: u32 = PORTABLE + CHACHA20_POLY1305;

type Crc32cGuard = DigestGuard<crc32c::State<v128>>;
type Xxh64Guard = DigestGuard<xxh64::State>;
type Blake2bGuard = DigestGuard<blake2b::State>;
type HmacGuard = DigestGuard<Hmac>;
type CipherGuard = ChaCha20Poly1305<v128>;

const fn fits_the_state<G>() -> bool {
    size_of::<G>() <= STATE_BYTES && align_of::<G>() <= STATE_ALIGNMENT
}
const _: () = assert!(fits_the_state::<Crc32cGuard>() && fits_the_state::<Xxh64Guard>());
const _: () = assert!(fits_the_state::<Blake2bGuard>() && fits_the_state::<HmacGuard>());
const _: () = assert!(fits_the_state::<CipherGuard>());

/// The guard in the host's memory.
///
/// # Safety
/// `[state, state + STATE_BYTES)` lies in the free area, aligned to STATE_ALIGNMENT, and nothing else refers to it
/// while the answer is used.
#[inline(always)]
unsafe fn guard<'a>(algorithm: u32, state: *mut u8) -> &'a mut dyn Guard {
    // SAFETY: as the caller promised, it is large enough and aligned; the guards are made of integers, for which all
    // bytes are right.
    unsafe {
        match algorithm {
            CRC32C => &mut *state.cast::<Crc32cGuard>(),
            CRC32C_PORTABLE => &mut *state.cast::<DigestGuard<crc32c::State<u128>>>(),
            XXH64 => &mut *state.cast::<Xxh64Guard>(),
            BLAKE2B_256 => &mut *state.cast::<Blake2bGuard>(),
            HMAC_SHA_256 => &mut *state.cast::<HmacGuard>(),
            CHACHA20_POLY1305 => &mut *state.cast::<CipherGuard>(),
            CHACHA20_POLY1305_PORTABLE => &mut *state.cast::<ChaCha20Poly1305<Portable>>(),
            _ => unreachable(),
        }
    }
}

/// Makes the guard ready to be used without keys.
///
/// # Safety
/// For this and all `guard_` functions: every range lies in the free area, and those of one call, with the
/// `STATE_BYTES` at `state`, are apart, but for the text and what becomes of it, which may be the same. `state` is a
/// multiple of `STATE_ALIGNMENT`. Lengths are below 2^31.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_start(algorithm: u32, state: *mut u8) {
    // SAFETY: as the caller promised.
    unsafe { guard(algorithm, state).start() }
}

/// Makes the guard ready with the two keys, of headers and of payloads, that are one after the other at `keys`.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_set_keys(algorithm: u32, state: *mut u8, keys: *const u8) {
    // SAFETY: as the caller promised.
    unsafe {
        let [header, payload] = &*keys.cast::<[[u8; KEY_BYTES]; 2]>();
        guard(algorithm, state).set_keys(header, payload);
    }
}

/// Seals a payload of one piece.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_seal(
    algorithm: u32,
    state: *mut u8,
    nonce: *const u8,
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    tag: *mut u8,
) {
    // SAFETY: as the caller promised.
    unsafe {
        let guard = guard(algorithm, state);
        guard.begin(number(nonce));
        guard.seal(Passage::new(from, to, bytes), workspace());
        guard.finish_seal(slice::from_raw_parts_mut(tag, guard.tag_bytes()));
    }
}

/// Opens a payload of one piece in place. Answers whether its tag is right.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_open(
    algorithm: u32,
    state: *mut u8,
    nonce: *const u8,
    text: *mut u8,
    bytes: usize,
    tag: *const u8,
) -> bool {
    // SAFETY: as the caller promised.
    unsafe {
        let guard = guard(algorithm, state);
        guard.begin(number(nonce));
        guard.open(Passage::new(text, text, bytes), workspace());
        guard.finish_open(slice::from_raw_parts(tag, guard.tag_bytes()))
    }
}

/// Begins a payload that comes in pieces.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_begin(algorithm: u32, state: *mut u8, nonce: *const u8) {
    // SAFETY: as the caller promised.
    unsafe { guard(algorithm, state).begin(number(nonce)) }
}

/// Seals the next piece.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_seal_piece(algorithm: u32, state: *mut u8, from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: as the caller promised.
    unsafe { guard(algorithm, state).seal(Passage::new(from, to, bytes), workspace()) }
}

/// Writes the tag of the pieces.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_finish_seal(algorithm: u32, state: *mut u8, tag: *mut u8) {
    // SAFETY: as the caller promised.
    unsafe {
        let guard = guard(algorithm, state);
        guard.finish_seal(slice::from_raw_parts_mut(tag, guard.tag_bytes()));
    }
}

/// Opens the next piece in place.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_open_piece(algorithm: u32, state: *mut u8, text: *mut u8, bytes: usize) {
    // SAFETY: as the caller promised.
    unsafe { guard(algorithm, state).open(Passage::new(text, text, bytes), workspace()) }
}

/// Answers whether the tag of the pieces is right.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_finish_open(algorithm: u32, state: *mut u8, tag: *const u8) -> bool {
    // SAFETY: as the caller promised.
    unsafe {
        let guard = guard(algorithm, state);
        guard.finish_open(slice::from_raw_parts(tag, guard.tag_bytes()))
    }
}

/// Seals the header of the prefix: header, payload tag, header tag.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_seal_header(algorithm: u32, state: *mut u8, nonce: *const u8, prefix: *mut u8) {
    // SAFETY: as the caller promised.
    unsafe {
        let guard = guard(algorithm, state);
        let prefix = slice::from_raw_parts_mut(prefix, HEADER_BYTES + 2 * guard.tag_bytes());
        guard.seal_prefix(number(nonce), prefix, workspace());
    }
}

/// Opens the header of the prefix. Answers whether its tag is right.
///
/// # Safety
/// See [`guard_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guard_open_header(algorithm: u32, state: *mut u8, nonce: *const u8, prefix: *mut u8) -> bool {
    // SAFETY: as the caller promised.
    unsafe {
        let guard = guard(algorithm, state);
        let prefix = slice::from_raw_parts_mut(prefix, HEADER_BYTES + 2 * guard.tag_bytes());
        guard.open_prefix(number(nonce), prefix, workspace())
    }
}

/// Clears what calls have left on the stack below here, as among it may be what keys can be told from.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wipe_stack() {
    /// Several times what the deepest call takes, and a part of the stack's 64 KiB.
    const WORDS: usize = 16 * 1024 / 8;
    let mut stack = [MaybeUninit::<u64>::uninit(); WORDS];
    for word in &mut stack {
        // SAFETY: the word is ours. A plain write would be left out, as nobody reads it.
        unsafe { word.as_mut_ptr().write_volatile(0) }
    }
}

/// The counter of a nonce.
///
/// # Safety
/// `[at, at + 8)` is the caller's to read.
#[inline(always)]
unsafe fn number(at: *const u8) -> u64 {
    // SAFETY: as the caller promised; an array of bytes has no alignment.
    u64::from_le_bytes(unsafe { *at.cast::<[u8; 8]>() })
}
