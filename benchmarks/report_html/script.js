"use strict";
// Sorting, filtering, copying and the choice of light or dark. Without it the page is the same, in the order of the run.

function value(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = /^[-+]?[\d,]+(\.\d+)?(e[-+]?\d+)?/.exec(text);
  return { text, number: number ? Number(number[0].replaceAll(",", "")) : null };
}

function compare(one, other, numeric) {
  if (!numeric) return one.text.localeCompare(other.text, "en", { numeric: true });
  return one.number - other.number;
}

function sort(table, column, numeric) {
  const headings = [...table.tHead.rows[0].cells];
  const ascending = headings[column].getAttribute("aria-sort") !== "ascending";
  headings.forEach((heading) => heading.removeAttribute("aria-sort"));
  headings[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => ({ row, key: value(row, column) }));
  const there = (one) => (numeric ? one.key.number !== null : one.key.text !== "–");
  const present = keyed.filter(there).sort((a, b) => (ascending ? 1 : -1) * compare(a.key, b.key, numeric));
  body.append(...[...present, ...keyed.filter((one) => !there(one))].map((one) => one.row)); // what is not there: last
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => sort(table, column, !heading.classList.contains("left")));
  });
}

function makeFilters(bar) {
  const [words, backend, precision] = ["words", "backend", "precision"].map((name) => bar.querySelector(`[name=${name}]`));
  const found = bar.querySelector("output");
  const rows = [...document.querySelectorAll("[data-backend]")];
  const counted = rows.filter((row) => row.closest("table.counted"));
  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.dataset.words;
      const fits = (select, own) => select.value === "" || select.value === own;
      row.hidden = !(
        fits(backend, row.dataset.backend) &&
        fits(precision, row.dataset.precision) &&
        wanted.every((word) => text.includes(word))
      );
    }
    found.textContent = `${counted.filter((row) => !row.hidden).length} of ${counted.length} rows`;
  }
  [words, backend, precision].forEach((control) => control.addEventListener("input", filter));
  bar.hidden = false;
  filter();
}

function makeThemes(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  button.hidden = false;
  name();
}

function makeCopying(button) {
  if (!navigator.clipboard) return; // as on a page that is not served safely
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent.trim());
    button.textContent = "Copied";
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".filters").forEach(makeFilters);
document.querySelectorAll("#theme").forEach(makeThemes);
document.querySelectorAll(".command button").forEach(makeCopying);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
