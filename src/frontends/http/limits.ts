/** The bounds of the front door (docs/http.md, "Bounds"). Tests make them small; nobody else changes them. */

/** Slow is who is below a rate for so long that what it has in hand is used up; how long something takes in all does not matter. */
export interface Pace {
  bytesPerSecond: number;
  /** how far behind the rate one may fall; it is had in hand at the beginning, and refilled by what moves */
  creditBytes: number;
}

export interface HttpLimits {
  connections: number;
  /** of a request's line and headers */
  headerBytes: number;
  /** until the headers are all there: they are too short for a rate */
  headersMs: number;
  /** between two requests on a connection */
  idleMs: number;
  /** of bodies that are no streams */
  bodyBytes: number;
  /** of a body that nobody wants, after the answer */
  unreadBytes: number;
  /** of a client that sends a body, while it is waited for */
  sending: Pace;
  /** of a client that takes an answer, while the answer waits for it */
  taking: Pace;
  /** how often paces are looked at, while there are requests */
  paceMs: number;
}

export const LIMITS: HttpLimits = {
  connections: 1024,
  headerBytes: 16_384,
  headersMs: 30_000,
  idleMs: 72_000,
  // Keystone's own bound
  bodyBytes: 114_688,
  // What a client has on its way before it looks at the answer; a connection that is closed on it could take the answer with it.
  unreadBytes: 1_048_576,
  // Ten seconds of nothing. A modem is not slow; who sends a byte now and then is.
  sending: { bytesPerSecond: 1024, creditBytes: 10_240 },
  // The kernel takes what is sent in bursts of up to a third of its buffer (4 MiB, tcp_wmem), and in between nothing seems to move:
  // what is in hand has to be more than a burst, and is used up in some four minutes.
  taking: { bytesPerSecond: 8192, creditBytes: 2_097_152 },
  paceMs: 1000,
};
