// The page: what is chosen, and what is fetched when.

import { ask, setToken } from "./api.js";
import { h, icon, ICONS, number, visible } from "./dom.js";
import { List } from "./list.js";
import { show } from "./value.js";

const FIRST = 500;
const MANY = 5000; // keys that are asked for at once on the way to the end
const KEYS_MAX = 500000; // of which a browser's memory is still at ease
const WAIT = 180; // milliseconds after the last letter of a prefix

const $ = (id) => document.getElementById(id);
const separators = new Map(); // by collection

let about = null;
let collections = [];
let current = null; // {keyspace, name}
let listing = null;
let opened = null; // the key whose value is shown
let again = () => {};

const list = new List($("list"), $("rows"), { choose: (key) => openKey(key), wantMore: () => askForMore() });

// -- the token --------------------------------------------------------------------------------------------------------

async function enter(token) {
  setToken(token);
  try {
    about = await ask("about");
  } catch (error) {
    setToken("");
    $("login-error").textContent = error.message;
    $("login-error").hidden = false;
    $("token").select();
    return;
  }
  $("token").value = "";
  $("token").blur(); // a browser takes the focus from what is hidden only when it draws, and / would be typed into it
  $("login-error").hidden = true;
  $("login").hidden = true;
  $("app").hidden = false;
  document.body.dataset.state = "open";
  $("target").textContent = visible(about.target);
  $("target").title = visible(about.target);
  $("mode").textContent = about.edits ? "edits on" : "read-only";
  $("mode").className = about.edits ? "badge loud" : "badge";
  collections = [];
  await look();
  follow();
}

/** Ask for the collections. It may take a while where a target keeps no list of them, or fail: then one is opened by its name. */
async function look() {
  const then = about;
  $("collections").replaceChildren(h("p", { class: "empty" }, h("span", { class: "working" }), " Looking for collections …"));
  let problem = "There are no collections yet: the first value that a store keeps makes one.";
  try {
    collections = (await ask("collections")).collections;
  } catch (error) {
    if (error.status === 0 || error.status === 401) fail(error, look);
    problem = error.message;
  }
  if (about === then) drawCollections(problem);
}

function lock(message) {
  setToken("");
  about = null;
  listing?.stop();
  listing = null;
  current = null;
  opened = null;
  list.clear("");
  $("prefix").value = "";
  $("value").replaceChildren();
  $("collections").replaceChildren();
  hideProblem();
  document.body.dataset.state = "locked";
  $("app").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = message;
  $("login-error").hidden = !message;
  $("token").focus();
}

// -- errors and words -------------------------------------------------------------------------------------------------

function fail(error, retry = () => {}) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    lock(error.message);
    return;
  }
  $("problem-text").textContent = error.message;
  $("problem").hidden = false;
  again = retry;
}

function hideProblem() {
  $("problem").hidden = true;
}

let toldUntil;
function tell(text) {
  $("told").textContent = text;
  $("told").classList.add("seen");
  clearTimeout(toldUntil);
  toldUntil = setTimeout(() => $("told").classList.remove("seen"), 1800);
}

// -- collections ------------------------------------------------------------------------------------------------------

function drawCollections(problem = "") {
  const spaces = Map.groupBy ? Map.groupBy(collections, (each) => each.keyspace) : grouped(collections);
  const groups = [...spaces].map(([keyspace, some]) => [
    h("h2", {}, visible(keyspace)),
    h("ul", {}, some.map((each) => h("li", {}, h("button", { type: "button", "aria-current": isCurrent(each) ? "true" : null, onclick: () => openCollection(each) }, icon(ICONS.collection), h("bdi", {}, visible(each.name)))))),
  ]);
  const byName = h("input", { type: "text", placeholder: "Another one, by name", "aria-label": "Open a collection by its name", spellcheck: "false", autocomplete: "off", onkeydown: (event) => {
    if (event.key === "Enter" && byName.value) openNamed(byName.value);
  } });
  const none = collections.length ? null : h("p", { class: "empty" }, problem);
  $("collections").replaceChildren(...[...groups.flat(), none, byName].filter((each) => each !== null));
}

function openNamed(name) {
  const keyspace = (current ?? collections[0])?.keyspace ?? about.keyspace;
  const known = collections.find((each) => each.keyspace === keyspace && each.name === name);
  if (!known) collections.push({ keyspace, name });
  openCollection(known ?? collections.at(-1));
}

function grouped(all) {
  const found = new Map();
  for (const each of all) found.set(each.keyspace, [...(found.get(each.keyspace) ?? []), each]);
  return found;
}

const isCurrent = (each) => current !== null && each.keyspace === current.keyspace && each.name === current.name;

