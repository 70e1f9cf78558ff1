// One value: what it is, how it looks, and what can be done with it.

import { ask } from "./api.js";
import { bytes, copy, h, icon, ICONS, number, visible } from "./dom.js";
import { indented, parse, tree } from "./json.js";
import { parts } from "./tree.js";
import { plot } from "./vector.js";

const NAMES = { json: "JSON", document: "Document", vector: "Vector", text: "Text", bytes: "Bytes", damaged: "Damaged" };
const CLASSES = { json: "KVStore", text: "KVStore", vector: "KVStore", document: "DocumentStore" };

/** Which view was chosen last, of each shape. */
const chosen = new Map();

/**
 * Show a value.
 * @param box where
 * @param where its keyspace, collection and key
 * @param value what the server says of it
 * @param about what the server says of itself
 * @param tell shows a short word
 * @param fail shows an error
 * @param changed called when it was changed (with the new value) or removed (with null)
 */
export function show(box, { where, value, about, tell, fail, changed }) {
  const { labels, name } = parts(where.key);
  const attempt = (act) => async () => {
    try {
      await act();
    } catch (error) {
      fail(error);
    }
  };
  const copying = (what, text) => attempt(async () => {
    await copy(typeof text === "function" ? await text() : text);
    tell(`Copied the ${what}`);
  });
  const isRaw = value.kind === "bytes" && (value.shape === "bytes" || value.shape === "vector" && value.number_type !== "JSON");
  const whole = () => ask("download", where, { raw: true });
  const actions = [
    h(
      "span",
      { class: "copies", role: "group", "aria-label": "Copy" },
      icon(ICONS.copy),
      copier("Key", "The key", copying("key", where.key)),
      value.shape === "damaged" ? null : copier(isRaw ? "Hex" : "Value", isRaw ? "The bytes as hexadecimal digits" : "The value as it is kept", copying("value", async () => {
        const blob = await whole();
        return isRaw ? hex(new Uint8Array(await blob.arrayBuffer())) : blob.text();
      })),
      copier("Python", "A line of Python that reads it", copying("Python line", () => python(where, value, about))),
      copier("Link", "A link to this key; its part after # is sent to no server", copying("link", () => location.href)),
    ),
    value.shape === "damaged" ? null : button("Download", ICONS.download, attempt(async () => save(await whole(), where.key, value))),
  ];
  const content = h("div", { class: "content" });
  if (about.edits && value.shape !== "damaged") {
    if (value.kind !== "bytes") {
      actions.push(button("Edit", ICONS.edit, attempt(async () => edit(content, where, value, await (await whole()).text(), { changed, fail }))));
    }
    actions.push(removal(where, value, { changed, fail }));
  }
  content.append(...views(value));
  box.replaceChildren(
    h(
      "header",
      { class: "head" },
      labels.length ? h("p", { class: "labels" }, labels.flatMap((label, at) => [at ? h("span", { class: "step" }, "›") : null, h("bdi", {}, visible(label))])) : null,
      h("h2", {}, h("bdi", {}, visible(name) || "(the empty key)")),
      h("p", { class: "chips" }, chips(value)),
      h("div", { class: "actions" }, actions),
    ),
    content,
  );
}

function button(label, path, onclick) {
  return h("button", { type: "button", onclick }, icon(path), label);
}

function copier(label, title, onclick) {
  return h("button", { type: "button", title, "aria-label": `Copy: ${label}`, onclick }, label);
}

function chips(value) {
  const kind = { json: "JSON", text: "JSON kept as text", bytes: "bytes", body_blob: "cached answer" }[value.kind];
  const shape = h("span", { class: "chip shape", "data-shape": value.shape }, NAMES[value.shape]);
  if (value.shape === "damaged") return [shape];
  return [
    shape,
    value.shape === "vector" ? h("span", { class: "chip" }, `${number(value.count)} numbers`) : null,
    h("span", { class: "chip", title: "What kind of record keeps it" }, `kind: ${kind}`),
    h("span", { class: "chip", title: `${number(value.size_bytes)} bytes` }, bytes(value.size_bytes)),
    expiry(value.expires_at_ms),
  ];
}

function expiry(moment) {
  if (moment === null) return h("span", { class: "chip quiet" }, "never expires");
  const left = (moment - Date.now()) / 1000;
  const [amount, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].map(([size, unit]) => [left / size, unit]).find(([amount]) => amount >= 1) ?? [0, "second"];
  const whole = Math.floor(amount);
  return h("span", { class: "chip expiry", title: isoDate(moment) }, left > 0 ? `expires in ${number(whole)} ${unit}${whole === 1 ? "" : "s"}` : "has expired");
}

