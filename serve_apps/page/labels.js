/**
 * Labelling: one window at a time, one key an answer.
 *
 * A question is leased, so nobody else has it; closing the dialog or the page gives it back, and so does the
 * end of the page's socket.
 * What the model would say is shown only on request, and the label keeps whether it was.
 */

import { byId, h, setText } from "./dom.js";
import { evidenceChart } from "./chart.js";
import { utc } from "./format.js";

const ANSWERS = [["anomalous", "Anomalous", "1"], ["normal", "Normal", "2"]];
const RENEW_MS = 45_000;

export class Labels {
  constructor({ store, api, toasts, hold }) {
    Object.assign(this, { store, api, toasts });
    this.hold = () => this.node.open && hold(this.session);
    this.node = byId("labels");
    this.session = `page-${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2).padEnd(8, "0")}`;
    this._question = null;
    this._sawProposal = false;
    this._done = 0;
    byId("labels-open").addEventListener("click", () => this.open());
    this.node.addEventListener("close", () => this._leave());
    this.node.addEventListener("keydown", (event) => this._pressed(event));
    addEventListener("pagehide", () => this._question && this.api.releaseLabels(this.session, true));
    setInterval(() => this._question && this.api.renewLabels(this.session).catch(() => {}), RENEW_MS);
  }

  async open() {
    if (this.node.open) return;
    const may = Boolean(this.store.config?.may.verdict);
    this.title = h("p", { class: "labels-what" });
    this.plot = h("div", { class: "labels-plot" });
    this.proposal = h("p", { class: "labels-proposal" });
    this.problem = h("p", { class: "drawer-why", role: "alert" });
    const button = (text, key, run) => h("button", { type: "button", class: "button", onclick: run }, text, h("kbd", {}, key));
    this.buttons = [
      ...ANSWERS.map(([value, text, key]) => button(text, key, () => this._answer(value))),
      button("Skip", "s", () => this._skip()),
      button("Ask the model", "m", () => this._showProposal()),
    ];
    this.node.replaceChildren(
      h("h2", { id: "labels-title" }, "Labelling"),
      may ? "" : h("p", { class: "drawer-why" }, "You may look, not act: this needs the role operator."),
      this.title, this.plot, this.proposal, this.problem,
      h("div", { class: "drawer-actions", role: "group", "aria-label": "Answers" }, ...this.buttons),
      h("form", { method: "dialog" }, h("button", { class: "button" }, "Close")),
    );
    this.node.showModal();
    if (may) this.hold();
    if (may) await this._next();
    else this._draw();
  }

  async _next() {
    this._question = null;
    this._sawProposal = false;
    await this._try(async () => {
      const { items } = await this.api.leaseLabels(this.session);
      this._question = items[0] ?? null;
    });
    this._draw();
  }

  _draw() {
    const one = this._question;
    for (const button of this.buttons) button.disabled = !one;
    setText(this.proposal, "");
    if (!one) {
      const said = this._done ? `${this._done} answered. ` : "";
      setText(this.title, `${said}Nothing is asked at the moment. Active learning asks about windows that the model is unsure of.`);
      this.plot.replaceChildren();
      return;
    }
    const { details } = one;
    setText(this.title, `${details.device ?? one.subject} · ${details.metric ?? ""} · ${utc(details.from)} to ${utc(details.to)} · asked by ${one.asked_by.replaceAll("_", " ")}`);
    const points = details.points ?? [];
    const evidence = { metric: details.metric, points, threshold: null };
    const chart = points.length > 1 ? evidenceChart(evidence, null, this.plot.clientWidth || 640) : h("p", { class: "empty" }, "This question came without its readings.");
    this.plot.replaceChildren(chart);
    this.buttons[3].disabled = !one.proposal;
    if (details.shows_proposal) this._showProposal();
  }

  _showProposal() {
    const one = this._question;
    if (!one?.proposal) return;
    this._sawProposal = true;
    setText(this.proposal, `${one.model_id ?? "The model"} says: ${one.proposal}${Number.isFinite(one.confidence) ? `, ${Math.round(100 * one.confidence)} % sure` : ""}.`);
  }

  async _answer(value) {
    const one = this._question;
    if (!one) return;
    const isKept = await this._try(() => this.api.answerLabel(one.id, one.token, value, this._sawProposal));
    if (isKept) this._done += 1;
    await this._next();
  }

  async _skip() {
    const one = this._question;
    if (!one) return;
    await this._try(() => this.api.skipLabel(one.id, one.token));
    await this._next();
  }

  async _leave() {
    if (!this._question) return;
    this._question = null;
    await this._try(() => this.api.releaseLabels(this.session));
  }

  async _try(work) {
    try {
      await work();
      setText(this.problem, "");
      return true;
    } catch (error) {
      setText(this.problem, `${error.message}.`);
      return false;
    }
  }

  _pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const answer = ANSWERS.find(([, , key]) => key === event.key);
    if (answer) this._answer(answer[0]);
    else if (event.key === "s") this._skip();
    else if (event.key === "m") this._showProposal();
    else return;
    event.preventDefault();
  }
}
