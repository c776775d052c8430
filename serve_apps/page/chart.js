/**
 * The page's two charts as SVG: the evidence of an alert, and the loss of a run.
 *
 * Pure drawing: data in, an SVG element out; colours and strokes are classes. A chart
 * says what it shows in its label too, for those who cannot see it.
 */

import { h, setAttr, setText, svg } from "./dom.js";
import { num, utc } from "./format.js";

const LEFT = 52;
const RIGHT = 12;
const VALUE = { top: 10, bottom: 176 };
const SCORE = { top: 200, bottom: 268 };
const EVIDENCE_HEIGHT = 292;

/**
 * Evidence of one alert: value above, score below, stretches over the threshold shaded,
 * the reading of the alert marked.
 *
 * @param {{metric, points, threshold}} evidence points are [time, value, score, recorded_at];
 *   times are epoch seconds or ISO text
 * @param {{source, value, recorded_at, severity}} alert as the API shows it
 * @param {number} width in CSS pixels; the drawing is made for it, so that text keeps its size
 */
export function evidenceChart(evidence, alert, width) {
  const points = evidence.points.map(([ts, value, score, recorded]) => ({ ms: toMs(ts), value, score, recorded }));
  points.sort((a, b) => a.ms - b.ms);
  const at = readingOf(points, alert);
  const start = points[0].ms;
  const end = points.at(-1).ms;
  const right = width - RIGHT;
  const x = scale(start, end, LEFT, right);
  const valueAxis = axis(points.map((p) => p.value), VALUE);
  const scores = points.map((p) => p.score).filter(Number.isFinite);
  const hasScores = scores.length > 0;
  const scoreAxis = axis([0, evidence.threshold ?? 0, ...scores], SCORE, 3);
  const height = hasScores ? EVIDENCE_HEIGHT : VALUE.bottom + 24;

  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describe(evidence, points, at) });
  const bottom = hasScores ? SCORE.bottom : VALUE.bottom;
  for (const [from, to] of stretches(points, evidence.threshold)) {
    const left = Math.max(LEFT, x(from) - 3); // one reading alone must still be seen
    chart.append(svg("rect", { class: "window", x: left, y: VALUE.top, width: Math.min(right, x(to) + 3) - left, height: bottom - VALUE.top }));
  }
  drawAxis(chart, valueAxis, evidence.metric ?? "value", right);
  if (hasScores) drawAxis(chart, scoreAxis, "score", right);
  drawTimes(chart, points, x, bottom, width);
  chart.append(line(points, (p) => x(p.ms), (p) => valueAxis.y(p.value), (p) => p.value, "value-line"));
  if (hasScores) {
    chart.append(line(points, (p) => x(p.ms), (p) => scoreAxis.y(p.score), (p) => p.score, "score-line"));
    if (Number.isFinite(evidence.threshold)) drawThreshold(chart, evidence.threshold, scoreAxis, points, x, right);
  }
  if (at) {
    chart.append(
      svg("line", { class: "alert-line", "data-severity": alert.severity, x1: x(at.ms), x2: x(at.ms), y1: VALUE.top, y2: bottom }),
      svg("circle", { class: "alert-point", "data-severity": alert.severity, cx: x(at.ms), cy: valueAxis.y(at.value), r: 5 }),
    );
    if (hasScores && Number.isFinite(at.score)) {
      chart.append(svg("circle", { class: "alert-point", "data-severity": alert.severity, cx: x(at.ms), cy: scoreAxis.y(at.score), r: 4 }));
    }
  }
  return withReadout(chart, points, x, bottom, at, width);
}

