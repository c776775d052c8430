/**
 * Which alerts the table shows, in which order, and which one is selected.
 *
 * No DOM. While the order is held (the pointer rests on the rows) nothing moves under
 * the operator's hand: rows change in place, newcomers are only counted.
 */

import { SORTS, TABS, isSuppressed, matches } from "./store.js";

export class View {
  constructor(store) {
    this._store = store;
    this.tab = TABS[0];
    this.sort = "worst";
    this.query = "";
    this.severities = new Set();
    this.device = null; // {tenant, device} or null
    this.showsSuppressed = false;
    this.selected = null;
    this.open = null; // alert id whose drawer is open
    this._held = null;
    this.waiting = 0; // alerts that a held order keeps out of sight
  }

  change(patch) {
    Object.assign(this, patch);
    this._held = null;
    this._store.touch("view");
  }

  tabCounts() {
    const counts = new Map(TABS.map((tab) => [tab.id, 0]));
    for (const alert of this._store.alerts()) {
      if (!this._isTold(alert)) continue;
      for (const tab of TABS) if (tab.test(alert)) counts.set(tab.id, counts.get(tab.id) + 1);
    }
    return counts;
  }

  /** Number of alerts that are not closed and of which nobody is told. */
  suppressedCount() {
    return this._store.alerts().filter((alert) => isSuppressed(alert) && alert.handling !== "closed").length;
  }

  /** Alerts to show, in order. */
  rows() {
    const wanted = this._store
      .alerts()
      .filter((alert) => this.tab.test(alert) && this._passes(alert))
      .sort(SORTS[this.sort]);
    this.waiting = 0;
    if (!this._held) return wanted;
    const held = new Set(this._held);
    this.waiting = wanted.filter((alert) => !held.has(alert.id)).length;
    return this._held.map((id) => this._store.alert(id)).filter(Boolean);
  }

  /** Keep the order of `ids` until `release`; a second call keeps the first order. */
  hold(ids) {
    this._held ??= ids;
  }

  release() {
    if (!this._held) return;
    this._held = null;
    this._store.touch("view");
  }

  get isHeld() {
    return this._held !== null;
  }

  get isFiltered() {
    return Boolean(this.query || this.severities.size || this.device);
  }

  _isTold(alert) {
    return this.showsSuppressed || !isSuppressed(alert);
  }

  _passes(alert) {
    if (!this._isTold(alert)) return false;
    if (this.severities.size && !this.severities.has(alert.severity)) return false;
    if (this.device && (alert.device_id !== this.device.device || alert.tenant !== this.device.tenant)) return false;
    return matches(alert, this.query);
  }
}
