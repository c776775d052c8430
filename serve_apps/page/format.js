/**
 * Numbers, ages and times as people read them. Pure functions, no DOM.
 *
 * Ages are counted against the server's clock: `Clock` learns the offset from the
 * API, so a wrong clock on the operator's machine cannot make an alert look younger.
 */

export const SEVERITIES = ["critical", "high", "warning", "low", "info"];

/** 0 for critical, growing as severity falls; unknown names come last. */
export function severityRank(severity) {
  const rank = SEVERITIES.indexOf(severity);
  return rank < 0 ? SEVERITIES.length : rank;
}

export class Clock {
  constructor(read = () => Date.now()) {
    this._read = read;
    this._offset = 0;
  }

  /** Take over the server's time, given as ISO text. */
  set(iso) {
    const server = Date.parse(iso);
    if (Number.isFinite(server)) this._offset = server - this._read();
  }

  /** Milliseconds since the epoch, on the server's clock. */
  now() {
    return this._read() + this._offset;
  }
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** "09 s", "3:07", "2 h 04", "5 d": at most six characters, so that the column never moves. */
export function age(ms) {
  if (!Number.isFinite(ms)) return "–";
  const value = Math.max(0, ms);
  if (value < MINUTE) return `${Math.floor(value / 1000)} s`;
  if (value < HOUR) return `${Math.floor(value / MINUTE)}:${pad(Math.floor((value % MINUTE) / 1000))}`;
  if (value < DAY) return `${Math.floor(value / HOUR)} h ${pad(Math.floor((value % HOUR) / MINUTE))}`;
  return `${Math.floor(value / DAY)} d`;
}

/** Duration in words for running text: "4 s", "3 min 07 s", "2 h 04 min". */
export function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  const value = Math.max(0, ms);
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < MINUTE) return `${(value / 1000).toFixed(value < 10_000 ? 1 : 0)} s`;
  if (value < HOUR) return `${Math.floor(value / MINUTE)} min ${pad(Math.floor((value % MINUTE) / 1000))} s`;
  return `${Math.floor(value / HOUR)} h ${pad(Math.floor((value % HOUR) / MINUTE))} min`;
}

/** "2026-01-31 12:04:05 UTC"; empty for what is no time. */
export function utc(value) {
  const at = typeof value === "number" ? value : Date.parse(value ?? "");
  return Number.isFinite(at) ? `${new Date(at).toISOString().slice(0, 19).replace("T", " ")} UTC` : "";
}

/** "12:04:05". */
export function utcTime(ms) {
  return Number.isFinite(ms) ? new Date(ms).toISOString().slice(11, 19) : "";
}

/** Four significant digits, thousands grouped by a thin space, no exponent below 1e7. */
export function num(value) {
  if (value === null || value === undefined || !Number.isFinite(Number(value))) return "–";
  const number = Number(value);
  const size = Math.abs(number);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return number.toExponential(2);
  const digits = size >= 1000 ? 0 : Math.max(0, 3 - Math.floor(Math.log10(size || 1)));
  let text = number.toFixed(Math.min(digits, 6));
  if (text.includes(".")) text = text.replace(/\.?0+$/, "");
  return size >= 10_000 ? text.replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009") : text;
}

/** A whole number, grouped. */
export function count(value) {
  if (!Number.isFinite(Number(value)) || value === null) return "–";
  return String(Math.round(Number(value))).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

/** "anomaly_detector@3"; a version that already names its model is left alone. */
export function modelLabel(model, version) {
  if (!version) return model ?? "";
  if (!model || String(version).includes("@")) return String(version);
  return `${model}@${version}`;
}

function pad(value) {
  return String(value).padStart(2, "0");
}
