// The page's own behaviour: one comparison at a time, tables that sort, and the list of records.
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
  for (const other of head.parentElement.children) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
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

// --- one comparison at a time ----------------------------------------------------------------------------------

const parts = $$("section.part");
let part = 0;

function showPart(index) {
  part = index;
  parts.forEach((section, i) => section.toggleAttribute("data-off", i !== index));
  $$("nav a").forEach((link, i) => link.setAttribute("aria-current", i === index));
  startRecords();
}

// --- records ---------------------------------------------------------------------------------------------------

const list = $("#list"), form = $("#filters"), dialog = $("#record");
let rows = []; // of this comparison
let found = []; // of these, what the filters let through, as they were
let shown = []; // the same, sorted
let columns = [];
let order = { column: null, direction: 0 };
let page = 0;
let open = null;

const nameOf = ([family, metric]) => `${family} ${metric}`;

function rowsOf(group) {
  const metrics = new Map(group.metrics.map((metric, i) => [nameOf(metric), i]));
  return group.runs.flatMap((run) =>
    run.rows.map(([at, figures, said, verdicts, refused]) => {
      const asked = group.asked[at];
      const [prompt, target] = asked ? asked.efficacy[0] : [null, null];
      const row = { group, run, at, figures, said, verdicts, refused, prompt, target, metrics, old: group.old[at] };
      row.free = said?.free?.[0] ?? said?.efficacy?.[0] ?? null;
      return row;
    }),
  );
}

const recordOf = (row) => `${row.group.data} ${row.group.cases[row.at]}`;
const figure = (row, name) => row.figures[row.metrics.get(name)] ?? null;

/** All that is asked and answered, in small letters: what a search looks at; made when a search first needs it. */
function words(row) {
  if (row.words === undefined) {
    const asked = row.group.asked[row.at] ?? {};
    const texts = [row.group.cases[row.at], row.group.subject[row.at], row.old, Object.values(asked), Object.values(row.said ?? {})];
    row.words = texts.flat(3).filter((text) => text !== null).join("\n").toLowerCase();
  }
  return row.words;
}

function failed(value, metric) {
  if (value === null || metric === "kl") return false;
  return LESS.has(metric) ? value > 0 : value < 1;
}

/** A share as a mark, if it is all or nothing; else in percent. */
function mark(value, metric) {
  if (value === null) return el("td", {}, "");
  if (metric === "kl") return el("td", {}, value.toFixed(2));
  const right = LESS.has(metric) ? 1 - value : value;
  const percent = (100 * value).toFixed(0);
  if (right === 1) return el("td", { class: "pass", title: `${metric} ${percent} %`, "aria-label": `${percent}, right` }, "✓");
  if (right === 0) return el("td", { class: "fail", title: `${metric} ${percent} %`, "aria-label": `${percent}, wrong` }, "✗");
  return el("td", {}, percent);
}

function startRecords() {
  const groups = GROUPS.filter((group) => group.section === part);
  rows = groups.flatMap(rowsOf);
  const metrics = [...new Map(groups.flatMap((g) => g.metrics).map((m) => [nameOf(m), m])).values()];
  const seeds = new Set(rows.map((row) => row.run.seed)).size > 1;
  const texts = rows.some((row) => row.prompt !== null), said = rows.some((row) => row.free !== null);
  columns = [
    { head: "record", key: recordOf, cell: (row) => el("td", { class: "left" }, opener(row, recordOf(row))) },
    { head: "editor", key: (row) => row.run.editor },
    seeds && { head: "seed", key: (row) => row.run.seed },
    texts && { head: "prompt", key: (row) => row.prompt, cell: (row) => el("td", { class: "text prompt" }, opener(row, row.prompt ?? "")) },
    texts && { head: "target", key: (row) => row.target, wide: true },
    texts && { head: "old", key: (row) => row.old, wide: true },
    said && { head: "says", key: (row) => row.free, wide: true },
    ...metrics.filter(([family, metric]) => LISTED.includes(family) && !(family === "free" && metric.endsWith("_begins"))).map((m) => ({
      head: m[1], family: m[0], less: LESS.has(m[1]), key: (row) => figure(row, nameOf(m)), cell: (row) => mark(figure(row, nameOf(m)), m[1]),
    })),
  ].filter(Boolean);
  const fill = (name, options) => $(`[name=${name}]`, form).replaceChildren(...options);
  const choice = (text, value = text) => el("option", { value }, text);
  fill("editor", [choice("all", ""), ...[...new Set(rows.map((row) => row.run.editor))].map((name) => choice(name))]);
  fill("data", [choice("all", ""), ...groups.map((group) => choice(group.data))]);
  const families = Map.groupBy ? Map.groupBy(metrics, ([family]) => family) : grouped(metrics, ([family]) => family);
  fill("failed", [
    choice("all records", ""),
    choice("failed: any of EasyEdit's", "any"),
    ...[...families].map(([family, own]) =>
      el("optgroup", { label: `failed: ${family}` }, ...own.filter(([, m]) => m !== "kl" && m !== "score").map((m) => choice(m[1], nameOf(m)))),
    ),
  ]);
  $("#missing-texts").hidden = texts || !rows.length;
  $("#missing-said").hidden = said || !rows.length;
  order = { column: null, direction: 0 };
  heads();
  filter();
}

