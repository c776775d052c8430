/**
 * Building DOM nodes from plain calls.
 *
 * Text always goes in as text nodes, so nothing that a device or a person wrote is ever
 * parsed as markup; styles are classes or CSSOM, which the page's CSP allows.
 */

const SVG = "http://www.w3.org/2000/svg";

/** Return an HTML element; `on*` props are listeners, `class`, `data-*`, `aria-*` are attributes. */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Return an SVG element. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** Replace the children of `node`, and only then: an unchanged text costs no layout. */
export function setText(node, text) {
  const value = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== value) node.textContent = value;
}

/** Set or remove an attribute; null, undefined and false remove it. */
export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Return the element with this id; a missing one is a bug of the page. */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`index.html has no #${id}`);
  return node;
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else setAttr(node, name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
