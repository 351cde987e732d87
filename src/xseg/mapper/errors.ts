/** errno values that map faults end with (Linux numbers, as native code and NBD use them). */
export const ENOENT = 2;
export const EIO = 5;
export const EBUSY = 16;
export const EINVAL = 22;
export const ENOSPC = 28;
export const EROFS = 30;
export const ESHUTDOWN = 108;
