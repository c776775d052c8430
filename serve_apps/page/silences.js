/**
 * Silences and maintenance windows: a form for a new one, and those that are on or to come.
 *
 * The form begins with what the alert in hand is: this problem, or all of its device, site
 * or rule. What repeats keeps its time of day in the browser's time zone.
 */

import { byId, h, setText } from "./dom.js";
import { utc } from "./format.js";
import { matchersText, readMatchers } from "./matchers.js";

const LENGTHS = [["30 min", 1800], ["1 h", 3600], ["4 h", 14_400], ["8 h", 28_800], ["1 day", 86_400], ["7 days", 604_800]];
const SCOPES = [
  { id: "problem", title: "this problem", of: (a) => [["fingerprint", a.fingerprint]] },
  { id: "device", title: "all of its device", of: (a) => [["tenant", a.tenant], ["device", a.device_id]] },
  { id: "site", title: "all of its site", of: (a) => (a.site ? [["tenant", a.tenant], ["site", a.site]] : null) },
  { id: "rule", title: "this kind of alert", of: (a) => (a.source?.rule ? [["source", a.source.kind], ["rule", a.source.rule]] : null) },
];
const MOST = 200;

export class Silences {
  constructor({ store, view, api, toasts }) {
    Object.assign(this, { store, view, api, toasts });
    this.node = byId("silences");
    this._edited = null; // silence whose terms are in the form
    byId("silences-open").addEventListener("click", () => this.open(null));
    this.node.addEventListener("click", (event) => event.target === this.node && this.node.close());
    store.listen(["silences"], () => this.node.open && this._drawList());
  }

  /** Open the form; for the alert in hand, if there is one. */
  async open(alert = this._target()) {
    if (this.node.open) return;
    this._alert = alert;
    this._edited = null;
    this._build();
    this.node.showModal();
    this.form?.elements.comment.focus();
    try {
      const pages = await Promise.all(["active", "pending"].map((state) => this.api.silences({ state, limit: MOST })));
      for (const { items } of pages) items.forEach((one) => this.store.mergeSilence(one));
    } catch (error) {
      this._say(error.message);
    }
    this._drawList();
  }

  _target() {
    const id = this.view.open ?? this.view.selected;
    return id ? this.store.alert(id) : null;
  }

  _build() {
    this._may = Boolean(this.store.config?.may.acknowledge);
    this.list = h("ul", { class: "silence-list" });
    this.problem = h("p", { class: "drawer-why", role: "alert" });
    this.node.replaceChildren(
      h("h2", { id: "silences-title" }, "Silences and maintenance"),
      this._may ? this._form() : h("p", { class: "drawer-why" }, "You may look, not act: this needs the role operator."),
      this.problem,
      h("h3", {}, "On now or to come"), this.list,
      h("form", { method: "dialog" }, h("button", { class: "button" }, "Close")),
    );
    this._drawList();
  }

  _form() {
    const select = (name, label, options) => h("label", {}, label, h("select", { name }, ...options.map(([value, text]) => h("option", { value }, text))));
    const input = (name, label, placeholder) => h("label", { class: "wide" }, label, h("input", { name, type: "text", required: true, maxlength: "1000", placeholder, autocomplete: "off" }));
    const scopes = SCOPES.filter((scope) => this._alert && scope.of(this._alert));
    this._submit = h("button", { type: "submit", class: "button primary" }, "Silence");
    this.form = h("form", { class: "silence-form", onsubmit: (event) => this._send(event) },
      select("kind", "Kind", [["silence", "silence"], ["maintenance", "maintenance"]]),
      scopes.length ? select("scope", "Of", scopes.map((scope) => [scope.id, scope.title])) : null,
      select("lasts", "For", LENGTHS.map(([text, seconds]) => [seconds, text])),
      select("repeats", "Repeats", [["never", "once"], ["daily", "daily"], ["weekly", "weekly"]]),
      input("matchers", "Matches", "site=hall-* severity!=critical"),
      input("comment", "Comment", "Why"),
      this._submit);
    this.form.elements.lasts.value = "3600";
    this.form.elements.scope?.addEventListener("change", () => this._fillMatchers());
    this._fillMatchers();
    return this.form;
  }

