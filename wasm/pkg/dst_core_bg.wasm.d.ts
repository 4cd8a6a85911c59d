/* tslint:disable */
/* eslint-disable */
export const memory: WebAssembly.Memory;
export const free_from: () => number;
export const guard_begin: (a: number, b: number, c: number) => void;
export const guard_finish_open: (a: number, b: number, c: number) => number;
export const guard_finish_seal: (a: number, b: number, c: number) => void;
export const guard_open: (a: number, b: number, c: number, d: number, e: number, f: number) => number;
export const guard_open_header: (a: number, b: number, c: number, d: number) => number;
export const guard_open_piece: (a: number, b: number, c: number, d: number) => void;
export const guard_seal: (a: number, b: number, c: number, d: number, e: number, f: number, g: number) => void;
export const guard_seal_header: (a: number, b: number, c: number, d: number) => void;
export const guard_seal_piece: (a: number, b: number, c: number, d: number, e: number) => void;
export const guard_set_keys: (a: number, b: number, c: number) => void;
export const guard_start: (a: number, b: number) => void;
export const wipe_stack: () => void;
