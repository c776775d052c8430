/**
 * Matchers of a silence as one line of text, and back: `site=hall-*,yard severity!=critical`.
 *
 * Values stand behind commas, in quotes where they hold a space, a comma or a quote.
 * Pure functions, no DOM.
 */

const VALUE = String.raw`"(?:[^"\\]|\\.)*"|[^\s,"]+`;
const PLAIN = /^[^\s,"]+$/;

/** @param {Array<{field: string, values: string[], is_negated?: boolean}>} matchers */
export function matchersText(matchers) {
  const quoted = (value) => (PLAIN.test(value) ? value : `"${value.replace(/["\\]/g, "\\$&")}"`);
  return matchers.map((one) => `${one.field}${one.is_negated ? "!=" : "="}${one.values.map(quoted).join(",")}`).join(" ");
}

/** The matchers of such a text; throws with a sentence when it has none, or another form. */
export function readMatchers(text) {
  const one = new RegExp(String.raw`\s*([A-Za-z_][\w.-]*)(!?=)((?:${VALUE})(?:,(?:${VALUE}))*)(?=\s|$)`, "y");
  const found = [];
  let at = 0;
  while (text.slice(at).trim()) {
    one.lastIndex = at;
    const part = one.exec(text);
    if (!part) throw new Error(`cannot read “${text.slice(at).trim().slice(0, 40)}”: write field=value, and quotes around values that hold spaces`);
    at = one.lastIndex;
    found.push({ field: part[1], values: part[3].match(new RegExp(VALUE, "g")).map(unquoted), is_negated: part[2] === "!=" });
  }
  if (!found.length) throw new Error("say what it matches: field=value");
  return found;
}

const unquoted = (value) => (value.startsWith('"') ? value.slice(1, -1).replace(/\\(.)/g, "$1") : value);
