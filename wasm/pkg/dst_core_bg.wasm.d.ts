/* tslint:disable */
/* eslint-disable */
export const memory: WebAssembly.Memory;
export const crc32c: (a: number, b: number, c: number) => void;
export const crc32c_portable: (a: number, b: number, c: number) => void;
export const free_from: () => number;
export const xxh64: (a: number, b: number, c: number) => void;
