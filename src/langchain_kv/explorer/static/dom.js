// Elements. Whatever comes from a store goes in as text, by this function and no other way.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; a string among the children becomes a text node. */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Make an element of SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An icon of 16 by 16, by the path that draws it. */
export function icon(path) {
  return svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: path }));
}

export const ICONS = {
  copy: "M5.5 5.5V3.8A1.3 1.3 0 0 1 6.8 2.5h5.4a1.3 1.3 0 0 1 1.3 1.3v5.4a1.3 1.3 0 0 1-1.3 1.3h-1.7M3.8 5.5h5.4a1.3 1.3 0 0 1 1.3 1.3v5.4a1.3 1.3 0 0 1-1.3 1.3H3.8a1.3 1.3 0 0 1-1.3-1.3V6.8a1.3 1.3 0 0 1 1.3-1.3z",
  code: "m5.5 4.5-3.5 3.5 3.5 3.5M10.5 4.5 14 8l-3.5 3.5",
  link: "M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 0 0-3.7-3.7l-.8.8M9.2 6.8a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 0 0 3.7 3.7l.8-.8",
  download: "M8 2.5v7.5m-3-3 3 3 3-3M3 13.5h10",
  edit: "M10.5 3 13 5.5 6 12.5l-3 .5.5-3z",
  trash: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5",
  folder: "M2 4.3a1 1 0 0 1 1-1h3l1.5 1.7H13a1 1 0 0 1 1 1v5.7a1 1 0 0 1-1 1H3a1 1 0 0 1-1-1z",
  namespace: "M8 2.5 13.5 5.5 8 8.5 2.5 5.5zM2.5 8 8 11l5.5-3M2.5 10.5 8 13.5l5.5-3",
  turn: "m6 4 4 4-4 4",
  collection: "M13 4c0 1.1-2.2 2-5 2S3 5.1 3 4s2.2-2 5-2 5 .9 5 2zM3 4v8c0 1.1 2.2 2 5 2s5-.9 5-2V4M3 8c0 1.1 2.2 2 5 2s5-.9 5-2",
};

// By what Unicode says of them, as no list of them stays complete; and the blank of Braille, which it takes for a letter.
const UNSEEN = /[\p{C}\p{Default_Ignorable_Code_Point}\u2028\u2029\u2800]/gu;

const NAMED = { 0: "NUL", 9: "TAB", 10: "LF", 13: "CR" };

/** A text as one line in which nothing hides: what has no shape, or turns the direction, is spelt out. */
export function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0);
    return `‹${NAMED[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}›`;
  });
}

export function number(value) {
  return value.toLocaleString("en-US");
}

/** A number of bytes for people. */
export function bytes(count) {
  if (count < 1024) return `${count} ${count === 1 ? "byte" : "bytes"}`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(count < 10240 ? 1 : 0)} KiB`;
  return `${(count / 1024 / 1024).toFixed(1)} MiB`;
}

/** Copy a text, also where the browser gives no clipboard to a page without TLS. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "unseen", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("The browser lets nothing be copied: select the text and copy it yourself.");
  }
}