function openCollection(each, { prefix = "", key = null } = {}) {
  current = each;
  opened = null;
  $("prefix").value = prefix;
  drawCollections();
  greet();
  drawSeparator();
  pane("keys");
  begin();
  if (key !== null) openKey(key);
  else remember();
}

function greet() {
  $("value").replaceChildren(h("div", { class: "greeting" }, icon(ICONS.collection), h("p", {}, current === null ? "Choose a collection." : "Choose a key to see its value."), h("p", { class: "muted" }, "Arrow keys move, Enter opens, / searches.")));
}

// -- keys -------------------------------------------------------------------------------------------------------------

class Listing {
  constructor(where, prefix) {
    this.where = { keyspace: where.keyspace, collection: where.name, prefix };
    this.cursor = null;
    this.number = 0;
    this.seen = new Set();
    this.isDone = false;
    this.isAsking = false;
    this.isGoingOn = false;
    this.abort = new AbortController();
  }

  stop() {
    this.isGoingOn = false;
    this.abort.abort();
  }

  /** Ask for the next part; return whether it came. */
  async part(limit) {
    if (this.isAsking || this.isDone) return false;
    this.isAsking = true;
    count();
    try {
      const place = this.cursor === null ? {} : { cursor: this.cursor, number: this.number + 1 };
      const part = await ask("keys", { ...this.where, ...place, limit }, { signal: this.abort.signal });
      if (listing !== this) return false;
      hideProblem();
      this.take(part);
      return true;
    } catch (error) {
      if (listing !== this) return false;
      if (error.code === "SCAN_GONE") {
        this.cursor = null; // anew, past what is here already
        return true;
      }
      this.isGoingOn = false;
      this.isFailed = true;
      fail(error, () => {
        this.isFailed = false;
        this.part(limit);
      });
      return false;
    } finally {
      this.isAsking = false;
      if (listing === this) count();
    }
  }

  take(part) {
    const fresh = part.keys.filter((key) => !this.seen.has(key));
    for (const key of fresh) this.seen.add(key);
    this.cursor = part.cursor;
    this.number = part.number;
    this.isDone = part.cursor === null;
    this.isAsking = false;
    list.add(fresh);
  }

  async all() {
    this.isGoingOn = true;
    while (this.isGoingOn && !this.isDone && this.seen.size < KEYS_MAX && (await this.part(MANY)));
    this.isGoingOn = false;
    if (listing === this) count();
  }
}

function begin() {
  listing?.stop();
  hideProblem();
  list.clear(separators.get(collectionId()) ?? "");
  list.chosen = opened;
  listing = new Listing(current, $("prefix").value);
  listing.part(FIRST);
}

function askForMore() {
  if (listing !== null && !listing.isGoingOn && !listing.isFailed && listing.cursor !== null && listing.seen.size < KEYS_MAX) listing.part(FIRST);
}

function count() {
  const found = listing.seen.size;
  const keys = found === 1 ? "key" : "keys";
  const isFull = found >= KEYS_MAX && !listing.isDone;
  $("count").textContent = isFull ? `${number(found)} ${keys}: give a prefix for the others` : listing.isDone ? `${number(found)} ${keys}` : `${number(found)} ${keys} so far`;
  $("working").hidden = !listing.isAsking && !listing.isGoingOn;
  const canGoOn = !listing.isDone && !isFull;
  $("more").hidden = !canGoOn || listing.isGoingOn || found === 0;
  $("all").hidden = !canGoOn || listing.isGoingOn || found === 0;
  $("stop").hidden = !listing.isGoingOn;
  const isEmpty = listing.isDone && found === 0;
  $("empty").hidden = !isEmpty;
  $("list").hidden = isEmpty;
  $("empty").textContent = listing.where.prefix ? "No key starts with this." : "This collection is empty.";
}

const collectionId = () => `${current.keyspace}.${current.name}`;

function drawSeparator() {
  const separator = separators.get(collectionId()) ?? "";
  let isKnown = false;
  for (const each of document.querySelectorAll("[data-separator]")) {
    const isChosen = each.dataset.separator === separator;
    isKnown ||= isChosen;
    each.setAttribute("aria-pressed", String(isChosen));
  }
  $("separator").value = isKnown ? "" : separator;
}

function separate(separator) {
  if (current === null) return;
  separators.set(collectionId(), separator);
  drawSeparator();
  list.separate(separator);
}

// -- a value ----------------------------------------------------------------------------------------------------------

