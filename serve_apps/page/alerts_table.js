/**
 * The alert table: one line per alert, only the lines in sight exist.
 *
 * Rows have one height, so a scroll position is an index and nothing ever jumps. The
 * order is held while the pointer rests on the rows, and a selected row keeps its place
 * on the screen when others arrive above it.
 */

import { byId, h, setAttr, setText, svg } from "./dom.js";
import { age, count, modelLabel, num, utc } from "./format.js";
import { TABS, isSuppressed } from "./store.js";

const LETTERS = { critical: "C", high: "H", warning: "W", low: "L", info: "I" };
const CONDITIONS = { firing: "●", cleared: "○", stale: "◌" };
export const VERDICTS = { true_positive: "true alarm", false_positive: "false alarm", expected: "expected", unsure: "unsure" };
const OVERSCAN = 6;
const HOLD_MS = 2500; // a pointer that has not moved for this long is not about to click
const FRESH_MS = 4000;

export class AlertsTable {
  constructor({ store, view, sparks, clock, onOpen, onAcknowledge }) {
    Object.assign(this, { store, view, sparks, clock, onOpen, onAcknowledge });
    this.rows = byId("rows");
    this.grid = byId("grid");
    this.spacer = h("div", { class: "spacer", role: "presentation" });
    this.message = h("div", { class: "empty" });
    this.rows.append(this.spacer, this.message);
    this._slots = new Map(); // alert id -> row
    this._list = [];
    this._indexes = new Map();
    this._holdTimer = 0;
    this._build();
    store.listen(["alerts", "view"], () => this.render());
    store.listen(["sparks"], () => this._draw());
    setInterval(() => this._tick(), 1000);
  }

  /** Move the selection by `step` rows, or to the first row when there is none. */
  move(step) {
    if (!this._list.length) return;
    const at = this._indexes.get(this.view.selected);
    const next = at === undefined ? (step > 0 ? 0 : this._list.length - 1) : Math.max(0, Math.min(this._list.length - 1, at + step));
    this.select(this._list[next].id);
  }

  /** The alerts of the list, in order. */
  get list() {
    return this._list;
  }

  select(id) {
    this.view.selected = id;
    this.scrollTo(id);
    this._draw();
    if (this.view.open) this.onOpen(id);
  }

  scrollTo(id) {
    const index = this._indexes.get(id);
    if (index === undefined) return;
    const top = index * this._height;
    const room = this.rows.clientHeight;
    if (top < this.rows.scrollTop) this.rows.scrollTop = top;
    else if (top + this._height > this.rows.scrollTop + room) this.rows.scrollTop = top + this._height - room;
  }

  render() {
    const anchor = this._anchor();
    const before = this._indexes.get(this.view.selected);
    this._list = this.view.rows();
    this._indexes = new Map(this._list.map((alert, index) => [alert.id, index]));
    // A row that left the view (acknowledged, filtered out) hands the selection to its neighbour.
    if (this.view.selected && !this._indexes.has(this.view.selected)) {
      const heir = before === undefined ? undefined : this._list[Math.min(before, this._list.length - 1)];
      this.view.selected = heir?.id ?? null;
    }
    this.spacer.style.height = `${this._list.length * this._height}px`;
    if (anchor && this._indexes.has(anchor.id)) this.rows.scrollTop = this._indexes.get(anchor.id) * this._height - anchor.y;
    this._drawHead();
    this._draw();
  }

  get _height() {
    this._rowHeight ??= parseFloat(getComputedStyle(this.grid).getPropertyValue("--row")) || 28;
    return this._rowHeight;
  }

