/**
 * What the page knows: alerts, runs, devices, floor status; and who wants to hear of changes.
 *
 * No DOM and no network. Invariants: a row is replaced only by the same or a newer
 * version of itself, so snapshots and messages may arrive in any order; an optimistic
 * change lives in `_pending` beside the server's row, so taking it back cannot lose
 * what the server said meanwhile; listeners run at most once per frame.
 */

import { severityRank } from "./format.js";

const MAX_ALERTS = 6000;
const SHORT_ID = 10; // signs at the end of an id by which one message names many alerts
const MAX_POINTS = 600;
const MAX_COMMANDS = 500;

export const FINISHED = new Set(["succeeded", "failed", "cancelled", "timed_out"]);

export class Store {
  /** @param {(fn: () => void) => void} schedule runs a function before the next frame */
  constructor(schedule = (fn) => requestAnimationFrame(fn)) {
    this._schedule = schedule;
    this._listeners = [];
    this._dirty = new Set();
    this._pending = new Map(); // alert id -> Map(token -> patch)
    this._alerts = new Map();
    this._shorts = new Map(); // end of an id -> id
    this.silences = new Map();
    this.arrived = new Map(); // alert id -> ms at which this page first heard of it live
    this.runs = new Map();
    this.curves = new Map(); // run id -> {points: [...], last}
    this.devices = [];
    this.commands = new Map(); // id -> command; one that came as a message has no payload
    this.lanes = [];
    this.models = null; // {live, versions, trials, settings}
    this.status = null;
    this.ingest = null; // {data, heardAt}
    this.connection = { name: "connecting" };
    this.config = null;
    this.loaded = { alerts: false, runs: false, devices: false, status: false };
    this.problems = {}; // topic -> sentence, while its last load failed
    this.moreAlerts = null; // cursor of older alerts, null when all are here
  }

  /** Call `listener(topics)` before a frame in which any of `topics` changed. */
  listen(topics, listener) {
    this._listeners.push({ topics: new Set(topics), listener });
  }

  touch(...topics) {
    const isFirst = this._dirty.size === 0;
    for (const topic of topics) this._dirty.add(topic);
    if (isFirst) this._schedule(() => this._flush());
  }

  /** Take over an alert as the server describes it; older versions are ignored. */
  mergeAlert(row) {
    const known = this._alerts.get(row.id);
    if (known && known.version > row.version) return false;
    const isNew = !known;
    this._alerts.set(row.id, { ...row, startsMs: Date.parse(row.starts_at) });
    this._shorts.set(row.id.slice(-SHORT_ID), row.id);
    if (this._alerts.size > MAX_ALERTS) this._forgetOldest();
    this.touch("alerts");
    return isNew;
  }

  /** Take over what one action made of many alerts; what is not here, or newer here, is left alone. */
  mergeChanges(changes) {
    for (const { version, set, ids } of changes) {
      for (let at = 0; at < ids.length; at += SHORT_ID) {
        const row = this._alerts.get(this._shorts.get(ids.slice(at, at + SHORT_ID)));
        if (row && row.version < version) this._alerts.set(row.id, { ...row, ...set, version });
      }
    }
    this.touch("alerts");
  }

  mergeSilence(silence) {
    const known = this.silences.get(silence.id);
    if (known && known.version > silence.version) return;
    if (silence.state === "expired") this.silences.delete(silence.id);
    else this.silences.set(silence.id, silence);
    this.touch("silences");
  }

  /** The alert as it should be shown: the server's row under what we are just changing. */
  alert(id) {
    const row = this._alerts.get(id);
    return row && this._shown(row);
  }

  alerts() {
    return Array.from(this._alerts.values(), (row) => this._shown(row));
  }

  get alertCount() {
    return this._alerts.size;
  }

  /** Show `patch` on these alerts until the returned function is called. */
  expect(ids, patch) {
    const token = Symbol("expected");
    for (const id of ids) {
      if (!this._pending.has(id)) this._pending.set(id, new Map());
      this._pending.get(id).set(token, patch);
    }
    this.touch("alerts");
    return () => {
      for (const id of ids) {
        const patches = this._pending.get(id);
        patches?.delete(token);
        if (patches?.size === 0) this._pending.delete(id);
      }
      this.touch("alerts");
    };
  }

  /** Take over a command: the newer version wins, and its payload stays known, which messages leave out. */
  mergeCommand(command) {
    const known = this.commands.get(command.id);
    // The answer to the order, with the payload, may come after the messages of what became of it.
    this.commands.set(command.id, known?.version > command.version ? { ...command, ...known } : { ...known, ...command });
    if (this.commands.size > MAX_COMMANDS) this.commands.delete(this.commands.keys().next().value);
    this.touch("commands");
  }

