/** True when there is time: `npm run test:long`, or ATOLL_LONG=1. */
export const LONG = process.env.ATOLL_TEST_LONG === '1' || process.env.ATOLL_LONG === '1';
