/**
 * The training panel: start a run, watch its bar and its loss, cancel it, read why it ended.
 *
 * A bar moves by what rank 0 said, never by the clock. A run that waits says for what.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { lossChart, lossText } from "./chart.js";
import { age, duration, num, utc } from "./format.js";
import { FINISHED } from "./store.js";

const SHOWN = 8;
const WORDS = { timed_out: "timed out" };

export class Training {
  constructor({ store, api, clock, toasts, onReport }) {
    Object.assign(this, { store, api, clock, toasts, onReport });
    this.list = byId("runs");
    this.form = byId("train-form");
    this.form.addEventListener("submit", (event) => this._start(event));
    this._nodes = new Map();
    this._empty = h("p", { class: "empty" });
    this._picked = null; // id of the run whose curve is open, null: the newest that has one
    store.listen(["runs"], () => this.render());
    store.listen(["config"], () => this._drawForm());
    setInterval(() => this.render(), 1000);
  }

  /** Runs to show: unfinished ones first, then by age. */
  shown() {
    const isOver = (run) => (FINISHED.has(run.state) ? 1 : 0);
    return Array.from(this.store.runs.values())
      .sort((a, b) => isOver(a) - isOver(b) || Date.parse(b.created_at) - Date.parse(a.created_at))
      .slice(0, SHOWN);
  }

  render() {
    const runs = this.shown();
    const open = runs.find((run) => run.id === this._picked) ?? runs.find((run) => this.store.curves.get(run.id)?.points.length > 1 || !FINISHED.has(run.state)) ?? runs[0];
    const seen = new Set();
    runs.forEach((run, index) => {
      seen.add(run.id);
      let node = this._nodes.get(run.id);
      if (!node) {
        node = this._newRun(run.id);
        this._nodes.set(run.id, node);
      }
      if (this.list.children[index] !== node.root) this.list.insertBefore(node.root, this.list.children[index] ?? null);
      this._fill(node, run, run === open);
    });
    for (const [id, node] of this._nodes) {
      if (seen.has(id)) continue;
      node.root.remove();
      this._nodes.delete(id);
    }
    this._drawNote(runs);
  }

  _drawForm() {
    const { config } = this.store;
    const options = (values) => values.map(({ id, title }) => h("option", { value: id }, title));
    byId("train-model").replaceChildren(...options(config.training.models));
    byId("train-data").replaceChildren(...options(config.training.datasets));
    const start = byId("train-start");
    start.disabled = !config.may.train;
    setAttr(start, "title", config.may.train ? null : "Starting a training needs the role engineer");
  }

  _drawNote(runs) {
    const note = byId("training-note");
    const problem = this.store.problems.runs;
    const lane = this.store.lanes.find((one) => one.name === "ml_training");
    if (problem) setText(note, `not loaded: ${problem}`);
    else if (!this.store.loaded.runs) setText(note, "loading…");
    else setText(note, lane ? `lane ml_training ${lane.running} / ${lane.concurrency}${lane.queued ? ` · ${lane.queued} waiting` : ""}` : "");
    const text = this.store.loaded.runs && !runs.length ? "No training yet. Until one has ended, the closed-form baseline judges the readings." : "";
    setText(this._empty, text);
    if (text) this.list.append(this._empty);
    else this._empty.remove();
  }

  _newRun(id) {
    const node = {
      state: h("span", { class: "pill" }),
      name: h("button", { type: "button", class: "run-name", title: "Show its loss", onclick: () => { this._picked = id; this.render(); } }),
      when: h("time", { class: "run-when" }),
      percent: h("b", { class: "run-percent" }),
      cancel: h("button", { type: "button", class: "button small", onclick: () => this._cancel(id) }, "Cancel"),
      report: h("button", { type: "button", class: "button small report-open", onclick: () => this.onReport(this.store.runs.get(id).result.model_id) }, "Report"),
      fill: h("div", { class: "bar-fill" }),
      message: h("p", { class: "run-message" }),
      plot: h("div", { class: "run-plot" }),
    };
    node.bar = h("div", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, node.fill);
    node.root = h("article", { class: "run", "data-id": id },
      h("div", { class: "run-line" }, node.state, node.name, node.percent, node.when, node.report, node.cancel), node.bar, node.message, node.plot);
    return node;
  }

  _fill(node, run, isOpen) {
    const isOver = FINISHED.has(run.state);
    const percent = run.state === "succeeded" ? 100 : Math.max(0, Math.min(100, run.progress ?? 0));
    const { arguments: args = {} } = run;
    const what = run.task === "evaluate_model" ? `report of ${args.model_id}` : (args.model_type ?? run.model_type ?? run.task);
    const name = `${what} · ${args.dataset_id ?? run.dataset_id ?? ""}`;
    setAttr(node.root, "data-state", run.state);
    setText(node.state, WORDS[run.state] ?? run.state);
    setAttr(node.state, "data-state", run.state);
    setText(node.name, name);
    setAttr(node.name, "aria-expanded", String(isOpen));
    setText(node.percent, run.state === "queued" ? "" : `${percent.toFixed(percent > 0 && percent < 100 ? 1 : 0)} %`);
    const since = Date.parse(run.ended_at ?? run.started_at ?? run.created_at);
    const start = Date.parse(run.started_at ?? "");
    setText(node.when, isOver ? `${age(this.clock.now() - since)} ago` : duration(this.clock.now() - (Number.isFinite(start) ? start : since)));
    setAttr(node.when, "title", [`run ${run.id} by ${run.user_id}`, `asked for ${utc(run.created_at)}`, run.started_at && `started ${utc(run.started_at)}`, run.ended_at && `ended ${utc(run.ended_at)}`].filter(Boolean).join("\n"));
    node.fill.style.transform = `scaleX(${percent / 100})`;
    setAttr(node.bar, "aria-valuenow", Math.round(percent));
    setAttr(node.bar, "aria-label", `${name}, ${run.state}`);
    node.report.hidden = run.state !== "succeeded" || !run.result?.model_id?.includes("@");
    node.cancel.hidden = isOver;
    node.cancel.disabled = !this.store.config?.may.cancel || Boolean(node.isCancelling) || Boolean(run.stopping);
    setText(node.message, this._sentence(run, isOver));
    setAttr(node.message, "data-kind", isOver && run.state !== "succeeded" ? "problem" : null);
    this._fillPlot(node, run, isOpen);
  }

  /** What a person wants to know about the run in one line. */
  _sentence(run, isOver) {
    if (run.stopping && !isOver) return `stopping: ${run.reason || "asked to"}`;
    if (run.state === "queued") return run.waits_for || "waits for its turn";
    const points = this.store.curves.get(run.id)?.points ?? [];
    if (!isOver) return [run.message, lossText(points)].filter(Boolean).join(" · ") || "starting the worker";
    if (run.state === "succeeded") {
      const result = run.result ?? {};
      const version = result.model_version ?? result.model_id ?? result.version;
      const figures = ["holdout_loss", "accuracy"].filter((name) => Number.isFinite(result[name])).map((name) => `${name.replace("holdout_loss", "held-out loss")} ${num(result[name])}`);
      return [version && `model ${version}`, ...(figures.length ? figures : [lossText(points)])].filter(Boolean).join(" · ") || run.message || "done";
    }
    return run.reason || run.message || "ended without a reason";
  }

  _fillPlot(node, run, isOpen) {
    const points = isOpen ? (this.store.curves.get(run.id)?.points ?? []) : [];
    const last = points.at(-1);
    const key = points.length > 1 ? `${points.length}|${last.x}|${last.loss}|${last.val}|${node.plot.clientWidth}` : "";
    if (node.plotKey === key) return;
    node.plotKey = key;
    node.plot.replaceChildren(...(key ? [lossChart(points, node.plot.clientWidth)] : []));
  }

  async _start(event) {
    event.preventDefault();
    const data = new FormData(this.form);
    const epochs = Number(data.get("epochs"));
    const button = byId("train-start");
    button.disabled = true;
    try {
      const run = await this.api.startRun("train_model", {
        model_type: data.get("model"),
        dataset_id: data.get("dataset"),
        hyperparameters: epochs > 0 ? { epochs } : {},
      });
      this._picked = run.id;
      this.store.mergeRun(run);
      this.toasts.say("The training was accepted.");
    } catch (error) {
      this.toasts.say(`The training was not started: ${error.message}.`, { kind: "problem" });
    } finally {
      button.disabled = !this.store.config?.may.train;
    }
  }

  async _cancel(id) {
    const node = this._nodes.get(id);
    node.isCancelling = true;
    this.render();
    try {
      this.store.mergeRun(await this.api.cancelRun(id));
    } catch (error) {
      this.toasts.say(`Not cancelled: ${error.message}.`, { kind: "problem" });
    } finally {
      node.isCancelling = false;
      this.render();
    }
  }
}
