/**
 * Short sentences at the page's edge, three at most, each gone after a while unless
 * pointed at; problems stay longer.
 */

import { byId, h } from "./dom.js";

const STAY_MS = { info: 5000, problem: 9000 };
const MOST = 3;

export class Toasts {
  constructor() {
    this.node = byId("toasts");
  }

  say(text, { kind = "info", action = null } = {}) {
    const close = () => toast.remove();
    const toast = h("div", { class: "toast", "data-kind": kind }, h("span", {}, text),
      action ? h("button", { type: "button", class: "link-button", onclick: () => { close(); action.run(); } }, action.label) : null);
    let timer = setTimeout(close, STAY_MS[kind]);
    toast.addEventListener("pointerenter", () => clearTimeout(timer));
    toast.addEventListener("pointerleave", () => { timer = setTimeout(close, 2000); });
    this.node.append(toast);
    while (this.node.children.length > MOST) this.node.firstChild.remove();
  }
}
