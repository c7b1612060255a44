// What all of the page has: elements, tables that sort, and one comparison at a time. `list.js` and `record.js` follow
// in the same script.
"use strict";

const GROUPS = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const LISTED = ["easyedit", "subject", "free"]; // families with columns in the list; an opened record shows all
const LESS = new Set(["drawn", "kl"]);
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

/** An element; whatever is in it is text, never markup. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== false) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// --- sorting ---------------------------------------------------------------------------------------------------

const TEXT = new Intl.Collator("en", { numeric: true });

/** Numbers before text; what is missing is last, whichever way it goes. Equals stay as they were. */
function ordered(items, keyOf, direction) {
  const keyed = items.map((item) => [keyOf(item), item]);
  keyed.sort(([a], [b]) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return direction * (typeof a === "number" && typeof b === "number" ? a - b : TEXT.compare(a, b));
  });
  return keyed.map(([, item]) => item);
}

/** The first click sorts the best to the top, the second the other way, the third as it was. */
function turned(head, first) {
  const now = head.getAttribute("aria-sort");
  const [one, two] = first < 0 ? ["descending", "ascending"] : ["ascending", "descending"];
  const next = now === "none" ? one : now === one ? two : "none";
  for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", next);
  return { none: 0, ascending: 1, descending: -1 }[next];
}

function sortable(table) {
  const body = table.tBodies[0], original = [...body.rows], heads = [...table.tHead.rows].at(-1).cells;
  [...heads].forEach((head, column) => {
    const number = original.some((row) => row.cells[column].dataset.value !== undefined);
    const key = (row) => {
      const cell = row.cells[column], value = cell.dataset.value;
      return value !== undefined ? Number(value) : number ? null : cell.textContent;
    };
    $("button", head).addEventListener("click", (event) => {
      const direction = turned(head, number && event.currentTarget.dataset.less === undefined ? -1 : 1);
      body.append(...(direction ? ordered(original, key, direction) : original));
    });
  });
}

$$("table.sortable").forEach(sortable);

// --- one comparison at a time ----------------------------------------------------------------------------------

const parts = $$("section.part");
let part = 0;

function showPart(index) {
  part = index;
  parts.forEach((section, i) => section.toggleAttribute("data-off", i !== index));
  $$("nav a").forEach((link, i) => link.setAttribute("aria-current", i === index));
  startRecords();
}

$$("nav a").forEach((link, i) => {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    showPart(i);
  });
});
