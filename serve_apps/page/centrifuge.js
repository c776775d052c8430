/**
 * Client of the Centrifuge JSON protocol v2: one WebSocket, server-side and own
 * subscriptions, recovery by (epoch, offset), pings answered, reconnects with full jitter.
 *
 * Knows nothing of alerts or runs. Not here: publish, presence, tokens (the cookie says
 * who we are), other transports. Invariant: a publication is handed over at most once
 * and in order of its channel's offsets; where one may have been missed, `onLost`
 * names the channel and the owner loads fresh state.
 */

const CONNECT_TIMEOUT_MS = 10_000;
const PING_GRACE_MS = 10_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_CAP_MS = 15_000;

/** True for close codes after which a client must not come back by itself. */
export function isFinal(code) {
  // 1009 means that what we sent was too large: sending it again cannot help.
  return code === 1009 || (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);
}

/** Wait before reconnect number `attempt` (0, 1, ...): full jitter below a doubling cap. */
export function backoffMs(attempt, random = Math.random) {
  return random() * Math.min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 10));
}

export class CentrifugeClient {
  /**
   * @param {string} url ws:// or wss:// address
   * @param {object} on handlers, all optional: state({name, ...}), publication(channel, data),
   *   lost(channels), refused(channel, error)
   * @param {object} env replaced by tests: WebSocket, setTimeout, clearTimeout, now, random
   */
  constructor(url, on, env = {}) {
    this._url = url;
    this._on = on;
    this._env = {
      WebSocket: globalThis.WebSocket,
      setTimeout: (fn, ms) => setTimeout(fn, ms),
      clearTimeout: (id) => clearTimeout(id),
      now: () => Date.now(),
      random: Math.random,
      ...env,
    };
    this._socket = null;
    this._id = 0;
    this._replies = new Map();
    this._positions = new Map(); // channel -> {epoch, offset}; what we have handed over
    this._own = new Map(); // channel -> "waiting" | "joining" | "joined"
    this._attempt = 0;
    this._timers = { retry: 0, watchdog: 0 };
    this._ping = null;
    this.heardAt = null; // when the server last said anything, ms
  }

  /** Open the connection, or open it now instead of at the end of a back-off. */
  connect() {
    if (this._socket) return;
    this._clear("retry");
    this._state("connecting");
    const socket = new this._env.WebSocket(this._url);
    this._socket = socket;
    // A socket that we gave up may still deliver events: only the current one counts.
    const current = (handler) => (event) => this._socket === socket && handler(event);
    socket.onopen = current(() => this._sayHello());
    socket.onmessage = current((event) => this._receive(event.data));
    socket.onclose = current((event) => this._closed(event.code, event.reason));
    this._watch(CONNECT_TIMEOUT_MS);
  }

  /** Leave for good. */
  disconnect() {
    this._drop(1000, "");
    this._clear("retry");
    this._state("closed", { code: 1000, reason: "left" });
  }

  /** Join a channel; publications still in its history are handed over first. */
  subscribe(channel) {
    if (this._own.has(channel)) return;
    this._own.set(channel, "waiting");
    if (this._connected) this._join(channel);
  }

  unsubscribe(channel) {
    if (!this._own.delete(channel)) return;
    this._positions.delete(channel);
    if (this._connected) this._send("unsubscribe", { channel }, () => {});
  }

  /** Call a method of the server; what it answers is nobody's concern here. Nothing happens without a connection. */
  tell(method, data) {
    if (this._connected) this._send("rpc", { method, data }, () => {});
  }

  _sayHello() {
    const subs = {};
    for (const [channel, position] of this._positions) {
      if (!this._own.has(channel)) subs[channel] = { recover: true, ...position };
    }
    this._send("connect", { name: "watchfloor-page", subs }, (reply) => {
      if (reply.error) {
        const { code, message, temporary } = reply.error;
        this._closed(temporary || code === 109 ? 3000 : 3500, message);
        return;
      }
      const { subs: joined = {}, ping, pong } = reply.connect;
      this._ping = ping ? { ms: ping * 1000, answer: pong === true } : null;
      this._connected = true;
      this._attempt = 0;
      this._watch();
      const lost = [];
      for (const channel of this._positions.keys()) {
        // A right that was taken away while we were gone: its stream no longer concerns us.
        if (!(channel in joined) && !this._own.has(channel)) this._positions.delete(channel);
      }
      for (const [channel, result] of Object.entries(joined)) this._joined(channel, result, lost);
      this._state("connected");
      if (lost.length) this._on.lost?.(lost);
      for (const channel of this._own.keys()) this._join(channel);
    });
  }

