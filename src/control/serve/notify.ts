/**
 * sd_notify: tells systemd that the daemon is ready, stopping, alive. Node has no datagram sockets of the unix kind, so the
 * message goes through systemd's own `systemd-notify`, with NotifyAccess=all in the unit.
 */
import { spawn } from 'node:child_process';
import type { Log } from '../log.ts';

export class ServiceManager {
  private timer: NodeJS.Timeout | null = null;

  constructor(
    private readonly env: NodeJS.ProcessEnv,
    private readonly log: Log,
  ) {}

  /** READY=1, and from then on WATCHDOG=1 twice in the time that systemd waits for one. */
  ready(status: string): void {
    this.send('READY=1', `STATUS=${status}`, `MAINPID=${process.pid}`);
    const watchdogUs = Number(this.env.WATCHDOG_USEC);
    const ours = this.env.WATCHDOG_PID === undefined || Number(this.env.WATCHDOG_PID) === process.pid;
    if (!(watchdogUs > 0) || !ours) return;
    this.timer = setInterval(() => this.send('WATCHDOG=1'), watchdogUs / 2000);
    this.timer.unref();
  }

  stopping(): void {
    if (this.timer) clearInterval(this.timer);
    this.send('STOPPING=1');
  }

  private send(...words: string[]): void {
    if (!this.env.NOTIFY_SOCKET) return;
    const child = spawn('systemd-notify', words, { stdio: 'ignore', env: this.env });
    child.once('error', (error) => this.log('warn', 'notify.failed', { message: error.message }));
  }
}