async function openKey(key, { quiet = false } = {}) {
  const where = { keyspace: current.keyspace, collection: current.name, key };
  const from = current;
  let value;
  const before = opened;
  opened = key;
  if (!quiet) {
    list.mark(key);
    pane("value");
    $("value").classList.add("waiting");
  }
  try {
    value = await ask("value", where);
  } catch (error) {
    if (current !== from || opened !== key) return;
    $("value").classList.remove("waiting");
    if (error.code === "NO_VALUE" && !quiet) {
      $("value").replaceChildren(h("div", { class: "greeting" }, h("p", {}, error.message)));
      return;
    }
    opened = before; // whose value is still to be seen
    if (!quiet) list.mark(before);
    if (error.code !== "NO_VALUE") fail(error, () => openKey(key));
    return;
  }
  if (current !== from || opened !== key) return;
  hideProblem();
  $("value").classList.remove("waiting");
  if (quiet) {
    list.mark(key);
    pane("value");
  }
  remember();
  try {
    draw(where, value);
  } catch (error) {
    $("value").replaceChildren(); // not the value of another key
    fail(new Error(`This value cannot be shown: ${error.message}`), () => openKey(key));
  }
}

function draw(where, value) {
  show($("value"), { where, value, about, tell, fail, changed: (found) => {
    if (found !== null) {
      draw(where, found);
      tell("Saved");
      return;
    }
    opened = null;
    list.mark(null);
    list.remove(where.key);
    listing.seen.delete(where.key);
    count();
    greet();
    pane("keys");
    remember();
    tell("Deleted");
  } });
  $("value").scrollTop = 0;
}

// -- where one is: only in the fragment, which no server sees -----------------------------------------------------------

function remember() {
  const fields = new URLSearchParams({ keyspace: current.keyspace, collection: current.name });
  if ($("prefix").value) fields.set("prefix", $("prefix").value);
  if (opened !== null) fields.set("key", opened);
  history.replaceState(null, "", `#${fields}`);
}

function follow() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const [keyspace, name] = [fields.get("keyspace"), fields.get("collection")];
  const wanted = collections.find((each) => each.keyspace === keyspace && each.name === name);
  if (!wanted && keyspace && name) collections.push({ keyspace, name });
  const typed = $("prefix").value; // by who did not wait for the collections
  if (keyspace && name) openCollection(wanted ?? collections.at(-1), { prefix: typed || (fields.get("prefix") ?? ""), key: fields.get("key") });
  else if (collections.length === 1) openCollection(collections[0], { prefix: typed });
  else {
    greet();
    pane("collections");
  }
}

function pane(name) {
  document.body.dataset.pane = name;
  $("back").hidden = name === "collections";
  if (name === "value") $("value").focus({ preventScroll: true });
}

// -- what is pressed --------------------------------------------------------------------------------------------------

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter($("token").value);
});
$("lock").addEventListener("click", () => lock(""));
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});
$("back").addEventListener("click", () => pane(document.body.dataset.pane === "value" ? "keys" : "collections"));
$("retry").addEventListener("click", () => {
  hideProblem();
  again();
});
$("dismiss").addEventListener("click", hideProblem);
$("more").addEventListener("click", () => listing.part(FIRST));
$("all").addEventListener("click", () => listing.all());
$("stop").addEventListener("click", () => (listing.isGoingOn = false));
$("separator").addEventListener("input", () => separate($("separator").value));
for (const each of document.querySelectorAll("[data-separator]")) each.addEventListener("click", () => separate(each.dataset.separator));

let typed;
$("prefix").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(() => {
    if (current === null) return;
    begin();
    remember();
  }, WAIT);
});
$("prefix").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && current !== null && $("prefix").value) openKey($("prefix").value, { quiet: true });
  if (event.key === "ArrowDown") {
    event.preventDefault();
    $("list").focus();
  }
  if (event.key === "Escape") {
    $("prefix").value = "";
    $("prefix").dispatchEvent(new Event("input"));
  }
});
document.addEventListener("keydown", (event) => {
  const isTyping = ["INPUT", "TEXTAREA"].includes(event.target.tagName);
  if (event.key === "/" && !isTyping && !$("app").hidden) {
    event.preventDefault();
    if (document.body.dataset.pane === "value") pane("keys");
    $("prefix").focus();
    $("prefix").select();
  }
  if (event.key === "Escape" && !isTyping && document.body.dataset.pane === "value") {
    pane("keys");
    $("list").focus();
  }
});
addEventListener("hashchange", () => about !== null && !$("app").hidden && follow());

// A token in the fragment comes from `lckv explore`, and is taken out of the address at once.
const given = new URLSearchParams(location.hash.slice(1));
const token = given.get("token");
if (token) {
  given.delete("token");
  history.replaceState(null, "", given.size ? `#${given}` : location.pathname);
  enter(token);
} else {
  $("token").focus();
}
