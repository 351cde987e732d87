/** The mapper's two clocks. Given in, so that a simulation can let days pass in a second. */
export interface Clock {
  /** monotonic milliseconds */
  now(): number;
  /** Unix milliseconds */
  date(): number;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  date: () => Date.now(),
};
