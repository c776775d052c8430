/**
 * The card of the picked device: whose it is, adopting it, and commands to it with their states.
 *
 * Shown under the strip while a device is picked. What may not be done is not offered; a
 * command's state moves by messages of the device's channel, the list is the start of it.
 */

import { byId, h, setAttr, setText } from "./dom.js";
import { age, utc } from "./format.js";

const SHOWN = 6;
const NAMES_SHOWN = 500;
const FIELDS = [
  ["client", "Client"],
  ["site", "Site"],
  ["supervisor", "Supervisor"],
  ["type", "Type"],
];
const WORDS = { queued: "queued", sent: "sent", delivered: "received", ok: "done", failed: "failed", timed_out: "timed out" };

export class DeviceCard {
  /** @param {(channel: string, wanted: boolean) => void} listen joins and leaves a device's channel */
  constructor({ store, view, api, clock, toasts, listen }) {
    Object.assign(this, { store, view, api, clock, toasts, listen });
    this.node = byId("device");
    this._key = null;
    this._entry = null;
    this._isEditing = false;
    store.listen(["view", "config"], () => this._follow());
    store.listen(["devices"], () => this._refresh());
    store.listen(["commands"], () => this._drawCommands());
    setInterval(() => this._drawCommands(), 1000);
  }

  /** Show the device that the view has picked, and hear of it; none: hide. */
  _follow() {
    const picked = this.view.device;
    const key = picked ? `${picked.tenant}/${picked.device}` : null;
    if (key === this._key) return;
    if (this._key) this.listen(`device:${this._key}`, false);
    Object.assign(this, { _key: key, _entry: null, _isEditing: false });
    this.node.hidden = !key;
    if (!key) return;
    this._build(picked);
    this.listen(`device:${key}`, true);
    this._load();
  }

  /** The directory may have changed since; what somebody is typing stays. */
  _refresh() {
    if (this._key && !this._isEditing) this._loadEntry();
  }

  async _load() {
    this._loadEntry();
    if (!this._may("command")) return;
    const { tenant, device } = this.view.device;
    try {
      const { items } = await this.api.commands({ tenant, device, limit: SHOWN });
      items.forEach((command) => this.store.mergeCommand(command));
    } catch (error) {
      setText(this._parts.note, `Commands could not be loaded: ${error.message}.`);
    }
  }

  async _loadEntry() {
    const key = this._key;
    const { tenant, device } = this.view.device;
    try {
      const entry = await this.api.device(tenant, device);
      if (this._key !== key) return;
      this._entry = entry;
      this._drawEntry();
    } catch (error) {
      if (this._key === key) setText(this._parts.note, `Not loaded: ${error.message}.`);
    }
  }

  _build({ device }) {
    const part = (this._parts = {
      name: h("h3", {}, device),
      known: h("span", { class: "device-known" }),
      edit: h("button", { type: "button", class: "button", hidden: true, onclick: () => this._edit() }, "Edit"),
      facts: h("dl", { class: "facts" }),
      form: h("form", { class: "device-form", hidden: true, autocomplete: "off", onsubmit: (event) => this._save(event) }),
      note: h("p", { class: "device-note", role: "status" }),
      send: this._sendForm(),
      commands: h("ol", { class: "commands", "aria-label": "Commands to this device, newest first" }),
    });
    part.send.hidden = !this._may("command");
    this.node.replaceChildren(h("header", { class: "device-head" }, part.name, part.known, part.edit), part.facts, part.form, part.note, part.send, part.commands);
    this._drawCommands();
  }

  _drawEntry() {
    const entry = this._entry;
    const part = this._parts;
    setText(part.name, entry.name ?? entry.id);
    setText(part.known, entry.known ? "" : "not in the directory");
    part.edit.hidden = !this._may("directory") || this._isEditing;
    setText(part.edit, entry.known ? "Edit" : "Adopt");
    const facts = [
      ["Device", `${entry.tenant}/${entry.id}`],
      ["Client", entry.client_name ? `${entry.client_name} (${entry.client})` : entry.client],
      ["Site", entry.site],
      ["Supervisor", entry.supervisor_name ? `${entry.supervisor_name} (${entry.supervisor})` : entry.supervisor],
      ["Type", entry.type],
      ["First heard", entry.first_seen_at && utc(entry.first_seen_at)],
      ["Entry by", entry.updated_by && `${entry.updated_by}, ${utc(entry.updated_at)}`],
    ].filter(([, value]) => value);
    part.facts.replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    setText(part.note, entry.known || this._may("directory") ? "" : "Nobody registered this device; adopting it needs the role admin.");
  }

