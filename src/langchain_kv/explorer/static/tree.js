// Keys as a tree: by the labels of their namespaces, and by a separator if one is chosen. Rows stay in the order in which
// keys came, so that none moves while more are read.

const LABEL = "\u001f";
const END = "\u001e";
const SPELLING = { d: "\u001d", e: "\u001e", f: "\u001f" };

/** The namespace and the name that a key consists of; a key in none has no labels. */
export function parts(key) {
  const end = key.startsWith(LABEL) ? key.indexOf(END) : -1;
  if (end < 0) return { labels: [], name: key };
  const labels = key.slice(1, end).split(LABEL);
  return { labels: labels.map((label) => label.replace(/\u001d([def])/g, (_, letter) => SPELLING[letter])), name: key.slice(end + 1) };
}

class Folder {
  constructor(id, label, kind, depth) {
    this.id = id; // what its keys begin with
    this.label = label;
    this.kind = kind;
    this.depth = depth;
    this.count = 0;
    this.folders = null; // by id; made with the first, as there may be a hundred thousand folders of one key each
    this.leaves = [];
  }

  below(id, label, kind) {
    this.folders ??= new Map();
    let found = this.folders.get(id);
    if (found === undefined) this.folders.set(id, (found = new Folder(id, label, kind, this.depth + 1)));
    found.count += 1;
    return found;
  }
}

export class Tree {
  constructor(separator) {
    this.separator = separator;
    this.root = new Folder("", "", "root", -1);
    this.open = new Set();
  }

  add(key) {
    const { labels, name } = parts(key);
    let folder = this.root;
    let id = "";
    const raw = labels.length ? key.slice(1, key.indexOf(END)).split(LABEL) : [];
    labels.forEach((label, at) => {
      id += LABEL + raw[at];
      folder = folder.below(id, label, "namespace");
    });
    const steps = this.separator ? name.split(this.separator) : [name];
    const leaf = steps.pop();
    if (labels.length) id += END;
    for (const step of steps) {
      id += step + this.separator;
      folder = folder.below(id, step + this.separator, "folder");
    }
    folder.leaves.push({ key, label: leaf === "" && steps.length ? "(nothing more)" : leaf, depth: folder.depth + 1 });
  }

  /** Open the folders in which a key is. */
  reveal(key) {
    const { labels, name } = parts(key);
    const start = key.length - name.length;
    let at = 0;
    for (let left = labels.length; left > 0; left -= 1) {
      const next = key.indexOf(LABEL, at + 1);
      at = next < 0 || next >= start ? start - 1 : next;
      this.open.add(key.slice(0, at));
    }
    if (!this.separator) return;
    for (let found = name.indexOf(this.separator); found >= 0; found = name.indexOf(this.separator, found + this.separator.length)) {
      this.open.add(key.slice(0, start + found + this.separator.length));
    }
  }

  /** The rows that are to be seen, from the top. */
  rows() {
    const rows = [];
    const walk = (folder) => {
      for (const each of folder.folders?.values() ?? []) {
        rows.push(each);
        if (this.open.has(each.id)) walk(each);
      }
      for (const leaf of folder.leaves) rows.push(leaf);
    };
    walk(this.root);
    return rows;
  }
}