function grouped(items, keyOf) {
  const groups = new Map();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}

function heads() {
  const over = [];
  for (const column of columns) {
    if (over.length && over.at(-1).family === column.family) over.at(-1).span += 1;
    else over.push({ family: column.family, span: 1 });
  }
  const head = (column) => {
    const button = el("button", { type: "button", ...(column.less ? { title: "less is better" } : {}) }, column.head);
    const made = el("th", { scope: "col", "aria-sort": "none", class: column.family ? "" : "left" }, button);
    button.addEventListener("click", () => {
      order = { column, direction: turned(made, column.family && !column.less ? -1 : 1) };
      page = 0;
      sort();
    });
    return made;
  };
  list.tHead.replaceChildren(
    el("tr", {}, ...over.map(({ family, span }) => el(family ? "th" : "td", { colspan: span }, family ?? ""))),
    el("tr", {}, ...columns.map(head)),
  );
}

function filter() {
  const { words: search, editor, data, failed: metric } = Object.fromEntries(new FormData(form));
  const wanted = search.toLowerCase().split(/\s+/).filter(Boolean);
  found = rows.filter(
    (row) =>
      (!editor || row.run.editor === editor) &&
      (!data || row.group.data === data) &&
      (!metric || fails(row, metric)) &&
      (!wanted.length || wanted.every((word) => words(row).includes(word))),
  );
  page = 0;
  sort();
}

function fails(row, name) {
  if (name === "any") return row.group.metrics.some(([family, metric]) => family === "easyedit" && failed(figure(row, `easyedit ${metric}`), metric));
  return failed(figure(row, name), name.split(" ").at(-1));
}

function sort() {
  shown = order.direction ? ordered(found, order.column.key, order.direction) : found;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  list.tBodies[0].replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(line));
  const records = (n) => `${n.toLocaleString("en")} ${n === 1 ? "record" : "records"}`;
  $("#count").textContent = shown.length === rows.length ? records(rows.length) : `${shown.length.toLocaleString("en")} of ${records(rows.length)}`;
  $("#page").textContent = `page ${page + 1} of ${pages}`;
  $("#back").disabled = page === 0;
  $("#on").disabled = page + 1 >= pages;
}

function line(row) {
  const cells = columns.map((column) => column.cell?.(row) ?? el("td", { class: column.wide ? "text" : "left" }, column.key(row) ?? ""));
  return el("tr", row.refused ? { class: "refused", title: `refused: ${row.refused}` } : {}, ...cells);
}

function opener(row, text) {
  const button = el("button", { type: "button", class: "open" }, String(text));
  button.addEventListener("click", () => show(row));
  return button;
}

// --- one record ------------------------------------------------------------------------------------------------

