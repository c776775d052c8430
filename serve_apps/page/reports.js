/**
 * How good a version's alerts are: its report, beside the baselines, and a button that makes a new one.
 *
 * Shows what the floor kept; nothing is worked out here. Making one is a run like any other: its bar is in
 * the training panel, and when it has ended this dialog shows its report.
 */

import { byId, h, setText } from "./dom.js";
import { count, num } from "./format.js";
import { curves, kind, sample, whiskers } from "./report_charts.js";
import { FINISHED } from "./store.js";

const FIGURES = [
  ["vus_pr", "VUS-PR", "Volume under the precision-recall surface, mean over the series with events"],
  ["affiliation_f1", "Affiliation F1", "How near alarming readings and events lie to each other"],
  ["event_recall", "Events found", "Share of the events with an alarm inside, at the nominal rate"],
  ["false_per_device_day", "False per device and day", "Alarms outside of events, at the nominal rate"],
  ["delay_s", "Delay, min", "Median time from the beginning of a found event to its first alarm"],
  ["event_recall_at_price", "Found at the price", "Events found at the lowest threshold that keeps to the price in false alarms"],
];
const SERIES = [
  ["key", "Series", (row) => row.key],
  ["vus_pr", "VUS-PR", (row) => num(row.vus_pr)],
  ["found", "Events found", (row) => (row.events ? `${row.found} of ${row.events}${between(row.recall_interval)}` : "–")],
  ["false", "False per day", (row) => `${num(row.false_per_day)}${between(row.false_per_day_interval)}`],
  ["delay", "Delay, min", (row) => num(minutes(row.delay_s))],
  ["trained", "Trained on it", (row) => (row.was_trained_on === null ? "unknown" : row.was_trained_on ? "yes" : "no")],
];
const SLICES = { device: "by device", site: "by site", channel: "by channel", known: "by whether it was trained on" };
const RARE = 1e-4;

export class Reports {
  constructor({ store, api }) {
    Object.assign(this, { store, api });
    this.node = byId("report");
    this._model = null; // "TYPE@VERSION" that is open
    this._run = null; // id of the run that makes its next report
    this.node.addEventListener("close", () => { this._model = null; });
    store.listen(["runs"], () => this._look());
  }

  /** Open the newest report of "TYPE@VERSION". */
  async open(model) {
    this._model = model;
    this._run = null;
    const { config } = this.store;
    const may = Boolean(config?.may.train);
    this.data = h("select", { "aria-label": "Data set" }, ...(config?.training.datasets ?? []).map(({ id, title }) => h("option", { value: id }, title)));
    this.make = h("button", { type: "submit", class: "button", disabled: !may, title: may ? null : "Making a report needs the role engineer" }, "Make a report");
    this.state = h("p", { class: "report-state", role: "status" }, "Loading…");
    this.body = h("div", { class: "report-body" });
    this.node.replaceChildren(
      h("h2", { id: "report-title" }, `Report of ${model}`),
      h("form", { class: "report-form", onsubmit: (event) => this._order(event) }, this.data, this.make),
      this.state, this.body,
      h("form", { method: "dialog" }, h("button", { class: "button" }, "Close")),
    );
    if (!this.node.open) this.node.showModal();
    await this._load();
  }

  async _load(dataset) {
    const model = this._model;
    try {
      const report = await this.api.report(...model.split("@"), { dataset });
      if (this._model === model) this._draw(report);
    } catch (error) {
      if (this._model !== model) return;
      setText(this.state, error.status === 404 ? "It was not judged yet. Choose what to judge it on." : `Not loaded: ${error.message}.`);
    }
  }

  async _order(event) {
    event.preventDefault();
    const model = this._model;
    this.make.disabled = true;
    try {
      const run = await this.api.makeReport(...model.split("@"), { dataset_id: this.data.value });
      if (this._model === model) this._run = run.id;
      this.store.mergeRun(run);
    } catch (error) {
      setText(this.state, `No report is made: ${error.message}.`);
    } finally {
      this.make.disabled = !this.store.config?.may.train;
    }
  }

  /** Follow the run that was asked for here. */
  _look() {
    const run = this._model && this._run ? this.store.runs.get(this._run) : null;
    if (!run) return;
    if (!FINISHED.has(run.state)) {
      setText(this.state, `${run.message || run.waits_for || "waits for its turn"} ${run.progress ? `· ${Math.round(run.progress)} %` : ""}`);
      return;
    }
    this._run = null;
    if (run.state === "succeeded") this._load(run.result?.dataset_version);
    else setText(this.state, `The run ${run.state.replace("_", " ")}: ${run.reason || "it gave no reason"}.`);
  }

