/**
 * Small pictures of the evidence behind model alerts, loaded only for rows in sight.
 *
 * One request a quarter of a second at most, fifty alerts in each; what came back empty
 * is remembered too, so a row never asks twice.
 */

const BATCH = 50;
const WAIT_MS = 250;
const KEPT = 2000;

export class Sparks {
  constructor(api, onLoaded) {
    this._api = api;
    this._onLoaded = onLoaded;
    this._known = new Map(); // id -> {values, at} | null
    this._wanted = new Set();
    this._timer = 0;
  }

  /** The alert's picture; undefined while it is unknown, null when there is none. */
  get(id) {
    return this._known.get(id);
  }

  want(id) {
    if (this._known.has(id) || this._wanted.has(id)) return;
    this._wanted.add(id);
    this._timer ||= setTimeout(() => this._load(), WAIT_MS);
  }

  async _load() {
    const ids = [...this._wanted].slice(-BATCH);
    this._wanted.clear(); // rows that scrolled past while we waited ask again when they come back
    let sparks = {};
    try {
      sparks = (await this._api.sparks(ids)).sparks;
    } catch {
      // The picture is a convenience: the row stands without it, and the connection says what is wrong.
    }
    for (const id of ids) this._known.set(id, sparks[id] ?? null);
    for (const id of this._known.keys()) {
      if (this._known.size <= KEPT) break;
      this._known.delete(id);
    }
    this._timer = 0;
    this._onLoaded();
  }
}
