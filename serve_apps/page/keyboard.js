/**
 * Keys of the page, in one table: what the help shows is what works.
 *
 * A key never fires while somebody types, nor with a modifier: the browser's own
 * shortcuts stay the browser's.
 */

import { byId, h } from "./dom.js";

export class Keyboard {
  /** @param {Array<{keys: string[], text: string, run: () => void, group: string}>} table */
  constructor(table) {
    this.table = table;
    this.help = byId("help");
    byId("help-open").addEventListener("click", () => this.toggleHelp());
    this.help.addEventListener("click", (event) => event.target === this.help && this.help.close());
    addEventListener("keydown", (event) => this._pressed(event));
  }

  toggleHelp() {
    if (this.help.open) return this.help.close();
    const groups = new Map();
    for (const entry of this.table) groups.set(entry.group, [...(groups.get(entry.group) ?? []), entry]);
    this.help.replaceChildren(
      h("h2", { id: "help-title" }, "Keys"),
      h("div", { class: "help-groups" }, ...Array.from(groups, ([group, entries]) => h("section", {}, h("h3", {}, group),
        h("dl", {}, ...entries.flatMap((entry) => [h("dt", {}, ...entry.keys.map((key) => h("kbd", {}, NAMES[key] ?? key))), h("dd", {}, entry.text)]))))),
      h("form", { method: "dialog" }, h("button", { class: "button primary" }, "Close")),
    );
    return this.help.showModal();
  }

  _pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const isTyping = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (isTyping && event.key !== "Escape") return;
    // Enter and Space belong to whatever button has the focus.
    if (event.key === "Enter" && event.target.closest?.("button, a, summary")) return;
    const entry = this.table.find(({ keys }) => keys.includes(event.key));
    if (!entry) return;
    if (isTyping) event.target.blur();
    event.preventDefault();
    entry.run();
  }
}

const NAMES = { ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc", Enter: "Enter" };