/** Loss of a run on what it trains and on what it validates with, epochs from left to right. */
export function lossChart(points, width, height = 150) {
  const plot = { top: 12, bottom: height - 22 };
  const right = 74; // room for the lines' own labels
  const losses = points.flatMap((p) => [p.loss, p.val]).filter(Number.isFinite);
  const y = axis(losses, plot, 3);
  const first = points[0].x;
  const last = points.at(-1).x;
  const x = scale(first, last, LEFT, width - right);
  const chart = svg("svg", { class: "chart loss", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `loss over ${points.length} reports; ${lossText(points)}` });
  drawAxis(chart, y, "loss", width - right);
  for (const tick of ticks(first, last, 6).filter((value) => Number.isInteger(value) || last - first < 2)) {
    chart.append(svg("text", { class: "tick", x: x(tick), y: height - 6, "text-anchor": "middle" }, num(tick)));
  }
  chart.append(svg("text", { class: "tick", x: width - right + 8, y: height - 6 }, "epoch"));
  const ends = [["loss", "loss-line", "train"], ["val", "val-line", "validation"]].flatMap(([key, name, title]) => {
    const known = points.filter((p) => Number.isFinite(p[key]));
    if (!known.length) return [];
    chart.append(line(known, (p) => x(p.x), (p) => y.y(p[key]), (p) => p[key], name));
    const end = known.at(-1);
    chart.append(svg("circle", { class: `${name}-end`, cx: x(end.x), cy: y.y(end[key]), r: 3 }));
    return [{ name, title, y: y.y(end[key]), text: num(end[key]) }];
  });
  // Two labels on one spot would be none: the upper one gives way.
  ends.sort((a, b) => a.y - b.y);
  if (ends.length === 2 && ends[1].y - ends[0].y < 24) {
    const middle = Math.min(plot.bottom - 26, Math.max(plot.top + 16, (ends[0].y + ends[1].y) / 2));
    [ends[0].y, ends[1].y] = [middle - 12, middle + 12];
  }
  for (const end of ends) {
    chart.append(
      svg("text", { class: `label ${end.name}-label`, x: width - right + 8, y: end.y - 1 }, end.title),
      svg("text", { class: "label figure", x: width - right + 8, y: end.y + 11 }, end.text),
    );
  }
  return chart;
}

/** "loss 0.031, validation loss 0.044" of the newest points that have them. */
export function lossText(points) {
  const loss = points.findLast((p) => Number.isFinite(p.loss));
  const val = points.findLast((p) => Number.isFinite(p.val));
  return [loss && `loss ${num(loss.loss)}`, val && `validation loss ${num(val.val)}`].filter(Boolean).join(", ");
}

/** Round values from `low` to `high`, about `wanted` of them. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const all = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) all.push(Number(value.toPrecision(12)));
  return all;
}

function toMs(time) {
  if (typeof time === "number") return time * 1000;
  return Date.parse(time ?? "");
}

function scale(from, to, left, right) {
  const span = to - from || 1;
  return (value) => left + ((value - from) / span) * (right - left);
}

function axis(values, { top, bottom }, wanted = 4) {
  const known = values.filter(Number.isFinite);
  let low = known.length ? Math.min(...known) : 0;
  let high = known.length ? Math.max(...known) : 1;
  if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  const pad = (high - low) * 0.06;
  if (low !== 0) low -= pad;
  high += pad;
  return { y: (value) => bottom - ((value - low) / (high - low)) * (bottom - top), ticks: ticks(low, high, wanted), top, bottom };
}

function drawAxis(chart, { y, ticks: values, top, bottom }, title, right) {
  for (const value of values) {
    chart.append(
      svg("line", { class: "gridline", x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, num(value)),
    );
  }
  chart.append(svg("text", { class: "axis-title", x: LEFT + 4, y: top + 3 }, title), svg("line", { class: "baseline", x1: LEFT, x2: right, y1: bottom, y2: bottom }));
}

/** Times below the plot; replayed telemetry is labelled with the times it was recorded at. */
function drawTimes(chart, points, x, bottom, width) {
  const wanted = Math.min(width < 460 ? 2 : 4, points.length);
  const hasRecorded = points.some((p) => p.recorded);
  for (let index = 0; index < wanted; index += 1) {
    const point = points[Math.round((index / Math.max(1, wanted - 1)) * (points.length - 1))];
    const anchor = index === 0 ? "start" : index === wanted - 1 ? "end" : "middle";
    const text = hasRecorded ? String(point.recorded ?? "").replace("T", " ").slice(0, 16) : utc(point.ms).slice(11, 19);
    chart.append(svg("text", { class: "tick", x: x(point.ms), y: bottom + 16, "text-anchor": anchor }, text));
  }
}

