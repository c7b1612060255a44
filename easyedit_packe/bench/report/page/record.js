// One record, opened: what was asked and said, and every metric of every editor.

const KINDS = {
  efficacy: "prompt", generality: "paraphrase", free: "speaking freely", subject: "other questions about the subject",
};
const HOW = { free: "up to where it is settled", subject: "first token" };
const JUDGED = { true: " judge: right", false: " judge: wrong", null: " judge: unclear" };

/** Whether it is what it should be; null where one of them is not known. */
function isRight(kind, wanted, is) {
  if (wanted === undefined || is === undefined) return null;
  return kind === "free" ? plain(is) === plain(wanted) : is === wanted;
}

/** Words without punctuation and articles: what free generation compares. */
function plain(text) {
  const words = text.toLowerCase().replace(/[!-/:-@[-`{-~]/g, "").split(/\s+/);
  return words.filter((word) => word && !["a", "an", "the"].includes(word)).join(" ");
}

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
    const how = el("small", {}, `(${HOW[kind] ?? "teacher-forced"})`);
    const head = el("th", { colspan: names.length, scope: "colgroup" }, title, " ", how);
    body.append(el("tr", { class: "kind" }, head));
    const many = Math.max(asked[kind]?.length ?? 0, after[kind]?.length ?? 0);
    for (let i = 0; i < many; i++) {
      const [prompt, answer] = asked[kind]?.[i] ?? ["", ""], was = first[kind]?.[i], is = after[kind]?.[i];
      const right = isRight(kind, stays ? was : asked[kind] && answer.trim(), is);
      const judged = kind === "free" && row.verdicts ? JUDGED[row.verdicts[i]] : "";
      const found = right === null ? ["", ""] : right ? ["pass", "✓"] : ["fail", "✗"];
      const wanted = stays ? el("i", {}, answer ? `as before (${answer})` : "as before") : answer;
      const cells = [
        el("td", { class: "text prompt" }, prompt),
        el("td", { class: "text", "data-name": "right" }, wanted),
        text("before", was),
        text("after", is),
        el("td", { class: found[0] }, found[1], judged),
      ];
      body.append(el("tr", {}, ...cells.slice(0, names.length)));
    }
  }
  const heads = el("tr", {}, ...names.map((name) => el("th", { class: "left", scope: "col" }, name)));
  return scrolling("What the model said", el("table", { class: "said" }, el("thead", {}, heads), body));
}

function text(name, said) {
  if (said === undefined) return el("td", {}, "");
  return el("td", { class: "text", "data-name": name }, said === "" ? el("i", {}, "nothing") : said);
}

function scrolling(label, table) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
}

/** The unedited model's row, and one for each editor that has measured the record. */
function figures(row, before) {
  const { group } = row, families = grouped(group.metrics);
  const others = rows.filter((other) => other.group === group && other.at === row.at);
  const seeds = new Set(others.map((other) => other.run.seed)).size > 1;
  const line = (name, values, own = false) => {
    const cells = group.metrics.map(([, metric], i) => mark(values[i] ?? null, metric));
    return el("tr", own ? { class: "own", "aria-current": "true" } : {}, el("th", { scope: "row" }, name), ...cells);
  };
  const ofEditor = (other) => {
    const called = other.run.editor + (seeds ? `, seed ${other.run.seed}` : "");
    const name = el("button", { type: "button", class: "open" }, called);
    name.addEventListener("click", () => show(other));
    return line(name, other.figures, other === row);
  };
  const over = families.map(([family, own]) => el("th", { colspan: own.length, scope: "colgroup" }, family));
  const heads = group.metrics.map(([, metric]) => el("th", { scope: "col" }, metric.replaceAll("_", " ")));
  return scrolling("Every metric", el("table", { class: "numbers" },
    el("colgroup"), ...families.map(([, own]) => el("colgroup", { span: own.length })),
    el("thead", {}, el("tr", {}, el("td"), ...over), el("tr", {}, el("td"), ...heads)),
    el("tbody", {}, before ? line("Original model", before[1]) : null, ...others.map(ofEditor))));
}

function go(step) {
  const next = shown[shown.indexOf(open) + step];
  if (next) show(next);
}

dialog.addEventListener("click", (event) => {
  const step = event.target.dataset?.go;
  if (step) go(Number(step));
  if (event.target === dialog || event.target.dataset?.close !== undefined) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") go(-1);
  if (event.key === "ArrowRight") go(1);
});

const sizes = parts.map((_, i) => GROUPS.filter((group) => group.section === i).flatMap((group) => group.runs).length);
showPart(sizes.indexOf(Math.max(...sizes))); // where most is compared
