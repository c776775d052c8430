/**
 * What an operator may do to alerts: shown at once, confirmed by the server, taken back
 * with the server's own words when it refuses.
 */

import { VERDICTS } from "./alerts_table.js";
import { count } from "./format.js";

const MOST_AT_ONCE = 5000;

export class AlertActions {
  constructor({ store, view, api, toasts }) {
    Object.assign(this, { store, view, api, toasts });
  }

  /** Acknowledge the alert in hand, or take it back; with `forS` for so many seconds, 0: as long as the problem. */
  acknowledge(id = this._target(), forS = null) {
    const alert = id && this.store.alert(id);
    if (!alert) return this._nothing();
    if (alert.handling === "closed") return this.toasts.say("A closed alert cannot be acknowledged.");
    const back = alert.handling === "acked";
    const user = this.store.config?.user.id;
    if (forS !== null) {
      return this._act("acknowledge", [id], { for_s: forS }, { handling: "acked", acked_by: user }, {
        text: `Acknowledged ${forS ? `for ${forS / 3600} h` : "until it is over"}: ${alert.title}`,
      });
    }
    return this._act(back ? "unacknowledge" : "acknowledge", [id], {}, back ? { handling: "new", acked_by: null } : { handling: "acked", acked_by: user }, back
      ? { text: `Acknowledgement taken back: ${alert.title}` }
      : { text: `Acknowledged: ${alert.title}`, undo: () => this._act("unacknowledge", [id], {}, { handling: "new", acked_by: null }) });
  }

  /** Acknowledge every alert of the list that waits, in one call. */
  acknowledgeAll(alerts) {
    const ids = alerts.filter((alert) => alert.handling === "new").map((alert) => alert.id).slice(0, MOST_AT_ONCE);
    if (!ids.length) return this.toasts.say("No alert of this list waits.");
    const user = this.store.config?.user.id;
    return this._act("acknowledge", ids, {}, { handling: "acked", acked_by: user }, {
      text: `Acknowledged: ${count(ids.length)} ${ids.length === 1 ? "alert" : "alerts"}`,
      undo: () => this._act("unacknowledge", ids, {}, { handling: "new", acked_by: null }),
    });
  }

  closeAlert(id = this._target()) {
    const alert = id && this.store.alert(id);
    if (!alert) return this._nothing();
    if (alert.handling === "closed") return this.toasts.say("This alert is closed already.");
    return this._act("close", [id], {}, { handling: "closed" }, { text: `Closed: ${alert.title}` });
  }

  verdict(verdict, id = this._target()) {
    const alert = id && this.store.alert(id);
    if (!alert) return this._nothing();
    if (!this.store.config?.may.verdict) return this._mayNot();
    return this._act("verdict", [id], { verdict }, { verdict }, { text: `Verdict “${VERDICTS[verdict]}”: ${alert.title}` });
  }

  /** Add a note; true when the server has it. */
  async note(text, id = this._target()) {
    return this._act("note", [id], { text }, {}, { text: "Note added." });
  }

  async _act(action, ids, args, patch, said = null) {
    if (!this.store.config?.may.acknowledge) return this._mayNot();
    const takeBack = this.store.expect(ids, patch);
    try {
      const { items, changes } = await this.api.act(action, ids, args);
      for (const row of items) this.store.mergeAlert(row);
      this.store.mergeChanges(changes);
      if (said) this.toasts.say(said.text, { action: said.undo && { label: "Undo", run: said.undo } });
      return true;
    } catch (error) {
      this.toasts.say(`Not done: ${error.message}.`, { kind: "problem" });
      return false;
    } finally {
      takeBack();
    }
  }

  _target() {
    return this.view.open ?? this.view.selected;
  }

  _nothing() {
    this.toasts.say("No alert is selected: j and k choose one.");
    return false;
  }

  _mayNot() {
    this.toasts.say("You may look, not act: this needs the role operator.", { kind: "problem" });
    return false;
  }
}