  _fillMatchers() {
    const scope = SCOPES.find((one) => one.id === this.form.elements.scope?.value);
    if (!scope) return;
    const pairs = scope.of(this._alert);
    this.form.elements.matchers.value = matchersText(pairs.map(([field, value]) => ({ field, values: [value] })));
  }

  async _send(event) {
    event.preventDefault();
    const field = this.form.elements;
    const lasts = Number(field.lasts.value);
    const isEdit = this._edited !== null;
    this._submit.disabled = true;
    try {
      const terms = { matchers: readMatchers(field.matchers.value), comment: field.comment.value.trim(), repeats: field.repeats.value };
      if (terms.repeats !== "never") terms.time_zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
      const { silence, changed } = isEdit
        ? await this.api.changeSilence(this._edited.id, { ...terms, ends_at: endsAt(this._edited, lasts), if_version: this._edited.version })
        : await this.api.silence({ ...terms, kind: field.kind.value, for_s: lasts });
      this.store.mergeSilence(silence);
      this.node.close();
      this.toasts.say(`${isEdit ? "Changed" : "Silenced"}: ${silence.comment} (${changed} ${changed === 1 ? "alert" : "alerts"})`, {
        action: isEdit ? null : { label: "End it", run: () => this._end(silence) },
      });
    } catch (error) {
      this._say(error.message);
    } finally {
      this._submit.disabled = false;
    }
  }

  _edit(silence) {
    this._edited = silence;
    const field = this.form.elements;
    field.matchers.value = matchersText(silence.matchers);
    field.comment.value = silence.comment;
    field.repeats.value = silence.repeats;
    field.kind.value = silence.kind;
    field.kind.disabled = true;
    setText(this._submit, "Change");
    field.comment.focus();
  }

  async _end(silence) {
    try {
      this.store.mergeSilence((await this.api.endSilence(silence.id)).silence);
      this.toasts.say(`Ended: ${silence.comment}`);
    } catch (error) {
      this.toasts.say(`Not done: ${error.message}.`, { kind: "problem" });
    }
  }

  _say(text) {
    setText(this.problem, text);
  }

  _drawList() {
    const items = Array.from(this.store.silences.values()).sort((a, b) => Date.parse(a.active_from) - Date.parse(b.active_from));
    const button = (label, run) => (this._may ? h("button", { type: "button", class: "button", onclick: run }, label) : null);
    this.list.replaceChildren(...items.map((one) =>
      h("li", { "data-id": one.id },
        h("span", { class: "pill", "data-state": one.state === "active" ? "running" : "queued" }, `${one.kind}, ${one.state}`),
        h("span", { class: "silence-what" }, matchersText(one.matchers), h("em", {}, `${one.comment} · ${one.updated_by} · ${when(one)}`)),
        button("Edit", () => this._edit(one)), button("End", () => this._end(one)))));
    if (!items.length) this.list.replaceChildren(h("li", { class: "muted" }, "Nothing is silenced."));
  }
}

/** A window that is on ends so long from now; one to come or that repeats lasts so long. */
function endsAt(silence, lasts) {
  const isOn = silence.state === "active" && silence.repeats === "never";
  return new Date((isOn ? Date.now() : Date.parse(silence.starts_at)) + lasts * 1000).toISOString();
}

function when(silence) {
  const window = silence.state === "active" ? `until ${utc(silence.active_until)}` : `${utc(silence.active_from)} to ${utc(silence.active_until)}`;
  return silence.repeats === "never" ? window : `${window}, ${silence.repeats} (${silence.time_zone})`;
}