  _build() {
    this.tabs = TABS.map((tab) =>
      h("button", { type: "button", role: "tab", class: "tab", id: `tab-${tab.id}`, "aria-controls": "grid", onclick: () => this._show(tab) },
        h("span", {}, tab.title), h("span", { class: "tab-count" })));
    byId("tabs").append(...this.tabs);
    byId("tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (TABS.indexOf(this.view.tab) + step + TABS.length) % TABS.length;
      this._show(TABS[next]);
      this.tabs[next].focus();
    });
    byId("search").addEventListener("input", (event) => this._filter({ query: event.target.value.trim() }));
    byId("sort").addEventListener("change", (event) => this.view.change({ sort: event.target.value }));
    this.rows.addEventListener("scroll", () => this._draw(), { passive: true });
    this.rows.addEventListener("pointermove", () => this._hold());
    this.rows.addEventListener("pointerleave", () => this._release());
    this.rows.addEventListener("click", (event) => this._clicked(event));
    byId("held").addEventListener("click", () => this._release());
    byId("suppressed").addEventListener("click", () => this._filter({ showsSuppressed: !this.view.showsSuppressed }));
    new ResizeObserver(() => {
      this._rowHeight = null;
      this.grid.style.setProperty("--scrollbar", `${this.rows.offsetWidth - this.rows.clientWidth}px`);
      this.render();
    }).observe(this.rows);
  }

  _show(tab) {
    this.rows.scrollTop = 0;
    this.view.change({ tab });
  }

  _filter(patch) {
    this.rows.scrollTop = 0;
    this.view.change(patch);
  }

  _clicked(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    this.view.selected = row.dataset.id;
    if (event.target.closest(".row-ack")) this.onAcknowledge(row.dataset.id);
    else this.onOpen(row.dataset.id);
    this._draw();
  }

  _hold() {
    this.view.hold(this._list.map((alert) => alert.id));
    clearTimeout(this._holdTimer);
    this._holdTimer = setTimeout(() => this._release(), HOLD_MS);
  }

  _release() {
    clearTimeout(this._holdTimer);
    this.view.release();
  }

  /** Where the selected row stands on the screen, if it does. */
  _anchor() {
    const index = this._indexes.get(this.view.selected);
    if (index === undefined || this.rows.scrollTop === 0) return null;
    const y = index * this._height - this.rows.scrollTop;
    return y >= 0 && y < this.rows.clientHeight ? { id: this.view.selected, y } : null;
  }

  _drawHead() {
    const counts = this.view.tabCounts();
    TABS.forEach((tab, index) => {
      const isActive = tab === this.view.tab;
      setAttr(this.tabs[index], "aria-selected", String(isActive));
      setAttr(this.tabs[index], "tabindex", isActive ? "0" : "-1");
      setText(this.tabs[index].lastChild, count(counts.get(tab.id)) + (this.store.moreAlerts && tab.id !== "unacked" ? "+" : ""));
    });
    const held = byId("held");
    held.hidden = this.view.waiting === 0;
    setText(held, `${this.view.waiting} more ${this.view.waiting === 1 ? "alert" : "alerts"}: the order waits while you point at it`);
    this._drawSuppressed();
    this._drawFoot(counts);
    this._drawEmpty();
  }

  _drawSuppressed() {
    const button = byId("suppressed");
    const number = this.view.suppressedCount();
    button.hidden = number === 0 && !this.view.showsSuppressed;
    setAttr(button, "aria-pressed", String(this.view.showsSuppressed));
    setText(button, `${count(number)} silenced`);
  }

  _drawFoot(counts) {
    const shown = this._list.length;
    const of = counts.get(this.view.tab.id);
    const filtered = this.view.isFiltered ? ` of ${count(of)} (filtered)` : "";
    const device = this.view.device ? ` · device ${this.view.device.device}` : "";
    setText(byId("alerts-count"), this.store.loaded.alerts ? `${count(shown)} ${shown === 1 ? "alert" : "alerts"}${filtered}${device}` : "Loading alerts…");
    byId("older").hidden = !(this.store.moreAlerts && this.view.tab.id !== "unacked");
  }

  _drawEmpty() {
    const problem = this.store.problems.alerts;
    let text = "";
    if (problem) text = `Alerts could not be loaded: ${problem}. Trying again.`;
    else if (!this.store.loaded.alerts) text = "Loading alerts…";
    else if (this.view.isFiltered) text = "No alert matches the filter. Esc clears it.";
    else text = this.store.alertCount ? this.view.tab.empty : "No alert has arrived yet.";
    this.message.hidden = this._list.length > 0;
    setText(this.message, text);
    setAttr(this.message, "data-kind", problem ? "problem" : null);
  }

  _draw() {
    const first = Math.max(0, Math.floor(this.rows.scrollTop / this._height) - OVERSCAN);
    const last = Math.min(this._list.length, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / this._height) + OVERSCAN);
    const visible = new Set();
    for (let index = first; index < last; index += 1) visible.add(this._list[index].id);
    const free = [];
    for (const [id, row] of this._slots) {
      if (visible.has(id)) continue;
      this._slots.delete(id);
      free.push(row);
    }
    for (let index = first; index < last; index += 1) {
      const alert = this._list[index];
      let row = this._slots.get(alert.id);
      if (!row) {
        row = free.pop() ?? this._newRow();
        this._slots.set(alert.id, row);
        if (!row.node.isConnected) this.rows.append(row.node);
      }
      this._fill(row, alert, index);
    }
    for (const row of free) row.node.remove();
    setAttr(this.grid, "aria-rowcount", this._list.length + 1);
    setAttr(this.grid, "aria-activedescendant", this._slots.has(this.view.selected) ? `row-${this.view.selected}` : null);
  }

  _tick() {
    const now = this.clock.now();
    for (const [id, row] of this._slots) {
      const alert = this.store.alert(id);
      if (alert) setText(row.age, age(now - alert.startsMs));
    }
  }

  _newRow() {
    const cell = (name, ...children) => h("span", { class: `c-${name}`, role: "gridcell" }, ...children);
    const row = {
      letter: h("b", { class: "sev" }),
      age: cell("age"),
      glyph: h("i", { class: "glyph", "aria-hidden": "true" }),
      condition: h("span"),
      device: cell("device"),
      title: h("span"),
      text: h("span", { class: "title-text" }),
      spark: cell("spark"),
      value: cell("value"),
      source: cell("source"),
      count: cell("count"),
      mark: h("span", { class: "mark" }),
      ack: h("button", { type: "button", class: "row-ack", tabindex: "-1", title: "Acknowledge (a)" }, "Ack"),
    };
    row.node = h("div", { class: "row", role: "row" },
      cell("sev", row.letter), row.age, cell("state", row.glyph, row.condition), row.device, cell("title", row.title, row.text),
      row.spark, row.value, row.source, row.count, cell("mark", row.mark, row.ack));
    return row;
  }

  _fill(row, alert, index) {
    const now = this.clock.now();
    const { node } = row;
    const isFresh = performance.now() - (this.store.arrived.get(alert.id) ?? -FRESH_MS) < FRESH_MS;
    const top = index * this._height;
    // While one scrolls, most rows stay as they are: what they show is compared, not written again.
    const shown = [alert, top, alert.id === this.view.selected, alert.id === this.view.open, isFresh, this.sparks.get(alert.id)];
    if (row.shown?.every((value, at) => value === shown[at])) return;
    row.shown = shown;
    node.style.transform = `translateY(${top}px)`;
    setAttr(node, "id", `row-${alert.id}`);
    setAttr(node, "aria-rowindex", index + 2);
    setAttr(node, "aria-selected", String(alert.id === this.view.selected));
    setAttr(node, "data-id", alert.id);
    setAttr(node, "data-severity", alert.severity);
    setAttr(node, "data-condition", alert.condition);
    setAttr(node, "data-handling", alert.handling);
    setAttr(node, "data-suppressed", isSuppressed(alert));
    setAttr(node, "data-open", alert.id === this.view.open);
    setAttr(node, "data-pending", alert.isPending);
    setAttr(node, "data-fresh", isFresh);
    setText(row.letter, LETTERS[alert.severity] ?? "?");
    setAttr(row.letter, "title", alert.severity);
    setAttr(row.letter, "aria-label", alert.severity);
    setText(row.age, age(now - alert.startsMs));
    setAttr(row.age, "title", `since ${utc(alert.startsMs)}`);
    setText(row.glyph, CONDITIONS[alert.condition] ?? "?");
    setText(row.condition, alert.condition);
    setText(row.device, alert.device_id);
    setAttr(row.device, "title", `${alert.tenant} / ${alert.device_id}${alert.site ? ` · ${alert.site}` : ""}`);
    setText(row.title, alert.title);
    setText(row.text, alert.text === alert.title ? "" : alert.text);
    setAttr(row.text, "title", alert.text);
    this._fillFigures(row, alert);
    setText(row.count, alert.count > 1 ? `×${count(alert.count)}` : "");
    this._fillMark(row, alert);
    this._fillSpark(row, alert);
  }

  _fillFigures(row, alert) {
    const { source = {} } = alert;
    const isModel = source.kind === "model";
    const figure = isModel ? source.score : alert.value;
    const limit = source.threshold;
    const key = `${figure}|${limit}`;
    if (row.figures !== key) {
      row.figures = key;
      const hasLimit = limit !== null && limit !== undefined;
      row.value.replaceChildren(num(figure), ...(hasLimit ? [h("i", {}, ` / ${num(limit)}`)] : []));
    }
    const what = isModel ? `score ${num(source.score)}, threshold ${num(source.threshold)}; ${alert.metric ?? "value"} ${num(alert.value)}` : `${alert.metric ?? "value"} ${num(alert.value)}`;
    setAttr(row.value, "title", what);
    setText(row.source, isModel ? modelLabel(source.model, source.model_version) : (source.rule ?? "device"));
    setAttr(row.source, "data-kind", source.kind);
    setAttr(row.source, "title", isModel ? `model ${modelLabel(source.model, source.model_version)}` : "sent by the device itself");
  }

  _fillMark(row, alert) {
    let text = "";
    let kind = null;
    if (alert.verdict) [text, kind] = [VERDICTS[alert.verdict] ?? alert.verdict, alert.verdict];
    else if (alert.handling === "acked") [text, kind] = [`✓ ${alert.acked_by ?? "acknowledged"}`, "acked"];
    else if (alert.handling === "closed") [text, kind] = ["closed", "closed"];
    else if (isSuppressed(alert)) [text, kind] = [SUPPRESSED[alert.suppressed_by[0].kind] ?? "silenced", "suppressed"];
    else if (alert.escalation_level > 0) [text, kind] = [`↑ ${audience(alert.escalated_to)}`, "escalated"];
    setText(row.mark, text);
    setAttr(row.mark, "data-kind", kind);
    setAttr(row.mark, "title", markTitle(alert));
    row.ack.hidden = alert.handling !== "new" || !this.store.config?.may.acknowledge;
    setAttr(row.ack, "aria-label", `Acknowledge ${alert.title} on ${alert.device_id}`);
  }

  _fillSpark(row, alert) {
    if (alert.source?.kind !== "model") {
      if (row.sparkOf) row.spark.replaceChildren();
      row.sparkOf = null;
      return;
    }
    const spark = this.sparks.get(alert.id);
    if (spark === undefined) this.sparks.want(alert.id);
    if (row.sparkOf === alert.id && row.hasSpark === Boolean(spark)) return;
    row.sparkOf = alert.id;
    row.hasSpark = Boolean(spark);
    row.spark.replaceChildren(...(spark ? [drawSpark(spark)] : []));
  }
}

