/**
 * The device strip: one cell per device, its colour the worst alert that still fires,
 * its letter the same for those who do not see colours, hollow when offline.
 *
 * Few devices get tiles with names, many get squares; which one is decided by their number.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { age, count, severityRank, utc } from "./format.js";

const TILES_UP_TO = 36;
const LETTERS = { critical: "C", high: "H", warning: "W", low: "L", info: "I" };

export class Devices {
  constructor({ store, view, clock }) {
    Object.assign(this, { store, view, clock });
    this.cells = byId("cells");
    this.tip = byId("tip");
    this._nodes = new Map();
    this.cells.addEventListener("pointerover", (event) => this._showTip(event.target.closest(".cell")));
    this.cells.addEventListener("pointerleave", () => this._showTip(null));
    this.cells.addEventListener("focusin", (event) => this._showTip(event.target.closest(".cell")));
    this.cells.addEventListener("focusout", () => this._showTip(null));
    store.listen(["devices", "alerts", "view"], () => this.render());
  }

  render() {
    const { devices } = this.store;
    const worst = this._worst();
    const isTiles = devices.length <= TILES_UP_TO;
    setAttr(this.cells, "data-layout", isTiles ? "tiles" : "squares");
    const seen = new Set();
    devices.forEach((device, index) => {
      const key = `${device.tenant}/${device.device}`;
      seen.add(key);
      let node = this._nodes.get(key);
      if (!node) {
        node = h("button", { type: "button", class: "cell", onclick: () => this._pick(key) }, h("i", { class: "cell-mark", "aria-hidden": "true" }), h("span", { class: "cell-name" }));
        this._nodes.set(key, node);
      }
      if (this.cells.children[index] !== node) this.cells.insertBefore(node, this.cells.children[index] ?? null);
      this._fill(node, key, device, worst.get(key));
    });
    for (const [key, node] of this._nodes) {
      if (seen.has(key)) continue;
      node.remove();
      this._nodes.delete(key);
    }
    this._drawNote(devices);
  }

  _fill(node, key, device, alarm) {
    node._device = device;
    node._alarm = alarm;
    const picked = this.view.device;
    setAttr(node, "data-severity", alarm?.severity ?? "none");
    // Null: it sends and never announced itself. That is no reason to draw it as gone.
    setAttr(node, "data-online", String(device.online !== false));
    setAttr(node, "aria-pressed", String(Boolean(picked) && `${picked.tenant}/${picked.device}` === key));
    setText(node.firstChild, alarm ? LETTERS[alarm.severity] : "");
    setText(node.lastChild, device.device);
    const state = alarm ? `${alarm.firing} firing, worst ${alarm.severity}` : "nothing fires";
    setAttr(node, "aria-label", `${device.device}, ${presence(device)}, ${state}`);
  }

  /** Worst severity and number of firing alerts, by device. */
  _worst() {
    const worst = new Map();
    for (const alert of this.store.alerts()) {
      if (alert.condition !== "firing" || alert.handling === "closed") continue;
      const key = `${alert.tenant}/${alert.device_id}`;
      const known = worst.get(key);
      if (!known) worst.set(key, { severity: alert.severity, firing: 1 });
      else {
        known.firing += 1;
        if (severityRank(alert.severity) < severityRank(known.severity)) known.severity = alert.severity;
      }
    }
    return worst;
  }

  _drawNote(devices) {
    const note = byId("devices-note");
    const problem = this.store.problems.devices;
    if (problem) setText(note, `not loaded: ${problem}`);
    else if (!this.store.loaded.devices) setText(note, "loading…");
    else if (!devices.length) setText(note, "no device has spoken yet");
    else {
      const online = devices.filter((device) => device.online).length;
      const offline = devices.filter((device) => device.online === false).length;
      const silent = devices.length - online - offline;
      setText(note, [`${count(online)} online`, `${count(offline)} offline`, silent && `${count(silent)} unannounced`].filter(Boolean).join(" · "));
    }
  }

  _pick(key) {
    const { tenant, device } = this._nodes.get(key)._device;
    const isPicked = this.view.device?.tenant === tenant && this.view.device?.device === device;
    this.view.change({ device: isPicked ? null : { tenant, device } });
  }

  _showTip(node) {
    this.tip.hidden = !node;
    if (!node) return;
    const device = node._device;
    const alarm = node._alarm;
    const lastSeen = Date.parse(device.last_seen_at ?? "");
    this.tip.replaceChildren(
      h("b", {}, device.device),
      h("span", {}, [device.tenant, device.site].filter(Boolean).join(" · ")),
      h("span", {}, `${presence(device)} · last heard ${Number.isFinite(lastSeen) ? `${age(this.clock.now() - lastSeen)} ago` : "never"}`),
      h("span", {}, alarm ? `${alarm.firing} firing, worst ${alarm.severity}` : "nothing fires"),
      Number.isFinite(lastSeen) ? h("span", { class: "muted" }, utc(lastSeen)) : null,
    );
    const box = node.getBoundingClientRect();
    const tip = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(8, Math.min(innerWidth - tip.width - 8, box.left))}px`;
    this.tip.style.top = `${box.bottom + 6 + tip.height > innerHeight ? box.top - tip.height - 6 : box.bottom + 6}px`;
  }
}

function presence(device) {
  if (device.online === null) return "presence not announced";
  return device.online ? "online" : "offline";
}
