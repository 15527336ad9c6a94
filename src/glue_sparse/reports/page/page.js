"use strict";
// Sorts tables, draws the charts one after the other, and switches between light and dark.
const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function colours() {
  const style = getComputedStyle(root), of = (name) => style.getPropertyValue(name).trim();
  const text = {labelColor: of("--soft"), titleColor: of("--text"), titleFontWeight: "normal"};
  return {
    background: null, font: "system-ui, sans-serif", view: {stroke: null},
    axis: {...text, gridColor: of("--line"), domainColor: of("--line"), tickColor: of("--line")}, legend: text,
  };
}

async function draw(place, theme) {
  const spec = JSON.parse(place.nextElementSibling.textContent);
  try {
    await vegaEmbed(place, spec, {renderer: "svg", actions: false, config: colours(), tooltip: {theme}});
  } catch (error) {
    place.textContent = String(error);
  }
}

let turn = 0;

async function show(theme) {
  root.dataset.theme = theme;
  const own = ++turn, near = (place) => Math.abs(place.getBoundingClientRect().top);
  const places = [...document.querySelectorAll(".chart")].map((place) => [near(place), place]);
  for (const [, place] of places.sort(([one], [other]) => one - other)) {  // first those in view
    if (own !== turn) return;
    await draw(place, theme);
    await new Promise((done) => setTimeout(done));  // the page stays alive meanwhile
  }
}

document.getElementById("theme").addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));
dark.addEventListener("change", () => show(dark.matches ? "dark" : "light"));
show(dark.matches ? "dark" : "light");

function compare(one, other) {
  if (one === "" || other === "") return (one === "") - (other === "");  // what is not known comes last
  const [a, b] = [Number(one), Number(other)];
  return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other, undefined, {numeric: true}) : a - b;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[place].dataset.value, body = table.tBodies[0];
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      return a === "" || b === "" ? compare(a, b) : down ? compare(b, a) : compare(a, b);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