function drawThreshold(chart, threshold, scoreAxis, points, x, right) {
  const y = scoreAxis.y(threshold);
  chart.append(
    svg("rect", { class: "over", x: LEFT, y: scoreAxis.top, width: right - LEFT, height: Math.max(0, y - scoreAxis.top) }),
    svg("line", { class: "threshold", x1: LEFT, x2: right, y1: y, y2: y }),
    svg("text", { class: "tick threshold-text", x: LEFT + 40, y: y - 4 }, `threshold ${num(threshold)}`),
  );
  for (const point of points) {
    if (Number.isFinite(point.score) && point.score >= threshold) {
      chart.append(svg("circle", { class: "over-point", cx: x(point.ms), cy: scoreAxis.y(point.score), r: 2 }));
    }
  }
}

function line(points, x, y, value, name) {
  let path = "";
  let isDown = false;
  for (const point of points) {
    const hasValue = Number.isFinite(value(point));
    if (hasValue) path += `${isDown ? "L" : "M"}${x(point).toFixed(1)} ${y(point).toFixed(1)}`;
    isDown = hasValue; // a hole in the data stays a hole in the line
  }
  return svg("path", { class: name, d: path });
}

/** The point that the alert's own figures belong to, else the worst judged one. */
function readingOf(points, alert) {
  if (!alert) return null;
  const { score } = alert.source ?? {};
  const same = points.find((p) => p.value === alert.value && Number.isFinite(p.score) && Math.abs(p.score - score) < 1e-6);
  const recorded = alert.recorded_at && points.find((p) => p.recorded && Date.parse(p.recorded) === Date.parse(alert.recorded_at));
  return same ?? recorded ?? points.reduce((worst, p) => ((p.score ?? -1) > (worst.score ?? -1) ? p : worst));
}

/** Times from and to which the score stays over the threshold. */
function stretches(points, threshold) {
  const found = [];
  let isOver = false;
  for (const point of points) {
    const wasOver = isOver;
    isOver = Number.isFinite(point.score) && Number.isFinite(threshold) && point.score >= threshold;
    if (isOver && !wasOver) found.push([point.ms, point.ms]);
    else if (isOver) found.at(-1)[1] = point.ms;
  }
  return found;
}

function withReadout(chart, points, x, bottom, at, width) {
  const readout = h("p", { class: "readout" });
  const cross = svg("line", { class: "cross", y1: VALUE.top, y2: bottom, x1: 0, x2: 0, visibility: "hidden" });
  chart.append(cross);
  const say = (point, prefix = "") => setText(readout, point ? `${prefix}${readoutText(point)}` : "");
  const rest = () => {
    setAttr(cross, "visibility", "hidden");
    say(at, "At the alert: ");
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * width;
    const point = points.reduce((best, p) => (Math.abs(x(p.ms) - wanted) < Math.abs(x(best.ms) - wanted) ? p : best));
    setAttr(cross, "x1", x(point.ms));
    setAttr(cross, "x2", x(point.ms));
    setAttr(cross, "visibility", "visible");
    say(point);
  });
  chart.addEventListener("pointerleave", rest);
  rest();
  return h("figure", { class: "evidence" }, readout, chart);
}

function readoutText(point) {
  const when = point.recorded ? `${String(point.recorded).replace("T", " ").slice(0, 19)} (recorded)` : utc(point.ms);
  const score = Number.isFinite(point.score) ? ` · score ${num(point.score)}` : "";
  return `${when} · value ${num(point.value)}${score}`;
}

function describe(evidence, points, at) {
  const values = points.map((p) => p.value).filter(Number.isFinite);
  const range = `${evidence.metric ?? "value"} between ${num(Math.min(...values))} and ${num(Math.max(...values))} in ${points.length} readings`;
  const judged = at ? `; at the alert ${readoutText(at)}` : "";
  return `${range}${judged}${Number.isFinite(evidence.threshold) ? `; threshold ${num(evidence.threshold)}` : ""}`;
}
