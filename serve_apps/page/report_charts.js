/**
 * The drawings of a report as SVG: curves of several scorers, and figures with their intervals.
 *
 * Pure drawing: data in, an SVG element out. A scorer keeps its number, and so its colour and its
 * dashes, in every drawing. A label says what is drawn for those who cannot see it.
 */

import { svg } from "./dom.js";
import { ticks } from "./chart.js";
import { num } from "./format.js";

const LEFT = 44;
const RIGHT = 10;
const TOP = 18;
const BOTTOM = 30;
const ROW = 22;
const NAMES = 150;

/** Colour and dashes by the scorer's place: the version first, baselines after it. */
export const kind = (number) => `scorer-${Math.min(number, 5)}`;

/**
 * Lines of several scorers over one pair of axes.
 *
 * @param {{title, x: {title, from, to, isLog}, y: {title, from, to, isLog}, lines: [{name, points: [[x, y]]}], hasDiagonal, isStepped}} plot
 *   points outside of the axes are cut off; a logarithmic axis begins above zero
 * @param {number} width in CSS pixels
 */
export function curves(plot, width, height = 210) {
  const chart = svg("svg", { class: "chart report-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": describeCurves(plot) });
  const x = along(plot.x, LEFT, width - RIGHT);
  const y = along(plot.y, height - BOTTOM, TOP);
  chart.append(svg("text", { class: "axis-title", x: LEFT, y: 10 }, plot.y.title));
  for (const value of marks(plot.y)) {
    chart.append(
      svg("line", { class: "gridline", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 5, y: y(value) + 3.5, "text-anchor": "end" }, num(value)),
    );
  }
  for (const value of marks(plot.x)) {
    chart.append(svg("text", { class: "tick", x: x(value), y: height - BOTTOM + 13, "text-anchor": "middle" }, num(value)));
  }
  chart.append(
    svg("line", { class: "baseline", x1: LEFT, x2: width - RIGHT, y1: y(plot.y.from), y2: y(plot.y.from) }),
    svg("text", { class: "axis-title", x: width - RIGHT, y: height - 3, "text-anchor": "end" }, plot.x.title),
  );
  if (plot.hasDiagonal) {
    chart.append(svg("line", { class: "diagonal", x1: x(plot.x.from), y1: y(plot.x.from), x2: x(plot.x.to), y2: y(plot.x.to) }));
  }
  // The version last, so that it lies on top.
  plot.lines.map((line, number) => [line, number]).reverse().forEach(([line, number]) => {
    const inside = line.points.filter(([a, b]) => within(plot.x, a) && within(plot.y, b));
    if (!inside.length) return;
    let path = "";
    inside.forEach(([a, b], at) => {
      if (at && plot.isStepped) path += `H${x(a).toFixed(1)}`;
      path += `${at ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`;
    });
    chart.append(svg("path", { class: `curve ${kind(number)}`, d: path }));
    if (inside.length < 12) inside.forEach(([a, b]) => chart.append(svg("circle", { class: `dot ${kind(number)}`, cx: x(a), cy: y(b), r: 2.5 })));
  });
  return chart;
}

/**
 * One figure of every scorer: a dot, and a whisker where there is an interval.
 *
 * @param {string} title
 * @param {[{name, value, low, high}]} rows null where there is nothing to say
 */
export function whiskers(title, rows, width) {
  const height = TOP + rows.length * ROW + BOTTOM - 8;
  const names = Math.min(NAMES, width * 0.36);
  const most = Math.max(...rows.flatMap((row) => [row.value, row.high]).filter(Number.isFinite), 0) || 1;
  const axis = { from: 0, to: most <= 1 ? Math.min(1, most * 1.15) : most * 1.1 };
  const x = along(axis, names, width - RIGHT - 40);
  const text = rows.map((row) => `${row.name} ${num(row.value)}${Number.isFinite(row.low) ? ` (${num(row.low)} to ${num(row.high)})` : ""}`).join(", ");
  const chart = svg("svg", { class: "chart report-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}, with 95 % intervals: ${text}` });
  chart.append(svg("text", { class: "axis-title", x: 0, y: 10 }, title));
  for (const value of ticks(axis.from, axis.to, 4)) {
    chart.append(
      svg("line", { class: "gridline", x1: x(value), x2: x(value), y1: TOP, y2: TOP + rows.length * ROW }),
      svg("text", { class: "tick", x: x(value), y: height - 8, "text-anchor": "middle" }, num(value)),
    );
  }
  rows.forEach((row, number) => {
    const y = TOP + (number + 0.5) * ROW;
    const name = row.name.length * 6.9 > names ? `${row.name.slice(0, Math.floor(names / 6.9) - 1)}…` : row.name;
    chart.append(svg("text", { class: "label", x: names - 8, y: y + 3.5, "text-anchor": "end" }, name));
    if (!Number.isFinite(row.value)) return;
    if (Number.isFinite(row.low) && Number.isFinite(row.high)) {
      chart.append(svg("path", { class: `whisker ${kind(number)}`, d: `M${x(row.low)} ${y}H${x(row.high)}M${x(row.low)} ${y - 4}v8M${x(row.high)} ${y - 4}v8` }));
    }
    chart.append(
      svg("circle", { class: `dot ${kind(number)}`, cx: x(row.value), cy: y, r: 4 }),
      svg("text", { class: "label figure", x: width - RIGHT, y: y + 3.5, "text-anchor": "end" }, num(row.value)),
    );
  });
  return chart;
}

/** A short sample of a line, for a legend. */
export function sample(number) {
  return svg("svg", { class: "report-sample", viewBox: "0 0 24 10", width: 24, height: 10, "aria-hidden": "true" }, svg("path", { class: `curve ${kind(number)}`, d: "M0 5H24" }));
}

function along({ from, to, isLog }, first, last) {
  const place = isLog ? Math.log10 : (value) => value;
  const span = place(to) - place(from) || 1;
  return (value) => first + ((place(value) - place(from)) / span) * (last - first);
}

function within({ from, to, isLog }, value) {
  const slack = isLog ? 0 : (to - from) * 1e-6;
  return Number.isFinite(value) && value >= from - slack && value <= to + slack;
}

function marks({ from, to, isLog }) {
  if (!isLog) return ticks(from, to, 5);
  const all = [];
  for (let power = Math.ceil(Math.log10(from) - 1e-9); power <= Math.log10(to) + 1e-9; power += 1) all.push(10 ** power);
  return all;
}

function describeCurves(plot) {
  const lines = plot.lines.filter((line) => line.points.length).map((line) => `${line.name} from ${num(line.points[0][0])}, ${num(line.points[0][1])} to ${num(line.points.at(-1)[0])}, ${num(line.points.at(-1)[1])}`);
  return `${plot.title}: ${plot.y.title} over ${plot.x.title}. ${lines.join("; ")}`;
}
