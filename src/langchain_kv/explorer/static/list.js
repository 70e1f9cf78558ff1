// The list of keys. Only the rows that are on the screen are elements, so that a hundred thousand cost no more than fifty.

import { h, icon, ICONS, number, visible } from "./dom.js";
import { Tree } from "./tree.js";

const ROW = 34; // pixels, as in the style sheet
const MARGIN = 12; // rows beyond those to be seen

export class List {
  /**
   * @param box the element that scrolls
   * @param inside the element that is as high as all rows
   * @param choose called with the key that is chosen
   * @param wantMore called when the end comes into sight
   */
  constructor(box, inside, { choose, wantMore }) {
    this.box = box;
    this.inside = inside;
    this.choose = choose;
    this.wantMore = wantMore;
    this.chosen = null;
    this.active = 0;
    this.clear("");
    box.addEventListener("scroll", () => this.draw());
    box.addEventListener("keydown", (event) => this.pressed(event));
    // By its place: a row may be drawn anew between the press and the release.
    inside.addEventListener("click", (event) => this.act(Math.floor((event.clientY - inside.getBoundingClientRect().top) / ROW)));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  clear(separator) {
    this.keys = [];
    this.tree = new Tree(separator);
    this.active = 0;
    this.box.scrollTop = 0;
    this.update();
  }

  add(keys) {
    for (const key of keys) {
      this.keys.push(key);
      this.tree.add(key);
    }
    this.update();
  }

  separate(separator) {
    const tree = new Tree(separator);
    for (const key of this.keys) tree.add(key);
    if (this.chosen !== null) tree.reveal(this.chosen);
    this.tree = tree;
    this.active = 0;
    this.update();
  }

  remove(key) {
    const open = this.tree.open;
    this.keys = this.keys.filter((each) => each !== key);
    this.separate(this.tree.separator);
    this.tree.open = open;
    this.update();
  }

  update() {
    this.rows = this.tree.rows();
    this.active = Math.min(this.active, Math.max(0, this.rows.length - 1));
    this.inside.style.height = `${this.rows.length * ROW}px`;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - MARGIN);
    const last = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + MARGIN);
    const elements = [];
    for (let at = first; at < last; at += 1) elements.push(this.element(this.rows[at], at));
    this.inside.replaceChildren(...elements);
    if (this.rows.length) this.box.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.box.removeAttribute("aria-activedescendant");
    if (last >= this.rows.length - MARGIN) this.wantMore();
  }

  element(row, at) {
    const isFolder = row.leaves !== undefined;
    const isOpen = isFolder && this.tree.open.has(row.id);
    const element = h(
      "div",
      {
        id: `row-${at}`,
        class: `row${isFolder ? " folder" : ""}${at === this.active ? " active" : ""}`,
        role: "treeitem",
        "aria-level": row.depth + 1,
        "aria-setsize": this.rows.length,
        "aria-posinset": at + 1,
        "aria-selected": isFolder ? null : String(row.key === this.chosen),
        "aria-expanded": isFolder ? String(isOpen) : null,
        title: visible(isFolder ? row.label : row.key),
      },
      isFolder ? h("span", { class: "turn" }, icon(ICONS.turn)) : null,
      isFolder ? h("span", { class: `sign ${row.kind}` }, icon(ICONS[row.kind])) : null,
      h("bdi", { class: "label" }, visible(row.label)),
      isFolder ? h("span", { class: "amount" }, number(row.count)) : null,
    );
    element.style.transform = `translateY(${at * ROW}px)`;
    element.style.paddingInlineStart = `${12 + row.depth * 16}px`;
    return element;
  }

  act(at) {
    this.active = at;
    const row = this.rows[at];
    if (row === undefined) return;
    if (row.leaves === undefined) this.choose(row.key);
    else this.turn(row, !this.tree.open.has(row.id));
  }

  turn(folder, isOpen) {
    if (isOpen) this.tree.open.add(folder.id);
    else this.tree.open.delete(folder.id);
    this.update();
  }

  mark(key) {
    this.chosen = key;
    if (key !== null) this.tree.reveal(key);
    this.update();
  }

  pressed(event) {
    const row = this.rows[this.active];
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) this.go(this.active + moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.act(this.active);
    else if (event.key === "ArrowRight" && row?.leaves) this.turn(row, true);
    else if (event.key === "ArrowLeft" && row) this.leave(row);
    else return;
    event.preventDefault();
  }

  leave(row) {
    if (row.leaves && this.tree.open.has(row.id)) {
      this.turn(row, false);
      return;
    }
    for (let at = this.active; at >= 0; at -= 1) {
      if (this.rows[at].depth < row.depth) {
        this.go(at);
        return;
      }
    }
  }

  go(at) {
    this.active = Math.max(0, Math.min(this.rows.length - 1, at));
    const top = this.active * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    this.draw();
  }
}
