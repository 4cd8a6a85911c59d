/**
 * Every limit of the protocol, with its reason. The numbers are those of SPEC.md, section "Limits"; the ones marked
 * local are an end's own choice and not part of the wire.
 *
 * @module
 */

/** Bytes of a hello's body. A whole hello fits 512 bytes: all that a stranger can make the exporter hold. */
export const HELLO_BODY_BYTES_MAX = 496;
/** Bytes of a door message's TLVs. Room for a LIST answer of 200 long names; nothing larger is ever needed. */
export const CONTROL_BYTES_MAX = 65_536;
/** Door requests on one connection: pages of LIST. A connection does not live at the door. */
export const DOOR_REQUESTS_MAX = 256;
/** Bytes of the name of an export or a holder, as UTF-8. As long as file names may be. */
export const NAME_BYTES_MAX = 255;
/** Slots of a lane: four times the deepest queue of today's disks. */
export const DEPTH_MAX = 1024;
/** Payload of one frame in the lane phase. Larger requests gain nothing and hold up others. */
export const PAYLOAD_BYTES_MAX = 1_048_576;
/** The least that an exporter may grant as a lane's maximum payload: a page, so that one always fits. */
export const PAYLOAD_BYTES_GRANT_MIN = 4096;
/** Lanes of a session: one for each core of a large machine. */
export const LANES_MAX = 64;
/** The largest offset, length or size: 2^53 - 1, a safe integer in every language. */
export const SIZE_MAX = Number.MAX_SAFE_INTEGER;
/** How long a session may wish to stay without a lane: a day. */
export const LEASE_MS_MAX = 86_400_000;
/** From one FENCING to the next: well below any dead-peer time. */
export const FENCING_INTERVAL_MS = 1000;
/** A peer that sent nothing for this long is pinged. Local. */
export const PING_IDLE_MS = 1000;
/**
 * A peer that sent nothing for this long, its pong included, is taken for dead. Local. Long, because a pong can wait
 * behind a full socket buffer (some MB) on a slow link, and an exporter loses nothing by waiting: a client that comes
 * back joins its lane again at once.
 */
export const PEER_DEAD_MS = 30_000;
/** From accept to the first OPEN, JOIN, LIST or DESCRIBE, and between door requests. */
export const HANDSHAKE_TIME_MS = 10_000;
/** Frames of a direction under one key: far below what either cipher allows (SPEC.md, 4.3). */
export const REKEY_FRAMES = 2 ** 20;
/** Bytes of the TLVs that answer an OPEN or JOIN. The known ones take 216; the rest is for later versions. Local. */
export const GRANT_BYTES_MAX = 4096;
