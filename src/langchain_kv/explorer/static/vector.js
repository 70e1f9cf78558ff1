// A vector as a plot: every number a bar from the zero line, or where there are too many the range of each few.

import { h, number, svg } from "./dom.js";

const COLUMNS = 256;
const HEIGHT = 120;
const BINS = 32;

export function plot(value) {
  const numbers = value.numbers;
  const most = Math.max(Math.abs(value.least), Math.abs(value.greatest)) || 1;
  const per = Math.ceil(numbers.length / COLUMNS);
  const columns = Math.ceil(numbers.length / per);
  const y = (each) => (HEIGHT / 2) * (1 - each / most);
  const gap = columns > 128 ? 0.1 : 0.2;
  let path = "";
  for (let at = 0; at < columns; at += 1) {
    const some = numbers.slice(at * per, (at + 1) * per);
    const top = y(Math.max(0, ...some));
    const bottom = y(Math.min(0, ...some));
    path += `M${at + gap} ${top.toFixed(2)}H${at + 1 - gap}V${Math.max(bottom, top + 0.4).toFixed(2)}H${at + gap}Z`;
  }
  const drawing = svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${columns} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${number(value.count)} numbers from ${digits(value.least)} to ${digits(value.greatest)}` },
    svg("path", { class: "bars", d: path }),
    svg("path", { class: "zero", d: `M0 ${HEIGHT / 2}H${columns}` }),
  );
  return h(
    "div",
    { class: "vector" },
    h("figure", {}, h("div", { class: "scale", "aria-hidden": "true" }, h("span", {}, digits(most)), h("span", {}, "0"), h("span", {}, digits(-most))), drawing, h("figcaption", {}, per > 1 ? `Each bar is the range of ${per} numbers, in their order` : "Each bar is a number, in their order")),
    h("div", { class: "lower" }, spread(numbers), figures(value)),
  );
}

function spread(numbers) {
  const least = Math.min(...numbers);
  const width = (Math.max(...numbers) - least) / BINS || 1;
  const counts = new Array(BINS).fill(0);
  for (const each of numbers) counts[Math.min(BINS - 1, Math.floor((each - least) / width))] += 1;
  const most = Math.max(...counts);
  let path = "";
  counts.forEach((count, at) => {
    const height = (count / most) * 60;
    if (count) path += `M${at + 0.1} ${(60 - Math.max(height, 0.6)).toFixed(2)}H${at + 0.9}V60H${at + 0.1}Z`;
  });
  return h(
    "figure",
    { class: "spread" },
    svg("svg", { viewBox: `0 0 ${BINS} 60`, preserveAspectRatio: "none", role: "img", "aria-label": "How the numbers are spread" }, svg("path", { d: path })),
    h("figcaption", {}, "How they are spread"),
  );
}

function figures(value) {
  const rows = [["numbers", number(value.count)], ["length (L2)", digits(value.norm)], ["mean", digits(value.mean)], ["least", digits(value.least)], ["greatest", digits(value.greatest)], ["kept as", value.number_type]];
  return h("dl", { class: "figures" }, rows.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))));
}

function digits(value) {
  if (value === null) return "beyond a float";
  return value === 0 ? "0" : Math.abs(value) < 0.001 || Math.abs(value) >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}