/** The moment as a date; null where a Date cannot be so late or so early. */
function isoDate(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

// -- views -----------------------------------------------------------------------------------------------------------

function views(value) {
  if (value.shape === "damaged") return [h("p", { class: "problem" }, "This value cannot be read: ", value.reason)];
  const cut = value.is_cut ? [h("p", { class: "note" }, value.shape === "vector" ? `The first ${number(value.numbers.length)} numbers are shown: download the rest.` : `The first 64 KB of ${bytes(value.size_bytes)} are shown: download it for the rest.`)] : [];
  if (value.shape === "document") return [...cut, ...documentParts(value)];
  if (value.shape === "text") return [...cut, textView(value)];
  if (value.shape === "bytes") return [...cut, h("pre", { class: "hex" }, dump(value.base64))];
  if (value.shape === "vector") return [...cut, tabs(value.shape, { Plot: () => plot(value), Numbers: () => h("pre", {}, numbered(value.numbers)) })];
  return [...cut, jsonView(value)];
}

function textView(value) {
  const text = () => h("pre", { class: "text" }, value.text);
  if (!value.is_base64) return text();
  return tabs("base64", { Text: text, "Decoded from base64": () => h("pre", { class: "hex" }, dump(value.text)) });
}

function jsonView(value) {
  let parsed;
  try {
    parsed = parse(value.text);
  } catch {
    return h("pre", { class: "text" }, value.text); // cut, or beyond what JSON has
  }
  return tabs("json", { Tree: () => tree(parsed), Text: () => h("pre", {}, indented(value.text)) });
}

function documentParts(value) {
  const more = value.more === "{}" ? null : h("section", {}, h("h3", {}, "More"), jsonText(value.more));
  return [
    h("section", { class: "document" }, h("h3", {}, "Content"), h("div", { class: "prose" }, value.content || h("span", { class: "muted" }, "(no text)"))),
    h("section", {}, h("h3", {}, "Metadata"), value.metadata === "{}" ? h("p", { class: "muted" }, "None") : jsonText(value.metadata)),
    more,
  ].filter((each) => each !== null);
}

function jsonText(text) {
  try {
    return tree(parse(text));
  } catch {
    return h("pre", {}, text);
  }
}

function tabs(shape, made) {
  const names = Object.keys(made);
  const panel = h("div", { role: "tabpanel", tabindex: "0" });
  const buttons = names.map((name) => h("button", { type: "button", role: "tab", onclick: () => turn(name) }, name));
  const turn = (name) => {
    chosen.set(shape, name);
    buttons.forEach((each, at) => {
      each.setAttribute("aria-selected", String(names[at] === name));
      each.tabIndex = names[at] === name ? 0 : -1;
    });
    panel.replaceChildren(made[name]());
    panel.setAttribute("aria-label", name);
  };
  const list = h("div", { class: "tabs", role: "tablist", onkeydown: (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    const at = (buttons.indexOf(document.activeElement) + by + names.length) % names.length;
    turn(names[at]);
    buttons[at].focus();
  } }, buttons);
  turn(chosen.get(shape) ?? names[0]);
  return h("div", {}, list, panel);
}

function numbered(numbers) {
  const wide = String(numbers.length - 1).length;
  return numbers.map((each, at) => `${String(at).padStart(wide)}  ${each}`).join("\n");
}

function dump(base64) {
  const data = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const lines = [];
  for (let at = 0; at < data.length; at += 16) {
    const row = data.subarray(at, at + 16);
    const codes = [...row].map((each) => each.toString(16).padStart(2, "0"));
    const left = codes.slice(0, 8).join(" ");
    const right = codes.slice(8).join(" ");
    const letters = [...row].map((each) => (each > 31 && each < 127 ? String.fromCharCode(each) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${left.padEnd(23)}  ${right.padEnd(23)}  ${letters}`);
  }
  return lines.join("\n");
}

function hex(data) {
  return [...data].map((each) => each.toString(16).padStart(2, "0")).join("");
}

// -- what can be done -------------------------------------------------------------------------------------------------

function python(where, value, about) {
  const { labels, name } = parts(where.key);
  const isBytes = value.kind === "bytes" || (value.is_base64 && value.shape !== "text");
  const kind = isBytes && value.shape !== "document" ? "KVByteStore" : CLASSES[value.shape] ?? "KVStore";
  const keyspace = where.keyspace === "default_keyspace" ? "" : `, keyspace=${JSON.stringify(where.keyspace)}`;
  const store = `${kind}(${JSON.stringify(where.collection)}, ${JSON.stringify(about.url ?? location.origin)}${keyspace})`;
  const namespace = labels.length ? `.namespace(${labels.map((label) => JSON.stringify(label)).join(", ")})` : "";
  return `${store}${namespace}.mget([${JSON.stringify(name)}])[0]`;
}

function save(blob, key, value) {
  const ending = value.shape === "bytes" || value.shape === "vector" ? (value.kind === "bytes" ? "bin" : "json") : value.kind === "bytes" ? "txt" : "json";
  const url = URL.createObjectURL(blob);
  const name = `${key.replace(/[^\w.-]+/g, "_").slice(-80) || "value"}.${ending}`;
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function edit(content, where, value, text, { changed, fail }) {
  const before = [...content.childNodes];
  const area = h("textarea", { class: "editor", spellcheck: "false", "aria-label": "The value as JSON" });
  area.value = indented(text);
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const saving = h("button", { type: "button", class: "primary", onclick: async () => {
    saving.disabled = true;
    try {
      changed(await ask("put", { ...where, version: value.version, text: area.value }));
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      if (error.status === 0 || error.status === 401) fail(error);
    }
    saving.disabled = false;
  } }, "Save");
  content.replaceChildren(area, problem, h("div", { class: "actions" }, saving, h("button", { type: "button", onclick: () => content.replaceChildren(...before) }, "Cancel")));
  area.focus();
  area.setSelectionRange(0, 0);
}

function removal(where, value, { changed, fail }) {
  const first = button("Delete", ICONS.trash, () => {
    first.replaceWith(sure);
    no.focus();
  });
  first.classList.add("danger");
  const no = h("button", { type: "button", onclick: () => (sure.replaceWith(first), first.focus()) }, "Keep");
  const yes = h("button", { type: "button", class: "danger strong", onclick: async () => {
    try {
      await ask("delete", { ...where, version: value.version });
      changed(null);
    } catch (error) {
      fail(error);
    }
  } }, "Delete it");
  const sure = h("span", { class: "sure", role: "group", "aria-label": "Delete this value?" }, no, yes);
  return first;
}