  _join(channel) {
    this._own.set(channel, "joining");
    // From offset 0 of any epoch: the first join also brings what the channel still remembers.
    const position = this._positions.get(channel) ?? { epoch: "", offset: 0 };
    const isFirst = !this._positions.has(channel);
    this._send("subscribe", { channel, recover: true, ...position }, (reply) => {
      if (!this._own.has(channel)) return;
      if (reply.error) {
        const isTemporary = reply.error.temporary || reply.error.code < 100;
        if (isTemporary) this._env.setTimeout(() => this._connected && this._own.has(channel) && this._join(channel), 2000);
        else this._own.delete(channel);
        if (!isTemporary) this._on.refused?.(channel, reply.error);
        return;
      }
      this._own.set(channel, "joined");
      const lost = [];
      this._joined(channel, reply.subscribe, lost);
      if (lost.length && !isFirst) this._on.lost?.(lost);
    });
  }

  _joined(channel, result, lost) {
    if (result.was_recovering && !result.recovered) lost.push(channel);
    this._positions.set(channel, { epoch: result.epoch ?? "", offset: result.offset ?? 0 });
    for (const publication of result.publications ?? []) this._deliver(channel, publication);
  }

  _deliver(channel, publication) {
    const position = this._positions.get(channel);
    if (position && publication.offset) {
      if (publication.offset <= position.offset) return;
      position.offset = publication.offset;
    }
    this._on.publication?.(channel, publication.data);
  }

  _receive(frame) {
    this.heardAt = this._env.now();
    this._watch();
    for (const line of String(frame).split("\n")) {
      if (!line) continue;
      const message = JSON.parse(line);
      if (message.id) {
        const reply = this._replies.get(message.id);
        this._replies.delete(message.id);
        reply?.(message);
      } else if (message.push) {
        this._pushed(message.push);
      } else if (this._ping?.answer) {
        this._socket?.send("{}");
      }
    }
  }

  _pushed(push) {
    const channel = push.channel;
    if (push.pub) this._deliver(channel, push.pub);
    else if (push.subscribe) this._joined(channel, push.subscribe, []);
    else if (push.disconnect) this._closed(push.disconnect.code, push.disconnect.reason);
    else if (push.unsubscribe && this._own.has(channel)) {
      if (push.unsubscribe.code >= 2500) this._join(channel);
      else {
        this._own.delete(channel);
        this._on.refused?.(channel, { code: push.unsubscribe.code, message: push.unsubscribe.reason });
      }
    } else if (push.unsubscribe) this._positions.delete(channel);
  }

  _send(method, params, onReply) {
    this._id += 1;
    this._replies.set(this._id, onReply);
    this._socket.send(JSON.stringify({ id: this._id, [method]: params }));
  }

  _closed(code, reason) {
    this._drop(3000, "");
    if (isFinal(code)) {
      this._state("closed", { code, reason });
      return;
    }
    const wait = backoffMs(this._attempt, this._env.random);
    this._attempt += 1;
    this._state("waiting", { code, reason, attempt: this._attempt, retryAt: this._env.now() + wait });
    this._timers.retry = this._env.setTimeout(() => this.connect(), wait);
  }

  _drop(code, reason) {
    const socket = this._socket;
    this._socket = null;
    this._connected = false;
    this._ping = null;
    this._replies.clear();
    this._clear("watchdog");
    for (const channel of this._own.keys()) this._own.set(channel, "waiting");
    try {
      socket?.close(code, reason);
    } catch {
      // Already closing: there is nothing left to end.
    }
  }

  _watch(ms = this._ping ? this._ping.ms + PING_GRACE_MS : CONNECT_TIMEOUT_MS) {
    this._clear("watchdog");
    if (this._connected && !this._ping) return; // a server without pings cannot be watched
    this._timers.watchdog = this._env.setTimeout(() => this._closed(3012, "the server fell silent"), ms);
  }

  _clear(timer) {
    this._env.clearTimeout(this._timers[timer]);
    this._timers[timer] = 0;
  }

  _state(name, detail = {}) {
    this._on.state?.({ name, ...detail });
  }
}
