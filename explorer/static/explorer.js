"use strict";
// Keyboard shortcuts, and rows that open on a click. Without this file, links and forms still work.
const rows = [...document.querySelectorAll("tr[data-href]")];
// After a mark is saved, the page returns to its row, which stays selected.
let at = rows.findIndex((row) => row.id && row.id === location.hash.slice(1));
if (at >= 0) rows[at].classList.add("here");
function go(step) {
  if (!rows.length) return;
  if (at >= 0) rows[at].classList.remove("here");
  at = Math.min(Math.max(at + step, 0), rows.length - 1);
  rows[at].classList.add("here");
  rows[at].scrollIntoView({ block: "nearest" });
}
function follow(selector) {
  const link = document.querySelector(selector);
  if (link) link.click();
}
for (const row of rows) {
  row.addEventListener("click", (event) => {
    if (!event.target.closest("a, form") && !String(getSelection())) location.href = row.dataset.href;
  });
}
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "j") go(1);
  else if (event.key === "k") go(-1);
  else if (event.key === "Enter" && at >= 0) location.href = rows[at].dataset.href;
  else if (event.key === "n") follow("a[rel=next]");
  else if (event.key === "p") follow("a[rel=prev]");
  else if (event.key === "u") follow("a[rel=up]");
  else if (event.key === "+" || event.key === "-") {
    const mark = event.key === "+" ? ".mark button:first-of-type" : ".mark button:last-of-type";
    if (at >= 0) rows[at].querySelector(mark)?.click();
  } else if (event.key === "?") {
    const keys = document.getElementById("keys");
    keys.open = !keys.open;
  } else if (event.key === "/") {
    const field = document.getElementById("filter");
    if (field) { field.focus(); event.preventDefault(); }
  }
});
for (const select of document.querySelectorAll(".filters select")) {
  select.addEventListener("change", () => select.form.submit());
}
