// JSON as a tree whose branches are made when they are opened, and as indented text. Numbers stay as they are written.

import { h, number, visible } from "./dom.js";

const OPEN_DEPTH = 2;
const OPEN_ENTRIES = 60;
const CHUNK = 200; // entries that are drawn at once
const TEXT_SHOWN = 2000;

/** A number that JavaScript would round: its text. */
class Exact {
  constructor(source) {
    this.source = source;
  }
}

const TELLS_SOURCE = JSON.parse("1", (_, __, context) => context?.source === "1");

/** Parse JSON text. In a browser that cannot tell how a number was written, what has long or huge ones is refused: it is shown as text. */
export function parse(text) {
  if (!TELLS_SOURCE && /\d[\d.]{15}|\d[eE][+-]?\d{3}/.test(text)) throw new SyntaxError("long numbers");
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source
      ? new Exact(context.source)
      : value,
  );
}

export function tree(value) {
  return h("div", { class: "json" }, entry(null, value, 0));
}

function entry(name, value, depth) {
  const label = name === null ? [] : [h("span", { class: typeof name === "number" ? "at" : "name" }, visible(String(name))), h("span", { class: "colon" }, ": ")];
  if (value === null || typeof value !== "object" || value instanceof Exact) return h("div", { class: "leaf" }, label, scalar(value));
  const isList = Array.isArray(value);
  const entries = isList ? value.map((each, at) => [at, each]) : Object.entries(value);
  if (entries.length === 0) return h("div", { class: "leaf" }, label, h("span", { class: "none" }, isList ? "[ ]" : "{ }"));
  const size = isList ? `[${number(entries.length)}]` : `{${number(entries.length)}}`;
  const inside = h("div", { class: "inside" });
  const details = h("details", {}, h("summary", {}, label, h("span", { class: "size" }, size), h("span", { class: "peek" }, peek(value))), inside);
  let shown = 0;
  const fill = () => {
    const until = Math.min(entries.length, shown + CHUNK);
    for (; shown < until; shown += 1) inside.append(entry(entries[shown][0], entries[shown][1], depth + 1));
    if (shown < entries.length) {
      const more = h("button", { type: "button", class: "more", onclick: () => (more.remove(), fill()) }, `${number(entries.length - shown)} more`);
      inside.append(more);
    }
  };
  details.addEventListener("toggle", () => details.open && shown === 0 && fill());
  if (depth < OPEN_DEPTH && entries.length <= OPEN_ENTRIES) {
    fill();
    details.open = true;
  }
  return details;
}

function scalar(value) {
  if (value instanceof Exact) return h("span", { class: "number" }, value.source);
  if (typeof value !== "string") return h("span", { class: value === null ? "none" : typeof value }, String(value));
  if (value.length <= TEXT_SHOWN) return h("bdi", { class: "string" }, JSON.stringify(value));
  const span = h("bdi", { class: "string" }, JSON.stringify(value.slice(0, TEXT_SHOWN)));
  const more = h("button", { type: "button", class: "more", onclick: () => (span.replaceChildren(JSON.stringify(value)), more.remove()) }, `${number(value.length - TEXT_SHOWN)} more characters`);
  return h("span", {}, span, " ", more);
}

function peek(value) {
  const names = Array.isArray(value) ? value.slice(0, 4).map(short) : Object.keys(value).slice(0, 5);
  const rest = Object.keys(value).length > names.length ? ", …" : "";
  return visible(names.join(", ").slice(0, 80)) + rest;
}

function short(value) {
  if (value instanceof Exact) return value.source;
  if (value === null || typeof value !== "object") return JSON.stringify(value).slice(0, 24);
  return Array.isArray(value) ? "[…]" : "{…}";
}

/** Compact JSON text with line ends and indents, token by token: nothing of it is changed. */
export function indented(text) {
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return text.replace(/"(?:[^"\\]|\\.)*"|[[\]{}]\s*[\]}]?|[,:]\s*/gs, (token) => {
    const first = token[0];
    if (first === '"') return token;
    if (first === ":") return ": ";
    if (first === ",") return `,${line()}`;
    if (first === "}" || first === "]") {
      depth -= 1;
      const close = `${line()}${first}`;
      if (token.length === 1) return close;
      depth -= 1;
      return `${close}${line()}${token.at(-1)}`;
    }
    if (token.length > 1 && "]}".includes(token.at(-1))) return `${first}${token.at(-1)}`;
    depth += 1;
    return `${first}${line()}`;
  });
}
