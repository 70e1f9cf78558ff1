// Keys as a tree: by the labels of their namespaces, and by a separator if one is chosen. Rows stay in the order in which
// keys came, so that none moves while more are read.

const LABEL = "\u001f";
const END = "\u001e";
const DEPTH_MAX = 100; // folders within one another: what a key has beyond is its name
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
    const { folders, label } = this.place(key);
    let folder = this.root;
    for (const each of folders) folder = folder.below(each.id, each.label, each.kind);
    folder.leaves.push({ key, label: label === "" && folder.kind === "folder" ? "(nothing more)" : label, depth: folder.depth + 1 });
  }

  /** Open the folders in which a key is. */
  reveal(key) {
    for (const { id } of this.place(key).folders) this.open.add(id);
  }

  /** The folders in which a key is, from the outermost, and what it is called there. */
  place(key) {
    const { labels, name } = parts(key);
    const start = key.length - name.length;
    const folders = [];
    let at = 0;
    for (const label of labels.slice(0, DEPTH_MAX)) {
      const next = key.indexOf(LABEL, at + 1);
      at = next < 0 || next >= start ? start - 1 : next;
      folders.push({ id: key.slice(0, at), label, kind: "namespace" });
    }
    if (labels.length <= DEPTH_MAX) at = start;
    while (this.separator && folders.length < DEPTH_MAX) {
      const found = key.indexOf(this.separator, at);
      if (found < 0) break;
      const end = found + this.separator.length;
      folders.push({ id: key.slice(0, end), label: key.slice(at, end), kind: "folder" });
      at = end;
    }
    return { folders, label: key.slice(at) };
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