const SUPPRESSED = { silence: "silenced", maintenance: "maintenance", flapping: "flapping" };

/** "user:sue" as people say it. */
export const audience = (name) => (name ? String(name).replace(/^user:/, "") : "nobody");

/** Why nobody is told of an alert, in words. */
export function suppressionText({ kind, reason, by, until }) {
  return `${SUPPRESSED[kind] ?? kind}: ${reason}${kind === "flapping" ? "" : `, by ${by}`}${until ? `, until ${utc(until)}` : ""}`;
}

/** Who acknowledged and until when. */
export function ackText(alert) {
  return `${alert.acked_by}, ${utc(alert.acked_at)}${alert.ack_expires_at ? `, until ${utc(alert.ack_expires_at)}` : ""}`;
}

function markTitle(alert) {
  if (alert.acked_by) return `acknowledged by ${ackText(alert)}`;
  if (isSuppressed(alert)) return alert.suppressed_by.map(suppressionText).join("; ");
  return alert.escalation_level > 0 ? `nobody acknowledged: told ${audience(alert.escalated_to)}` : null;
}

/** A line of the evidence with the judged point marked. */
function drawSpark({ values, at }) {
  const known = values.filter((value) => value !== null);
  const isFlat = Math.max(...known) === Math.min(...known);
  const low = Math.min(...known) - (isFlat ? 0.5 : 0); // a flat line runs through the middle
  const span = isFlat ? 1 : Math.max(...known) - low;
  const x = (index) => 2 + (index / Math.max(1, values.length - 1)) * 86;
  const y = (value) => 16 - ((value - low) / span) * 14;
  const points = values.map((value, index) => (value === null ? null : `${x(index).toFixed(1)},${y(value).toFixed(1)}`)).filter(Boolean);
  return svg("svg", { class: "spark", viewBox: "0 0 90 18", "aria-hidden": "true" },
    svg("polyline", { points: points.join(" ") }),
    at !== null && values[at] !== undefined && values[at] !== null ? svg("circle", { cx: x(at), cy: y(values[at]), r: 2.2 }) : null);
}
