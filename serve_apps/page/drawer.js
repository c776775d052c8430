/**
 * The drawer beside the table: one alert with its evidence, facts, history and actions.
 *
 * Shows the row at once and the evidence when it has come; a slow or failed load says
 * so inside, the rest stays usable. Not a dialog: the table keeps the keyboard.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { evidenceChart } from "./chart.js";
import { age, duration, modelLabel, num, utc } from "./format.js";
import { VERDICTS, ackText, audience, suppressionText } from "./alerts_table.js";

const ACK_FOR = [["1 h", 3600], ["8 h", 28_800], ["until over", 0]];
const VERDICT_KEYS = { true_positive: "t", false_positive: "f", expected: "e", unsure: "u" };

export class Drawer {
  constructor({ store, view, api, clock, actions, onSilence }) {
    Object.assign(this, { store, view, api, clock, actions, onSilence });
    this.node = byId("drawer");
    this._detail = null; // {id, version, alert, events, evidence}
    this._failed = null;
    this._asked = null;
    store.listen(["alerts", "view"], () => this.render());
    setInterval(() => this._tick(), 1000);
    addEventListener("resize", () => this.render());
  }

  open(id) {
    const isNew = this.view.open !== id;
    this.view.open = id;
    if (isNew) {
      this._detail = null;
      this._failed = null;
      this._asked = null;
      this.node.scrollTop = 0;
      history.replaceState(null, "", `#alert=${encodeURIComponent(id)}`);
    }
    this.store.touch("view");
  }

  close() {
    if (!this.view.open) return false;
    this.view.open = null;
    history.replaceState(null, "", location.pathname + location.search);
    this.store.touch("view");
    return true;
  }

  async _load(id, version) {
    const asked = `${id}@${version}`;
    if (this._asked === asked) return;
    this._asked = asked;
    try {
      const detail = await this.api.alert(id);
      if (this.view.open !== id) return;
      const isTrained = detail.alert.source?.kind === "model";
      const model = isTrained ? await this.api.modelOf(id).then((answer) => answer.model, () => null) : null;
      if (this.view.open !== id) return;
      this._detail = { id, ...detail, model };
      this._failed = null;
      this.store.mergeAlert(detail.alert);
    } catch (error) {
      if (this.view.open !== id) return;
      this._failed = error.message;
    }
    this.render();
  }

  render() {
    const id = this.view.open;
    const alert = id ? (this.store.alert(id) ?? (this._detail?.id === id ? this._detail.alert : null)) : null;
    document.body.classList.toggle("has-drawer", Boolean(id));
    this.node.hidden = !id;
    if (!id) {
      this._shown = null;
      return;
    }
    this._load(id, alert?.version ?? 0);
    if (!alert) {
      this._shown = null;
      this.node.replaceChildren(this._close(), h("p", { class: "empty" }, this._failed ? `This alert could not be loaded: ${this._failed}.` : "Loading the alert…"));
      return;
    }
    if (this._shown !== id) this._build(alert);
    this._update(alert);
  }

  _build(alert) {
    this._shown = alert.id;
    this._parts = {
      badge: h("span", { class: "badge" }),
      title: h("h2", { class: "drawer-title" }),
      sub: h("p", { class: "drawer-sub" }),
      text: h("p", { class: "drawer-text" }),
      actions: h("div", { class: "drawer-actions", role: "group", "aria-label": "Actions" }),
      why: h("p", { class: "drawer-why" }),
      evidence: h("div", { class: "drawer-evidence" }),
      facts: h("dl", { class: "facts" }),
      events: h("ol", { class: "events" }),
      note: this._noteForm(),
    };
    const part = this._parts;
    this.node.replaceChildren(
      h("header", { class: "drawer-head" }, h("div", { class: "drawer-line" }, part.badge, part.sub, this._close()), part.title, part.text),
      part.actions, part.why,
      h("section", {}, h("h3", {}, "Evidence"), part.evidence),
      h("section", {}, h("h3", {}, "Facts"), part.facts),
      h("section", {}, h("h3", {}, "What happened"), part.events, part.note),
    );
    this._buildActions();
    this._evidenceOf = null;
  }

  _close() {
    return h("button", { type: "button", class: "icon drawer-close", "aria-label": "Close the details", title: "Close (Esc)", onclick: () => this.close() }, "×");
  }

  _buildActions() {
    const button = (label, key, run, extra = {}) => h("button", { type: "button", class: "button", onclick: run, ...extra }, label, h("kbd", {}, key));
    this._ack = button("Acknowledge", "a", () => this.actions.acknowledge());
    this._ackFor = ACK_FOR.map(([label, forS]) => {
      const title = `Acknowledge ${forS ? `for ${label}` : "as long as the problem lasts"}`;
      return h("button", { type: "button", class: "button ack-for", title, onclick: () => this.actions.acknowledge(undefined, forS) }, label);
    });
    this._silence = button("Silence", "s", () => this.onSilence());
    this._end = button("Close", "c", () => this.actions.closeAlert());
    this._verdicts = Object.entries(VERDICTS).map(([verdict, label]) =>
      button(label, VERDICT_KEYS[verdict], () => this.actions.verdict(verdict), { class: "button verdict", "data-verdict": verdict }));
    this._parts.actions.append(h("span", { class: "segments", role: "group", "aria-label": "Acknowledge" }, this._ack, ...this._ackFor), this._silence, this._end, h("span", { class: "segments", role: "group", "aria-label": "Verdict" }, ...this._verdicts));
  }

  _noteForm() {
    const input = h("input", { type: "text", maxlength: "2000", placeholder: "Add a note", "aria-label": "Note" });
    return h("form", {
      class: "note-form",
      onsubmit: async (event) => {
        event.preventDefault();
        const text = input.value.trim();
        if (!text) return;
        if (await this.actions.note(text)) input.value = "";
      },
    }, input, h("button", { type: "submit", class: "button" }, "Add"));
  }

  _update(alert) {
    const part = this._parts;
    const may = this.store.config?.may ?? {};
    setAttr(this.node, "data-severity", alert.severity);
    setText(part.badge, alert.severity);
    setText(part.title, alert.title);
    setText(part.text, alert.text && alert.text !== alert.title ? alert.text : "");
    this._tick();
    setText(this._ack.firstChild, alert.handling === "new" ? "Acknowledge" : alert.handling === "acked" ? "Take back acknowledgement" : "Acknowledged");
    this._ack.classList.toggle("primary", alert.handling === "new");
    this._ack.disabled = !may.acknowledge || alert.handling === "closed";
    this._end.disabled = !may.acknowledge || alert.handling === "closed";
    for (const one of [...this._ackFor, this._silence]) one.disabled = this._end.disabled;
    for (const button of this._verdicts) {
      button.disabled = !may.verdict;
      setAttr(button, "aria-pressed", String(alert.verdict === button.dataset.verdict));
    }
    part.note.hidden = !may.acknowledge;
    setText(part.why, may.acknowledge ? "" : "You may look, not act: acknowledging and verdicts need the role operator.");
    this._updateFacts(alert);
    const detail = this._detail?.id === alert.id ? this._detail : null;
    this._updateEvidence(alert, detail);
    this._updateEvents(detail);
  }

  _tick() {
    const alert = this.view.open && this.store.alert(this.view.open);
    if (!alert || this._shown !== alert.id) return;
    const ms = this.clock.now() - alert.startsMs;
    setText(this._parts.sub, `${alert.condition} · ${alert.handling === "new" ? "unacknowledged" : alert.handling} · ${age(ms)} old`);
    setAttr(this._parts.sub, "title", `since ${utc(alert.startsMs)}`);
  }

  _updateFacts(alert) {
    const { source = {} } = alert;
    const isModel = source.kind === "model";
    const facts = [
      ["Device", `${alert.device_id}`],
      ["Tenant, site", [alert.tenant, alert.site].filter(Boolean).join(", ")],
      ["Raised by", isModel ? modelLabel(source.model, source.model_version) : `the device (${source.rule ?? "alert"})`],
      ["Its model", this._detail?.id === alert.id ? lineage(this._detail.model) : ""],
      ["Score, threshold", isModel ? `${num(source.score)} / ${num(source.threshold)}` : ""],
      ["Metric", alert.metric],
      ["Value", alert.value === null || alert.value === undefined ? "" : `${num(alert.value)}${!isModel && source.threshold !== null && source.threshold !== undefined ? ` / limit ${num(source.threshold)}` : ""}`],
      ["First recorded at", alert.recorded_at ? `${String(alert.recorded_at).replace("T", " ").slice(0, 19)} (replayed telemetry)` : ""],
      ["First seen", utc(alert.startsMs)],
      ["Last seen", alert.count > 1 ? `${utc(alert.last_seen_at)} (${alert.count} times)` : utc(alert.last_seen_at)],
      ["Lasted", alert.cleared_at ? duration(Date.parse(alert.cleared_at) - alert.startsMs) : ""],
      ["Acknowledged", alert.acked_by ? ackText(alert) : ""],
      ["Nobody is told", (alert.suppressed_by ?? []).map(suppressionText).join("; ")],
      ["Escalated", alert.escalation_level > 0 ? `to ${audience(alert.escalated_to)} (level ${alert.escalation_level})` : ""],
      ["Closed", utc(alert.closed_at)],
      ["Alert id", alert.id],
    ].filter(([, value]) => value);
    this._parts.facts.replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  _updateEvidence(alert, detail) {
    const key = detail ? `${detail.id}@${detail.alert.version}@${this._parts.evidence.clientWidth}` : `waiting:${this._failed}`;
    if (this._evidenceOf === key) return;
    this._evidenceOf = key;
    const box = this._parts.evidence;
    const points = detail?.evidence?.points ?? [];
    setAttr(box, "data-kind", alert.source?.kind);
    if (!detail) {
      box.replaceChildren(h("p", { class: "empty", "data-kind": this._failed ? "problem" : null }, this._failed ? `The evidence could not be loaded: ${this._failed}.` : "Loading the evidence…"));
    } else if (points.length > 1) {
      box.replaceChildren(evidenceChart(detail.evidence, detail.alert, box.clientWidth));
    } else {
      box.replaceChildren(h("p", { class: "empty" }, alert.source?.kind === "model" ? "The readings behind this alert were not kept." : deviceSentence(alert)));
    }
  }

  _updateEvents(detail) {
    const items = (detail?.events ?? []).map((event) => {
      const change = event.from && event.to && event.from !== event.to ? ` ${event.from} → ${event.to}` : "";
      return h("li", {},
        h("time", { datetime: event.at, title: utc(event.at) }, utc(event.at).slice(11, 19)),
        h("span", {}, h("b", {}, String(event.action).replaceAll("_", " ")), `${change} · ${event.actor || "floor"}`, eventDetail(event)));
    });
    this._parts.events.replaceChildren(...(items.length ? items : [h("li", { class: "muted" }, detail ? "No event is recorded." : "Loading…")]));
  }
}

/** Data set, run and person behind the version that raised an alert; empty for the baseline. */
function lineage(model) {
  if (!model) return "";
  if (model.problem) return model.problem;
  const judged = Object.entries(model.alerts?.verdicts ?? {}).map(([verdict, { count }]) => `${count} ${VERDICTS[verdict]?.toLowerCase() ?? verdict}`);
  const parts = [
    model.made_from && `trained on ${model.made_from.dataset.name} (${String(model.made_from.dataset.digest ?? "").slice(0, 8)})`,
    model.made_by?.run_id && `by run ${model.made_by.run_id}${model.made_by.user_id ? ` of ${model.made_by.user_id}` : ""}`,
    judged.length && `its alerts were judged: ${judged.join(", ")}`,
  ];
  return parts.filter(Boolean).join("; ") || `made ${utc(model.created_at)}`;
}

function deviceSentence(alert) {
  const limit = alert.source?.threshold;
  const value = alert.value === null || alert.value === undefined ? "" : ` It reported ${num(alert.value)}${limit === null || limit === undefined ? "" : ` against its limit of ${num(limit)}`}.`;
  return `The device raised this alert itself, no model was asked.${value}`;
}

/** What an event says beyond its name: a reason, a note, a verdict, or what was seen and when it was recorded. */
function eventDetail({ reason, data = {} }) {
  const version = data.model_version ? modelLabel(data.model, data.model_version) : "";
  const score = Number.isFinite(data.score) ? `score ${num(data.score)}` : "";
  const recorded = data.recorded_at ? `recorded ${String(data.recorded_at).replace("T", " ").slice(0, 16)}` : "";
  const end = data.expires_at ?? data.until;
  const to = data.to ? `to ${audience(data.to)}` : "";
  const muted = data.muted_by ? `nobody was told (${data.muted_by.join(", ")})` : "";
  const text = [reason, to, end && `until ${utc(end)}`, muted, data.note, VERDICTS[data.verdict], score, version && `by ${version}`, recorded].filter(Boolean).join(" · ");
  return text ? h("em", {}, text) : null;
}