  _draw(report) {
    const { held_out: part, dataset, scorers, settings } = report;
    setText(this.state, `On ${dataset.name} (${dataset.id.slice(0, 12)}): ${count(part.readings)} held-out readings of ${count(part.series)} series, ${count(part.events)} events, ${num(part.device_days)} device-days. The price is ${num(settings.false_per_day)} false alarms per device and day.`);
    const width = Math.max(280, Math.min(440, Math.floor(((this.body.clientWidth || 860) - 24) / 2)));
    const model = scorers[0];
    this.body.replaceChildren(
      report.notes.length ? h("ul", { class: "report-notes" }, ...report.notes.map((note) => h("li", {}, note))) : "",
      figures(scorers),
      h("p", { class: "report-hint" }, "In brackets 95 % intervals. ", ...report.comparisons.filter((one) => Number.isFinite(one.vus_pr.value)).map((one) => `VUS-PR above ${one.against}: ${shown(one.vus_pr)}. `)),
      h("ul", { class: "report-legend", "aria-label": "Lines" }, ...scorers.map((one, number) => h("li", {}, sample(number), one.name))),
      h("div", { class: "report-plots" }, ...plots(scorers, settings, width)),
      h("h3", {}, "Series"),
      table(SERIES.map(([, title]) => title), model.series.map((row) => SERIES.map(([, , text]) => text(row))), "Series"),
      ...Object.entries(model.slices).map(([name, rows]) => h("details", { class: "report-slice" },
        h("summary", {}, `${SLICES[name] ?? name} (${rows.length})`),
        table(["", "Series", "VUS-PR", "Events found", "False per device and day"], rows.map((row) => [row.name, count(row.series), shown(row.vus_pr), shown(row.event_recall), shown(row.false_per_device_day)]), SLICES[name] ?? name))),
    );
  }
}

function figures(scorers) {
  const head = h("tr", {}, h("th", { scope: "col" }, "Scored by"), ...FIGURES.map(([, title, text]) => h("th", { scope: "col", title: text }, title)));
  const rows = scorers.map((one, number) => h("tr", { "data-kind": one.kind },
    h("th", { scope: "row" }, h("i", { class: `report-mark ${kind(number)}`, "aria-hidden": "true" }), one.name),
    ...FIGURES.map(([name]) => h("td", {}, shown(name === "delay_s" ? inMinutes(one.figures[name]) : one.figures[name])))));
  return scrolling(h("table", { class: "report-table" }, h("thead", {}, head), h("tbody", {}, ...rows)), "Figures of every scorer");
}

function table(titles, rows, name) {
  const cells = (row) => row.map((text, at) => h(at ? "td" : "th", at ? {} : { scope: "row" }, text));
  return scrolling(h("table", { class: "report-table" },
    h("thead", {}, h("tr", {}, ...titles.map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row))))), name);
}

/** A table that scrolls by itself can be reached by the keyboard. */
function scrolling(content, name) {
  return h("div", { class: "report-scroll", tabindex: "0", role: "region", "aria-label": name }, content);
}

function plots(scorers, settings, width) {
  const of = (name, points) => scorers.map((one) => ({ name: one.name, points: points(one[name] ?? []) }));
  const figure = (name) => scorers.map((one) => ({ name: one.name, ...one.figures[name] }));
  const share = { from: 0, to: 1 };
  const operating = of("operating", (points) => points.map((point) => [point.false_per_day, point.recall]));
  const dearest = Math.max(10 * settings.false_per_day, ...operating[0].points.map(([rate]) => rate).filter((rate) => rate < 100 * settings.false_per_day));
  const rare = { from: RARE, to: 1, isLog: true };
  const ofEvents = () => [
    ["VUS-PR", whiskers("VUS-PR", figure("vus_pr"), width)],
    ["Events found at the price", whiskers("Events found", figure("event_recall_at_price"), width)],
    ["Precision and recall of single readings", curves({ title: "Precision and recall of single readings", x: { title: "recall", ...share }, y: { title: "precision", ...share }, lines: of("precision_recall", (points) => points) }, width)],
    ["Operating curve", curves({ title: "Operating curve", x: { title: "false alarms per device and day", from: 0, to: dearest }, y: { title: "events found", ...share }, lines: operating, isStepped: true }, width)],
  ];
  const drawn = [
    ...(scorers[0].precision_recall.length ? ofEvents() : []), // without an event nothing is to be found
    ["Calibration", curves({ title: "Calibration", x: { title: "p-value", ...rare }, y: { title: "share of the readings outside of events", ...rare }, lines: of("calibration", (points) => points.filter(([, seen]) => seen > 0)), hasDiagonal: true }, width)],
  ];
  return drawn.map(([title, chart]) => h("figure", {}, h("figcaption", {}, title), chart));
}

function shown(figure) {
  return Number.isFinite(figure?.value) ? `${num(figure.value)}${between([figure.low, figure.high])}` : "–";
}

function between(interval) {
  return interval && Number.isFinite(interval[0]) ? ` [${num(interval[0])}, ${num(interval[1])}]` : "";
}

function minutes(seconds) {
  return Number.isFinite(seconds) ? seconds / 60 : null;
}

function inMinutes(figure) {
  return { value: minutes(figure.value), low: minutes(figure.low), high: minutes(figure.high) };
}