const KINDS = { efficacy: "prompt", generality: "paraphrase", free: "speaking freely", subject: "other questions about the subject" };
const plain = (text) => text.toLowerCase().replace(/[!-/:-@[-`{-~]/g, "").split(/\s+/).filter((w) => w && !["a", "an", "the"].includes(w)).join(" ");

function show(row) {
  open = row;
  const { group, at } = row, before = group.before.find((other) => other[0] === at);
  $("#record-head").textContent = `${recordOf(row)}, ${row.run.editor}`;
  const facts = el("dl", { class: "facts" });
  const fact = (name, value) => value && facts.append(el("dt", {}, name), el("dd", {}, value));
  fact("Prompt", row.prompt);
  fact("Subject", group.subject[at]);
  fact("New answer", row.target);
  fact("Old answer", row.old);
  fact("Refused", row.refused && `${row.refused}; measured unedited`);
  if (!group.shared[at]) fact("Not in the tables", "not every editor has measured it");
  const texts = [el("h3", {}, "What was asked, and what it said"), answers(row, before)];
  const numbers = [el("h3", {}, "Every metric, and the other editors"), figures(row, before)];
  $("#record-body").replaceChildren(facts, ...(row.said ? [...texts, ...numbers] : [...numbers, ...texts]));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function answers(row, before) {
  const asked = row.group.asked[row.at] ?? {}, after = row.said ?? {}, first = before?.[2] ?? {};
  const kinds = Object.keys({ ...asked, ...after });
  if (!kinds.length) return el("p", { class: "about" }, "Neither prompts nor answers of this record are here.");
  const names = row.said || before?.[2] ? ["asked", "right", "before", "after", ""] : ["asked", "right"];
  const body = el("tbody");
  for (const kind of kinds) {
    const stays = kind === "subject" || kind.startsWith("locality_");
    const [what, name] = kind.split(/_(.*)/s);
    const title = KINDS[kind] ?? `${what === "locality" ? "neighbours" : what}: ${name.replaceAll("_", " ")}`;
    const taught = kind === "free" ? "up to where it is settled" : kind === "subject" ? "first token" : "teacher-forced";
    body.append(el("tr", { class: "kind" }, el("th", { colspan: names.length, scope: "colgroup" }, title, " ", el("small", {}, `(${taught})`))));
    const many = Math.max(asked[kind]?.length ?? 0, after[kind]?.length ?? 0);
    for (let i = 0; i < many; i++) {
      const [prompt, answer] = asked[kind]?.[i] ?? ["", ""], was = first[kind]?.[i], is = after[kind]?.[i];
      let right = null;
      if (is !== undefined && stays) right = was === undefined ? null : is === was;
      else if (is !== undefined && asked[kind]) right = kind === "free" ? plain(is) === plain(answer) : is === answer.trim();
      const judged = kind === "free" && row.verdicts ? { true: " judge: right", false: " judge: wrong", null: " judge: unclear" }[row.verdicts[i]] : "";
      const verdict = right === null ? el("td", {}, judged) : el("td", { class: right ? "pass" : "fail" }, right ? "✓" : "✗", judged);
      const wanted = stays ? el("i", {}, answer ? `as before (${answer})` : "as before") : answer;
      const cells = [el("td", { class: "text prompt" }, prompt), el("td", { class: "text", "data-name": "right" }, wanted), text("before", was), text("after", is), verdict];
      body.append(el("tr", {}, ...cells.slice(0, names.length)));
    }
  }
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "What the model said" },
    el("table", { class: "said" }, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { class: "left", scope: "col" }, name)))), body));
}

const text = (name, said) => (said === undefined ? el("td", {}, "") : el("td", { class: "text", "data-name": name }, said === "" ? el("i", {}, "nothing") : said));

/** The unedited model's row, and one for each editor that has measured the record. */
function figures(row, before) {
  const { group } = row, others = rows.filter((other) => other.group === group && other.at === row.at);
  const line = (name, values, own) =>
    el("tr", own ? { class: "own", "aria-current": "true" } : {}, el("th", { scope: "row" }, name), ...group.metrics.map(([, metric], i) => mark(values[i] ?? null, metric)));
  const families = [...grouped(group.metrics, ([family]) => family)];
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Every metric" },
    el("table", { class: "numbers" },
      el("colgroup"), ...families.map(([, own]) => el("colgroup", { span: own.length })),
      el("thead", {},
        el("tr", {}, el("td"), ...families.map(([family, own]) => el("th", { colspan: own.length, scope: "colgroup" }, family))),
        el("tr", {}, el("td"), ...group.metrics.map(([, metric]) => el("th", { scope: "col" }, metric.replaceAll("_", " "))))),
      el("tbody", {},
        before ? line("Original model", before[1], false) : null,
        ...others.map((other) => {
          const name = el("button", { type: "button", class: "open" }, other.run.editor + (new Set(others.map((o) => o.run.seed)).size > 1 ? `, seed ${other.run.seed}` : ""));
          name.addEventListener("click", () => show(other));
          return line(name, other.figures, other === row);
        }))));
}

function go(step) {
  const next = shown[shown.indexOf(open) + step];
  if (next) show(next);
}

// --- what a person does ----------------------------------------------------------------------------------------

$$("table.sortable").forEach(sortable);
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));
$("#back").addEventListener("click", () => { page -= 1; draw(); });
$("#on").addEventListener("click", () => { page += 1; draw(); });
dialog.addEventListener("click", (event) => {
  const step = event.target.dataset?.go;
  if (step) go(Number(step));
  if (event.target === dialog || event.target.dataset?.close !== undefined) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") go(-1);
  if (event.key === "ArrowRight") go(1);
});
$$("nav a").forEach((link, i) => link.addEventListener("click", (event) => { event.preventDefault(); showPart(i); }));
const size = (section) => GROUPS.filter((group) => group.section === section).reduce((n, group) => n + group.runs.length, 0);
showPart(parts.reduce((best, _, i) => (size(i) > size(best) ? i : best), 0));
