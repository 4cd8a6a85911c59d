/**
 * The numbers of the NBD protocol. All of them are from the public specification, `doc/proto.md` of
 * NetworkBlockDevice/nbd; the names of its sections stand with each group. Everything on the wire is big-endian.
 *
 * @module
 */

/** Magic numbers, as the high and low 32 bits where they have 64 ("Newstyle negotiation", "Request message"). */
export const Magic = {
  /** "NBDMAGIC", the first 8 bytes of the server. */
  INIT_HIGH: 0x4e42444d,
  INIT_LOW: 0x41474943,
  /** "IHAVEOPT", the next 8 bytes of the server and the start of each option. */
  OPTION_HIGH: 0x49484156,
  OPTION_LOW: 0x454f5054,
  OPTION_REPLY_HIGH: 0x0003e889,
  OPTION_REPLY_LOW: 0x045565a9,
  REQUEST: 0x25609513,
  SIMPLE_REPLY: 0x67446698,
  STRUCTURED_REPLY: 0x668e33ef,
} as const;

/** "Handshake flags" (16 bits, by the server) and "Client flags" (32 bits): the same two bits mean the same. */
export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

/** "Transmission flags", 16 bits. */
export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** "Option types". */
export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

/** "Option reply types"; errors have bit 31 set. */
export const OptionReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_TOO_BIG: 0x80000009,
} as const;

/** "NBD_REP_INFO": the information types. */
export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** "Request types". */
export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

/** "Command flags", 16 bits. */
export const CommandFlag = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

/** "Structured reply flags": the last chunk of its reply. */
export const CHUNK_DONE = 1;

/** "Structured reply types"; errors have bit 15 set. */
export const ChunkType = {
  NONE: 0,
  OFFSET_DATA: 1,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** "Error values": all that may stand in a reply. */
export const NbdError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** "`base:allocation` metadata context": its name, and its two status bits. */
export const ALLOCATION_CONTEXT = "base:allocation";
export const StatusFlag = { HOLE: 1, ZERO: 2 } as const;

/** The server's greeting: two magics and 16 bits of flags. */
export const GREETING_BYTES = 18;
/** The client's flags. */
export const CLIENT_FLAGS_BYTES = 4;
/** An option's header: magic, option, length. */
export const OPTION_BYTES = 16;
/** An option reply's header: magic, option, type, length. */
export const OPTION_REPLY_BYTES = 20;
/** The answer to EXPORT_NAME (size and flags), and the zeroes after it for clients that did not decline them. */
export const EXPORT_NAME_REPLY_BYTES = 10;
export const EXPORT_NAME_ZEROES_BYTES = 124;
/** A request: magic, flags, type, cookie, offset, length. */
export const REQUEST_BYTES = 28;
/** A simple reply: magic, error, cookie. */
export const SIMPLE_REPLY_BYTES = 16;
/** A structured reply chunk's header: magic, flags, type, cookie, length. */
export const CHUNK_BYTES = 20;
/** The offset before the data of an OFFSET_DATA chunk. */
export const CHUNK_OFFSET_BYTES = 8;
/** Error and message length at the start of an ERROR chunk. */
export const CHUNK_ERROR_BYTES = 6;
/** The context's id at the start of a BLOCK_STATUS chunk, and each descriptor after it. */
export const CONTEXT_ID_BYTES = 4;
export const DESCRIPTOR_BYTES = 8;

/** "Conventions": the longest string, in bytes. */
export const STRING_BYTES_MAX = 4096;
/** "Block size constraints": the largest READ or WRITE, which every client may count on; 2^25. */
export const BLOCK_BYTES_MAX = 32 * 1024 * 1024;
/** "Block size constraints": the largest minimum block size that may be advertised. */
export const MINIMUM_BLOCK_BYTES_MAX = 65536;
/** "Block size constraints": the smallest preferred block size that may be advertised. */
export const PREFERRED_BLOCK_BYTES_MIN = 512;
