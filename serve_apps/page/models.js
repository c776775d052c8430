/**
 * Which model version judges, which is tried beside it, and what became of the ones before.
 *
 * A trial's bar moves by readings that both have judged. Going back needs a reason, because
 * the journal keeps it.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { age, count, num, utc } from "./format.js";

const WORDS = { promoted: "promoted", refused: "refused", superseded: "set aside", rolled_back: "taken back", running: "on trial" };
const SHOWN = 4;

export class Models {
  constructor({ store, api, clock, toasts, onReport, reload }) {
    Object.assign(this, { store, api, clock, toasts, onReport, reload });
    this.box = byId("models");
    this._isAsking = false;
    this.reason = h("input", { type: "text", maxlength: "200", required: "", placeholder: "Why?", "aria-label": "Why go back" });
    this.form = h("form", { class: "models-back", hidden: true, onsubmit: (event) => this._goBack(event) },
      this.reason, h("button", { type: "submit", class: "button small" }, "Go back"));
    this.back = h("button", { type: "button", class: "link-button", onclick: () => this._ask(!this._isAsking) }, "go back to the one before");
    this.nowText = h("span");
    this.nowReport = this._report(() => this._champion);
    this.now = h("p", { class: "models-now" }, this.nowText, this.nowReport, " ", this.back);
    this.trial = h("div", { class: "models-trial", hidden: true });
    this.fill = h("div", { class: "bar-fill" });
    this.bar = h("div", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": "Readings of the trial" }, this.fill);
    this.trialText = h("p", { class: "run-message" });
    this.trial.append(this.bar, this.trialText, this._report(() => this._tried));
    this.past = h("ul", { class: "models-past" });
    this.box.append(this.now, this.form, this.trial, this.past);
    store.listen(["models", "status", "config"], () => this.render());
    setInterval(() => this.render(), 1000);
  }

  render() {
    const { live = [], trials = [], settings = {} } = this.store.models ?? {};
    const of = (alias) => live.find((one) => one.alias === alias);
    const champion = of("champion");
    const problem = this.store.problems.models;
    this._champion = champion ? `${champion.model}@${champion.version}` : null;
    this.nowReport.hidden = !champion;
    setText(this.nowText, problem ? `models not loaded: ${problem}` : champion
      ? `${champion.model}@${champion.version} judges since ${age(this.clock.now() - Date.parse(champion.updated_at))} `
      : "The closed-form baseline judges until a training has ended. ");
    setAttr(this.now, "title", champion ? `revision ${champion.revision}, since ${utc(champion.updated_at)}` : null);
    const canGoBack = Boolean(of("previous")) && Boolean(this.store.config?.may.promote);
    this.back.hidden = !canGoBack;
    if (!canGoBack) this._ask(false);
    this._drawTrial(trials.find((one) => one.state === "running"), settings);
    this._drawPast(trials.filter((one) => one.state !== "running").slice(0, SHOWN));
  }

  _drawTrial(trial, settings) {
    this.trial.hidden = !trial;
    if (!trial) return;
    this._tried = `${trial.scorer}@${trial.version}`;
    const percent = Math.min(100, (100 * trial.readings) / (settings.trial_readings || 1));
    this.fill.style.transform = `scaleX(${percent / 100})`;
    setAttr(this.bar, "aria-valuenow", Math.round(percent));
    setText(this.trialText, `${trial.version} is tried silently: ${count(trial.readings)} of ${count(settings.trial_readings)} readings, would have raised ${num(trial.challenger_alerts)} alerts, the champion raised ${num(trial.champion_alerts)}`);
  }

  _drawPast(trials) {
    const key = trials.map((one) => `${one.id}${one.state}`).join();
    if (this._pastKey === key) return;
    this._pastKey = key;
    this.past.replaceChildren(...trials.map((one) => h("li", { "data-state": one.state, title: `run ${one.run_id} by ${one.user_id}, ${utc(one.ended_at)}` },
      h("span", { class: "pill", "data-state": one.state === "promoted" ? "succeeded" : "failed" }, WORDS[one.state] ?? one.state), h("span", {}, `${one.version}: ${one.reason} `, this._report(() => `${one.scorer}@${one.version}`)))));
  }

  /** The button beside a version; `of` tells which one when it is pressed. */
  _report(of) {
    return h("button", { type: "button", class: "link-button report-open", onclick: () => this.onReport(of()) }, "report");
  }

  _ask(isAsking) {
    this._isAsking = isAsking;
    this.form.hidden = !isAsking;
    setAttr(this.back, "aria-expanded", String(isAsking));
    if (isAsking) this.reason.focus();
  }

  async _goBack(event) {
    event.preventDefault();
    const champion = this.store.models.live.find((one) => one.alias === "champion");
    try {
      const live = await this.api.rollBack(champion.revision, this.reason.value.trim());
      this.toasts.say(`${live.version} judges again.`);
      this.reason.value = "";
      this._ask(false);
    } catch (error) {
      this.toasts.say(`Not taken back: ${error.message}.`, { kind: "problem" });
    }
    this.reload();
  }
}
