// The list of records: what a comparison has, filtered, sorted, a page at a time.

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
    const known = [row.group.cases[row.at], row.group.subject[row.at], row.old];
    const texts = [...known, ...Object.values(asked), ...Object.values(row.said ?? {})];
    row.words = texts.flat(2).filter((text) => text !== null).join("\n").toLowerCase();
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
  const about = { title: `${metric} ${percent} %`, "aria-label": percent };
  if (right === 1) return el("td", { class: "pass", ...about }, "✓");
  if (right === 0) return el("td", { class: "fail", ...about }, "✗");
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
    texts && {
      head: "prompt", key: (row) => row.prompt,
      cell: (row) => el("td", { class: "text prompt" }, opener(row, row.prompt ?? "")),
    },
    texts && { head: "target", key: (row) => row.target, wide: true },
    texts && { head: "old", key: (row) => row.old, wide: true },
    said && { head: "says", key: (row) => row.free, wide: true },
    ...metrics.filter(([family]) => LISTED.includes(family)).map((m) => {
      const key = (row) => figure(row, nameOf(m));
      return { head: m[1], family: m[0], less: LESS.has(m[1]), key, cell: (row) => mark(key(row), m[1]) };
    }),
  ].filter(Boolean);
  const fill = (name, options) => $(`[name=${name}]`, form).replaceChildren(...options);
  const choice = (text, value = text) => el("option", { value }, text);
  fill("editor", [choice("all", ""), ...[...new Set(rows.map((row) => row.run.editor))].map((name) => choice(name))]);
  fill("data", [choice("all", ""), ...groups.map((group) => choice(group.data))]);
  fill("failed", [
    choice("all records", ""),
    choice("failed: any of EasyEdit's", "any"),
    ...grouped(metrics.filter(([, m]) => m !== "kl" && m !== "score")).map(([family, own]) =>
      el("optgroup", { label: `failed: ${family}` }, ...own.map((m) => choice(m[1], nameOf(m)))),
    ),
  ]);
  $("#missing-texts").hidden = texts || !rows.length;
  $("#missing-said").hidden = said || !rows.length;
  order = { column: null, direction: 0 };
  heads();
  filter();
}

/** Metrics by family, in order. */
function grouped(metrics) {
  const families = new Map();
  for (const metric of metrics) families.set(metric[0], [...(families.get(metric[0]) ?? []), metric]);
  return [...families];
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
  const own = name === "any" ? row.group.metrics.filter(([family]) => family === "easyedit") : [name.split(" ")];
  return own.some((metric) => failed(figure(row, nameOf(metric)), metric[1]));
}

function sort() {
  shown = order.direction ? ordered(found, order.column.key, order.direction) : found;
  draw();
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  list.tBodies[0].replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(line));
  const records = (n) => `${n.toLocaleString("en")} ${n === 1 ? "record" : "records"}`;
  const all = records(rows.length);
  $("#count").textContent = shown.length === rows.length ? all : `${shown.length.toLocaleString("en")} of ${all}`;
  $("#page").textContent = `page ${page + 1} of ${pages}`;
  $("#back").disabled = page === 0;
  $("#on").disabled = page + 1 >= pages;
}

function turn(step) {
  page += step;
  draw();
}

function line(row) {
  const text = (column) => el("td", { class: column.wide ? "text" : "left" }, column.key(row) ?? "");
  const cells = columns.map((column) => column.cell?.(row) ?? text(column));
  return el("tr", row.refused ? { class: "refused", title: `refused: ${row.refused}` } : {}, ...cells);
}

function opener(row, text) {
  const button = el("button", { type: "button", class: "open" }, String(text));
  button.addEventListener("click", () => show(row));
  return button;
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));
$("#back").addEventListener("click", () => turn(-1));
$("#on").addEventListener("click", () => turn(1));
