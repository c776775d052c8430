/**
 * The top bar: is what we see alive, how fast do readings come, what waits, what time is it.
 *
 * The one place that says "live", so it says it only while the socket is open and the
 * server has been heard; while it is not, everything below is marked as old.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { SEVERITIES, count, duration, num, utcTime } from "./format.js";
import { isSuppressed } from "./store.js";

const LETTERS = { critical: "C", high: "H", warning: "W", low: "L", info: "I" };
const RATES = 60;
const SILENT_MS = 6000;
const RESUMED_MS = 6000;

export class TopBar {
  constructor({ store, view, clock, onReconnect }) {
    Object.assign(this, { store, view, clock, onReconnect });
    this.rates = [];
    this._resumedUntil = 0;
    this._buildChips();
    byId("banner-action").addEventListener("click", () => this.onReconnect());
    store.listen(["connection"], () => this._drawLink());
    store.listen(["ingest"], () => this._addRate());
    store.listen(["alerts", "view"], () => this._drawChips());
    store.listen(["config"], () => this._drawUser());
    setInterval(() => this._tick(), 1000);
    this._tick();
  }

  _buildChips() {
    this.chips = SEVERITIES.map((severity) => {
      const chip = h("button", { type: "button", class: "chip", "data-severity": severity, onclick: () => this._toggle(severity) },
        h("b", {}, LETTERS[severity]), h("span", { class: "chip-count" }, "–"), h("span", { class: "chip-name" }, severity));
      return { severity, chip };
    });
    byId("chips").append(...this.chips.map(({ chip }) => chip));
  }

  _toggle(severity) {
    const severities = new Set(this.view.severities);
    if (!severities.delete(severity)) severities.add(severity);
    this.view.change({ severities });
  }

  _drawChips() {
    const waiting = new Map(SEVERITIES.map((severity) => [severity, 0]));
    for (const alert of this.store.alerts()) {
      if (alert.handling === "new" && !isSuppressed(alert)) waiting.set(alert.severity, (waiting.get(alert.severity) ?? 0) + 1);
    }
    for (const { severity, chip } of this.chips) {
      const number = waiting.get(severity);
      setText(chip.children[1], this.store.loaded.alerts ? count(number) : "–");
      setAttr(chip, "data-none", number === 0);
      setAttr(chip, "aria-pressed", String(this.view.severities.has(severity)));
      setAttr(chip, "aria-label", `${number} unacknowledged ${severity}`);
    }
    const total = [...waiting.values()].reduce((sum, number) => sum + number, 0);
    document.title = total ? `(${total}) Watchfloor` : "Watchfloor";
  }

  _drawLink() {
    const state = this.store.connection;
    if (state.name === "connected" && state.resumedMs !== undefined) this._resumedUntil = performance.now() + RESUMED_MS;
    const isOld = state.name !== "connected" && state.staleSince !== undefined;
    document.body.classList.toggle("is-stale", isOld);
    this._sayLink();
    this._drawFlow();
  }

  _sayLink() {
    const state = this.store.connection;
    const text = byId("link-text");
    const isConnected = state.name === "connected";
    const resumed = isConnected && performance.now() < this._resumedUntil;
    setAttr(byId("link"), "data-state", isConnected ? "live" : state.name === "closed" ? "closed" : state.staleSince ? "stale" : "connecting");
    if (resumed) setText(text, `Live · resumed in ${duration(state.resumedMs)}`);
    else if (isConnected) setText(text, "Live");
    else if (state.name === "closed") setText(text, state.isSignedOut ? "Signed out" : "Disconnected");
    else if (state.staleSince) setText(text, `Stale since ${utcTime(state.staleSince)} UTC`);
    else setText(text, "Connecting…");
    this._drawBanner(state);
  }

  _drawBanner(state) {
    const banner = byId("banner");
    const action = byId("banner-action");
    let text = "";
    if (state.name === "closed") {
      text = state.isSignedOut
        ? "You are signed out. Make a new link with: watchfloor token --link"
        : `The floor ended this connection${state.reason ? `: ${state.reason}` : ""}. What you see is no longer updated.`;
    } else if (state.name !== "connected" && state.staleSince) {
      const seconds = Math.max(0, Math.ceil(((state.retryAt ?? 0) - Date.now()) / 1000));
      const next = state.name === "connecting" ? "Connecting…" : `Next try in ${seconds} s.`;
      text = `No connection to the floor. What you see is from ${utcTime(state.staleSince)} UTC. ${next}`;
    }
    banner.hidden = !text;
    // Read out once: a countdown in a live region would be spoken every second.
    setAttr(banner, "aria-label", text ? text.replace(/ Next try.*| Connecting…$/, "") : null);
    setText(byId("banner-text"), text);
    action.hidden = !text || state.isSignedOut === true;
  }

  _addRate() {
    const rate = this.store.ingest?.data.rate;
    if (!Number.isFinite(rate)) return;
    this.rates.push(rate);
    if (this.rates.length > RATES) this.rates.shift();
    const top = Math.max(...this.rates, 1);
    const points = this.rates.map((value, index) => `${80 - (this.rates.length - 1 - index) * (80 / (RATES - 1))},${(19 - (value / top) * 17).toFixed(1)}`);
    setAttr(byId("flow-line").firstElementChild, "points", points.join(" "));
    this._drawFlow();
  }

  _drawFlow() {
    const { ingest } = this.store;
    const flow = byId("flow");
    if (!ingest) return;
    const silent = Date.now() - ingest.heardAt;
    const { data } = ingest;
    const isSilent = silent > SILENT_MS || this.store.connection.name !== "connected";
    const problem = ingestProblem(data);
    setAttr(flow, "data-state", isSilent || problem ? "problem" : "ok");
    setText(byId("flow-rate"), isSilent ? "–" : data.rate < 10 ? num(data.rate) : count(data.rate));
    setText(byId("flow-lag"), isSilent ? "unknown" : seconds(data.lag_s));
    setAttr(flow, "title", isSilent ? `No report from ingest for ${duration(silent)}` : `ingest: ${num(data.rate)} messages a second, lag ${seconds(data.lag_s)}, ${count(data.window)} not yet acknowledged${problem ? ` · ${problem}` : ""}`);
  }

  _drawUser() {
    const { user } = this.store.config;
    const role = user.roles.at(-1) ?? "no role";
    byId("who").replaceChildren(h("b", {}, user.id), h("span", {}, `${role}${user.tenant ? ` · ${user.tenant}` : ""}`));
    setAttr(byId("who"), "title", `roles: ${user.roles.join(", ")}; ${user.tenant ? `tenant ${user.tenant}` : "all tenants"}`);
  }

  _tick() {
    const now = new Date(this.clock.now());
    const clock = byId("clock");
    setText(clock, `${utcTime(now.getTime())} UTC`);
    setAttr(clock, "datetime", now.toISOString());
    setAttr(clock, "title", `${now.toISOString().slice(0, 10)} · here ${now.toLocaleTimeString()}`);
    this._sayLink();
    this._drawFlow();
  }
}

/** "0.03 s": two decimals, so that the figure does not dance. */
function seconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(value < 10 ? 2 : 0)} s` : "–";
}

/** What keeps readings from coming in; empty when nothing does. */
function ingestProblem(data) {
  const blocked = Object.entries(data.blocked ?? {}).map(([lane, reason]) => `${lane} blocked: ${reason}`);
  if (data.broker_connected === false) blocked.push(`broker: ${data.broker_problem ?? "not connected"}`);
  return blocked.join(" · ");
}