  mergeRun(run) {
    const known = this.runs.get(run.id);
    if (known && (known.version ?? 0) > (run.version ?? 0)) return;
    // A row may be older than the progress that rank 0 has sent past it.
    const progress = Math.max(run.progress ?? 0, FINISHED.has(run.state) ? 0 : (known?.progress ?? 0));
    this.runs.set(run.id, { ...known, ...run, progress });
    this.touch("runs");
  }

  /** Add one message of a run's progress: the bar, its text and a point of its loss curve. */
  mergeProgress(data) {
    const id = data.run_id;
    if (!id) return;
    const curve = this.curves.get(id) ?? { points: [], last: null };
    this.curves.set(id, curve);
    const run = this.runs.get(id);
    const isOver = data.state && FINISHED.has(data.state);
    if (run && !FINISHED.has(run.state)) {
      this.runs.set(id, {
        ...run,
        progress: Math.max(run.progress ?? 0, data.progress ?? 0),
        message: data.message ?? run.message,
        ...(isOver ? { state: data.state, reason: data.reason ?? run.reason } : {}),
      });
    }
    const x = data.epoch ?? data.step ?? data.progress;
    if (Number.isFinite(data.loss) || Number.isFinite(data.val_loss)) {
      // The same message comes on user:<id> and on run:<id>; a point is known by its place.
      const known = curve.points.find((point) => point.x === x);
      if (known) Object.assign(known, { loss: data.loss ?? known.loss, val: data.val_loss ?? known.val });
      else curve.points.push({ x, loss: data.loss ?? null, val: data.val_loss ?? null });
      curve.points.sort((a, b) => a.x - b.x);
      if (curve.points.length > MAX_POINTS) curve.points.shift();
    }
    curve.last = data;
    this.touch("runs");
  }

  _shown(row) {
    const patches = this._pending.get(row.id);
    return patches ? Object.assign({}, row, ...patches.values(), { isPending: true }) : row;
  }

  _forgetOldest() {
    // What nobody has to act on leaves first; an unacknowledged alert never leaves.
    const order = { closed: 0, acked: 1, new: 2 };
    const rows = Array.from(this._alerts.values()).sort(
      (a, b) => order[a.handling] - order[b.handling] || a.startsMs - b.startsMs,
    );
    for (const row of rows.slice(0, this._alerts.size - MAX_ALERTS)) {
      if (row.handling === "new") break;
      this._alerts.delete(row.id);
      this._shorts.delete(row.id.slice(-SHORT_ID));
      this.arrived.delete(row.id);
    }
  }

  _flush() {
    const dirty = this._dirty;
    this._dirty = new Set();
    for (const { topics, listener } of this._listeners) {
      if (![...dirty].some((topic) => topics.has(topic))) continue;
      try {
        listener(dirty);
      } catch (error) {
        reportError(error); // one panel's bug must not keep the others from showing alerts
      }
    }
  }
}

/** What each tab of the table shows; the first is where an operator starts. */
export const TABS = [
  { id: "unacked", title: "Unacknowledged", empty: "Nothing waits for you: every alert is acknowledged.", test: (a) => a.handling === "new" },
  { id: "firing", title: "Firing", empty: "Nothing fires right now.", test: (a) => a.condition === "firing" && a.handling !== "closed" },
  { id: "acked", title: "Acknowledged", empty: "No alert is being worked on.", test: (a) => a.handling === "acked" },
  { id: "closed", title: "Closed", empty: "No alert has been closed yet.", test: (a) => a.handling === "closed" },
  { id: "all", title: "All", empty: "No alert has arrived yet.", test: () => true },
];

export const SORTS = {
  worst: (a, b) => severityRank(a.severity) - severityRank(b.severity) || b.startsMs - a.startsMs,
  newest: (a, b) => b.startsMs - a.startsMs,
  device: (a, b) => (a.device_id ?? "").localeCompare(b.device_id ?? "") || b.startsMs - a.startsMs,
  score: (a, b) => (b.source?.score ?? -1) - (a.source?.score ?? -1) || b.startsMs - a.startsMs,
  count: (a, b) => (b.count ?? 0) - (a.count ?? 0) || b.startsMs - a.startsMs,
};

/** True while nobody is told of the alert. */
export const isSuppressed = (alert) => Boolean(alert.suppressed_by?.length);

/** True when every word of `query` stands somewhere in the alert's visible texts. */
export function matches(alert, query) {
  if (!query) return true;
  const text = [
    alert.title, alert.text, alert.device_id, alert.acked_by, alert.escalated_to, alert.tenant, alert.site, alert.metric, alert.severity,
    alert.condition, alert.verdict, alert.source?.model, alert.source?.model_version, alert.source?.rule, alert.id,
  ].filter(Boolean).join(" ").toLowerCase();
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
