/**
 * The floor panel: who judges the readings, what runs and what does not, lanes, dead letters.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { count, duration, modelLabel, utc } from "./format.js";

export class Machine {
  constructor({ store, api, clock }) {
    Object.assign(this, { store, api, clock });
    this.box = byId("machine");
    this._letters = null; // dead letters, once asked for
    this._isOpen = false;
    this._build();
    store.listen(["status", "lanes", "ingest", "connection"], () => this.render());
  }

  _build() {
    const fact = (title) => {
      const value = h("dd");
      return { value, nodes: [h("dt", {}, title), value] };
    };
    this.facts = { model: fact("Judged by"), readings: fact("Readings"), alerts: fact("Alerts"), letters: fact("Dead letters"), circuits: fact("Circuits") };
    this.open = h("button", { type: "button", class: "link-button", "aria-expanded": "false", onclick: () => this._toggle() }, "show");
    this.services = h("ul", { class: "services" });
    this.lanes = h("ul", { class: "lanes" });
    this.letters = h("div", { class: "letters", hidden: true });
    this.box.append(h("dl", { class: "facts" }, ...Object.values(this.facts).flatMap((one) => one.nodes)), this.letters, this.services, this.lanes);
  }

  render() {
    const { status, ingest } = this.store;
    const problem = this.store.problems.status;
    setText(byId("machine-note"), problem ? `not loaded: ${problem}` : this.store.loaded.status ? "" : "loading…");
    const detector = status?.detector;
    const model = detector ? modelLabel(detector.model, detector.version) : "";
    setText(this.facts.model.value, model || "–");
    setText(this.facts.readings.value, count(ingest?.data.readings_total ?? status?.readings_total));
    setText(this.facts.alerts.value, count(status?.alerts_total));
    const letters = ingest?.data.dead_letters ?? status?.dead_letters_total;
    this._fillLetters(letters);
    const open = Object.entries(status?.circuits ?? {}).filter(([, state]) => stateName(state) !== "closed");
    setText(this.facts.circuits.value, open.length ? open.map(([name, state]) => `${name} ${stateName(state).replace("_", " ")}${state.author ? ` by ${state.author}` : ""}`).join(", ") : "all closed");
    setAttr(this.facts.circuits.value, "data-kind", open.length ? "problem" : null);
    this._drawServices(status);
    this._drawLanes();
  }

  _fillLetters(total) {
    const value = this.facts.letters.value;
    const text = count(total);
    if (value.firstChild?.nodeValue !== text) value.replaceChildren(text, " ", this.open);
    this.open.hidden = !total || !this.store.config?.may.dead_letters;
    setAttr(value, "data-kind", total ? "warning" : null);
  }

  _drawServices(status) {
    const services = Object.entries(status?.services ?? {});
    this.services.replaceChildren(...services.map(([name, service]) =>
      h("li", { "data-state": service.state, title: service.detail ?? "" }, h("i", { "aria-hidden": "true" }), h("span", {}, name), h("em", {}, service.state))));
  }

  _drawLanes() {
    this.lanes.replaceChildren(...this.store.lanes.map((lane) => {
      const who = (lane.holders ?? []).map((holder) => (typeof holder === "string" ? holder : (holder.run_id ?? holder.id ?? ""))).filter(Boolean);
      const title = [`priority ${lane.priority}`, who.length && `held by ${who.join(", ")}`, lane.soft_limit_s && `limits ${duration(lane.soft_limit_s * 1000)} / ${duration(lane.hard_limit_s * 1000)}`].filter(Boolean).join(" · ");
      return h("li", { title }, h("span", {}, lane.name), h("b", {}, `${lane.running} / ${lane.concurrency}`), h("em", {}, lane.queued ? `${lane.queued} waiting` : ""));
    }));
  }

  async _toggle() {
    this._isOpen = !this._isOpen;
    setAttr(this.open, "aria-expanded", String(this._isOpen));
    setText(this.open, this._isOpen ? "hide" : "show");
    this.letters.hidden = !this._isOpen;
    if (this._isOpen) await this._loadLetters();
  }

  /** Show the newest letters, with `said` above them: what became of the last replay. */
  async _loadLetters(said = "") {
    if (!said) setText(this.letters, "Loading…");
    try {
      const { items } = await this.api.deadLetters({ limit: 50 });
      const heads = ["At", "Reason", "Topic", "Detail", ""].map((name) => h("th", {}, name));
      const rows = items.map((item) => h("tr", {},
        h("td", { title: utc(item.at) }, utc(item.at).slice(11, 19)), h("td", {}, item.reason), h("td", {}, item.topic), h("td", { title: item.preview ?? "" }, item.detail ?? ""),
        h("td", {}, h("button", { type: "button", class: "link-button", title: "Try it again, as after a repair", onclick: (event) => this._replay(item, event.target) }, "replay"))));
      this.letters.replaceChildren(h("p", { role: "status" }, said), h("table", {}, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows)));
    } catch (error) {
      setText(this.letters, `Not loaded: ${error.message}.`);
    }
  }

  async _replay(item, button) {
    button.disabled = true;
    let said;
    try {
      const { items: [done] } = await this.api.replayDeadLetters([item.id]);
      said = done.outcome === "refused" ? `Refused again: ${done.reason} ${done.detail}` : done.outcome === "known" ? "It had been stored before." : "Stored.";
    } catch (error) {
      said = `Not replayed: ${error.message}.`;
    }
    await this._loadLetters(said);
  }
}

function stateName(state) {
  return typeof state === "string" ? state : (state?.state ?? "closed");
}