  /** Open the form with what is known; clients and users of the tenant are offered by name. */
  async _edit() {
    this._isEditing = true;
    const { form, edit, facts } = this._parts;
    const fields = FIELDS.map(([name, label]) => h("label", {}, label, h("input", { name, maxlength: "128", value: this._entry[name] ?? "", list: `device-${name}s` })));
    form.replaceChildren(
      ...fields,
      h("datalist", { id: "device-clients" }),
      h("datalist", { id: "device-supervisors" }),
      h("div", { class: "device-buttons" }, h("button", { type: "submit", class: "button primary" }, this._entry.known ? "Save" : "Adopt"), h("button", { type: "button", class: "button", onclick: () => this._closeForm() }, "Cancel")),
    );
    [form.hidden, edit.hidden, facts.hidden] = [false, true, true];
    form.querySelector("input").focus();
    await Promise.all([this._offer("clients", "device-clients"), this._offer("users", "device-supervisors")]);
  }

  async _offer(kind, list) {
    try {
      const { items } = await this.api.directory(kind, { tenant: this._entry.tenant, limit: NAMES_SHOWN });
      this.node.querySelector(`#${list}`)?.replaceChildren(...items.map(({ id, name }) => h("option", { value: id }, name ?? id)));
    } catch {
      // Names to choose from are a help; the server checks what is typed.
    }
  }

  async _save(event) {
    event.preventDefault();
    const { tenant, id } = this._entry;
    const values = new FormData(this._parts.form);
    const changes = Object.fromEntries(FIELDS.map(([name]) => [name, values.get(name).trim() || null]));
    try {
      this._entry = await this.api.changeDevice(tenant, id, changes);
      this._closeForm();
      this.toasts.say(`Saved: ${id}.`);
    } catch (error) {
      this.toasts.say(`Not saved: ${error.message}.`, { kind: "problem" });
    }
  }

  _closeForm() {
    this._isEditing = false;
    this._parts.form.hidden = true;
    this._parts.facts.hidden = false;
    this._drawEntry();
  }

  _sendForm() {
    const payload = h("input", { name: "payload", class: "mono", spellcheck: "false", required: "", placeholder: '{"do": "identify"}', "aria-label": "Command, a JSON object" });
    const seconds = h("input", { name: "seconds", type: "number", min: "1", max: "604800", value: "60", title: "Seconds until it must have its result", "aria-label": "Seconds until it must have its result" });
    const button = h("button", { type: "submit", class: "button primary" }, "Send");
    return h("form", {
      class: "send-form",
      autocomplete: "off",
      onsubmit: async (event) => {
        event.preventDefault();
        const content = parsed(payload.value);
        if (content === null) return setText(this._parts.note, 'A command is a JSON object, such as {"do": "identify"}.');
        setText(this._parts.note, "");
        button.disabled = true;
        try {
          const { tenant, device } = this.view.device;
          this.store.mergeCommand(await this.api.sendCommand(tenant, device, content, Number(seconds.value)));
        } catch (error) {
          setText(this._parts.note, `Not sent: ${error.message}.`);
        } finally {
          button.disabled = false;
        }
      },
    }, payload, seconds, button);
  }

  _drawCommands() {
    if (!this._key || !this._may("command")) return;
    const rows = Array.from(this.store.commands.values())
      .filter((command) => `${command.tenant}/${command.device}` === this._key)
      .sort((a, b) => (a.id < b.id ? 1 : -1))
      .slice(0, SHOWN);
    this._parts.commands.replaceChildren(...rows.map((command) => this._row(command)));
  }

  _row(command) {
    const createdMs = Date.parse(command.created_at);
    const late = command.state === "timed_out" && command.answer ? `, ${WORDS[command.answer]} late` : "";
    const row = h("li", {},
      h("b", {}, `${WORDS[command.state]}${late}`),
      h("code", {}, command.payload === undefined ? "" : JSON.stringify(command.payload)),
      h("time", { datetime: command.created_at, title: utc(command.created_at) }, age(this.clock.now() - createdMs)),
      h("em", {}, [command.detail, `by ${command.user_id}`].filter(Boolean).join(" · ")));
    setAttr(row, "data-state", command.state);
    setAttr(row, "data-id", command.id);
    return row;
  }

  _may(what) {
    return Boolean(this.store.config?.may[what]);
  }
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
