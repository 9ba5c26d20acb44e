/* The explorer: filters, a table (DataTables) and a forest plot of the rows that pass. The address keeps the filters: #metric=average_drop&dataset=imagenet */
document.addEventListener("DOMContentLoaded", async () => {
  const root = document.getElementById("explorer-app");
  if (!root) return;
  const opens = (squeezed) => new Response(new Blob([Uint8Array.from(atob(squeezed), (letter) => letter.charCodeAt(0))])
    .stream().pipeThrough(new DecompressionStream("gzip")));
  const { titles, words, controls, conditions, shared, kinds, told } = await opens(window.EXPLORER).json();
  for (const columns of Object.values(kinds))
    conditions.forEach((column, index) => { columns[column] = columns.at.map((at) => shared[at][index]); });
  const find = (selector) => root.querySelector(selector);
  const [form, count, forest] = [".explorer-filters", ".explorer-count", ".explorer-forest"].map(find);
  const FILTERS = ["paper", "dataset", "backbone", "protocol", "metric", "setting", "method", "than", "run"];
  const KINDS = { values: "values", differences: "paired differences", studies: "rows of studies" };
  const START = { kind: "values", dataset: "imagenet", metric: "average_drop", setting: "50%" };
  const MOST = 60, LETTER = 6.4; // rows of a plot; pixels that a letter of its labels takes
  let wanted = {}, found = [], table = null, opened = null;

  const printed = (column, row) => words[column][kinds[wanted.kind][column][row]][1];
  const id = (column, row) => words[column][kinds[wanted.kind][column][row]][0];
  const number = (column, row) => kinds[wanted.kind][column]?.[row];
  const minus = (text) => String(text).replace("-", "−");
  const fixed = (column, row) => minus(number(column, row).toFixed(kinds[wanted.kind].digits[kinds[wanted.kind].metric[row]]));
  const interval = (row) => (number("ci_low", row) === null ? "–" : `[${fixed("ci_low", row)}, ${fixed("ci_high", row)}]`);
  const who = (row) => printed("method", row) + (id("than", row) ? ` minus ${printed("than", row)}` : "");
  const where = (row) => [printed("dataset", row), printed("backbone", row), words.weights[kinds[wanted.kind].weights[row]][1],
    printed("recipe", row), `seed ${printed("seed", row)}`].filter(Boolean).join(" · ");

  /* Where the words of a filter stand in their list; an address may ask for several: metric=average_drop|map_mean. */
  const places = (column, asked = "") => asked.split("|").map((wish) => words[column].findIndex(([word]) => word === wish));

  /* The filters that the address names; an address without any gets a small start. */
  function asked() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    if ("data" in given) given.dataset = given.data;
    const known = FILTERS.filter((column) => places(column, given[column]).some((place) => place >= 0 && words[column][place][0]));
    const kind = given.kind in kinds ? given.kind : "values";
    return location.hash.length > 1 ? { kind, ...Object.fromEntries(known.map((column) => [column, given[column]])) } : { ...START };
  }

  function go(change) {
    const next = Object.entries({ ...wanted, ...change }).filter(([, value]) => value);
    location.hash = new URLSearchParams(next).toString();
  }

  /* Rows that pass every filter, or every filter but one. */
  function passing(except) {
    const columns = kinds[wanted.kind];
    const tests = FILTERS.filter((column) => column !== except && wanted[column])
      .map((column) => [columns[column], new Set(places(column, wanted[column]))]);
    return [...columns.value.keys()].filter((row) => tests.every(([values, found]) => found.has(values[row])));
  }

  function select(column, label, choices) {
    const box = form.elements[column] || make(column, label);
    box.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
    box.value = wanted[column] || "";
  }

  function make(column, label) {
    const outer = Object.assign(document.createElement("label"), { textContent: label });
    const box = Object.assign(document.createElement("select"), { name: column });
    box.addEventListener("change", () => go({ [column]: box.value }));
    outer.append(box);
    form.append(outer);
    return box;
  }

  function filters() {
    select("kind", "Show", Object.entries(KINDS));
    for (const column of FILTERS) {
      const present = new Set(passing(column).map((row) => kinds[wanted.kind][column][row]));
      const choices = [...present].map((place) => words[column][place]).filter(([word]) => word || column !== "than");
      choices.sort(([, a], [, b]) => a.localeCompare(b, "en", { numeric: true, sensitivity: "base" }));
      const several = wanted[column]?.includes("|") ? [[wanted[column], `${places(column, wanted[column]).length} of them`]] : [];
      select(column, titles[column] || "Compared with", [["", "all"], ...several, ...choices.filter(([word]) => word)]);
    }
    form.elements.than.parentElement.hidden = wanted.kind === "values";
  }

  /* ---- the plot: one row a method and run */

  function node(tag, attributes, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  function draw() {
    forest.replaceChildren();
    if (!wanted.metric) return void forest.append("Choose a metric to see its rows as a plot.");
    const rows = [...found].sort((a, b) => number("value", a) - number("value", b)).slice(0, MOST);
    if (!rows.length) return;
    const differences = rows.some((row) => id("than", row)), open = telling(rows);
    const wide = Math.max(320, forest.clientWidth), letters = Math.floor(wide / LETTER);
    const labels = rows.map((row) => [who(row), ...open.map((column) => spelled(column, row)).filter(Boolean)]);
    const narrow = wide < 560 || Math.max(...labels.map((words) => words.join(" · ").length)) > letters * 0.46; // labels above their bars
    const lines = labels.map((words) => (narrow ? folded(words, letters) : [words.join(" · ")]));
    const above = narrow ? 14 * Math.max(...lines.map((of) => of.length)) : 0, step = 24 + above, high = 34 + step * rows.length;
    const left = narrow ? 8 : Math.round(wide * 0.46), right = wide - 14;
    const ends = rows.flatMap((row) => ["value", "ci_low", "ci_high"].map((column) => number(column, row)).filter((value) => value !== null));
    let [low, top] = [Math.min(...ends, ...(differences ? [0] : [])), Math.max(...ends, ...(differences ? [0] : []))];
    const margin = (top - low || 1) * 0.04;
    [low, top] = [low - margin, top + margin];
    const x = (value) => left + ((value - low) / (top - low)) * (right - left);
    const image = node("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img",
      "aria-label": `${printed("metric", rows[0])}: ${rows.length} rows, from ${who(rows[0])}, ${fixed("value", rows[0])}, to ${who(rows.at(-1))}, ${fixed("value", rows.at(-1))}` });
    const unit = 10 ** Math.floor(Math.log10((top - low) / 4));
    const tick = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => (top - low) / size <= (narrow ? 5 : 8));
    for (let place = Math.ceil(low / tick); place * tick <= top; place += 1) {
      const value = Number((place * tick).toPrecision(6));
      image.append(node("line", { x1: x(value), x2: x(value), y1: 22, y2: high, class: value === 0 ? "zero" : "grid" }));
      image.append(node("text", { x: x(value), y: 14, "text-anchor": "middle", class: "tick" }, minus(value)));
    }
    rows.forEach((row, index) => {
      const y = 34 + step * index + above;
      const control = controls.includes(kinds[wanted.kind].method[row]);
      const group = node("g", { class: control ? "row control" : "row" });
      group.append(node("title", {}, `${who(row)}: ${fixed("value", row)} ${interval(row)}, n ${number("n", row)}\n${printed("metric", row)} ${printed("setting", row)}, ${where(row)}`));
      group.append(node("rect", { x: 0, width: wide, y: y - 12 - above, height: step, class: "band" }));
      const label = node("text", { x: 0, y: narrow ? y - above + 2 : y + 4 });
      const own = who(row).length;
      label.append(node("tspan", { class: "who" }, who(row)), node("tspan", { class: "where", dx: 7 }, lines[index][0].slice(own + 3)),
        ...lines[index].slice(1).map((line) => node("tspan", { class: "where", x: 0, dy: 14 }, line)));
      group.append(label);
      if (number("ci_low", row) !== null) group.append(node("line", { x1: x(number("ci_low", row)), x2: x(number("ci_high", row)), y1: y, y2: y, class: "bar" }));
      group.append(node("circle", { cx: x(number("value", row)), cy: y, r: 4.5 }));
      image.append(group);
    });
    const title = document.createElement("figcaption");
    const more = found.length > MOST ? ` The first ${MOST} of ${found.length} rows, smallest value first; filter to see others.` : "";
    title.textContent = `${[...new Set(rows.map((row) => printed("metric", row)))].join("; ")}${wanted.setting ? `, ${wanted.setting.split("|").filter(Boolean).join("; ")}` : ""}${differences ? ", paired differences" : ""}.${more}`;
    forest.append(title, image);
  }

  const spelled = (column, row) => (column === "seed" && printed(column, row) ? "seed " : "") + printed(column, row);

  /* Words as lines of so many letters, broken between words alone. */
  function folded(words, letters) {
    return words.reduce((lines, word) => {
      const longer = [...lines.slice(-1), word].join(" · ");
      return lines.length && longer.length > letters ? [...lines, word] : [...lines.slice(0, -1), longer];
    }, []);
  }

  /* In the plot only what the filters leave open: columns that tell the rows apart: more than one word, weights only where a network has several, others only where labels are alike. */
  function telling(rows) {
    const several = (columns) => new Set(rows.map((row) => columns.map((column) => id(column, row)).join("\n"))).size;
    const open = ["metric", "setting", "dataset", "backbone", "seed"].filter((column) => several([column]) > 1);
    if (several(["backbone", "weights"]) > several(["backbone"])) open.push("weights");
    const labels = () => new Set(rows.map((row) => [who(row), ...open.map((column) => printed(column, row))].join("\n"))).size;
    for (const column of ["paper", "protocol", "recipe", "run"]) // rows that still read alike
      if (labels() < rows.length && several([...open, column]) > several(open)) open.push(column);
    return open;
  }

  /* ---- the table */

  const cells = (row) => [
    who(row), printed("metric", row), printed("setting", row), { text: fixed("value", row), number: number("value", row) }, interval(row), number("n", row),
    { text: printed("run", row), html: `<a href="${told[id("run", row)]}">${printed("run", row)}</a>` },
    ...["dataset", "backbone", "weights", "seed", "protocol", "recipe", "paper"].map((column) => printed(column, row)),
    number("p_holm", row) ?? "",
  ];
  const heads = [...Object.values(titles), "p (Holm)"];

  async function list() {
    opened ??= opens(window.TABLES).text() // an ES module, which a page on a disk may not import by its name
      .then((source) => import(URL.createObjectURL(new Blob([source], { type: "text/javascript" }))));
    const { jQuery } = await opened;
    table ??= jQuery(find("table")).DataTable({
      columns: heads.map((title) => ({ title })), data: [], pageLength: 25, lengthMenu: [10, 25, 100, 1000], order: [], deferRender: true,
      autoWidth: false, layout: { topStart: "pageLength", topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
      columnDefs: [{ targets: 3, type: "num", render: { _: "text", sort: "number" } }, { targets: [3, 5, 14], className: "dt-right" },
        { targets: 6, render: { _: "text", display: "html" } }],
    });
    if (!find(".dt-layout-table").dataset.name) window.watchFrame(find(".dt-layout-table"), "Table that scrolls sideways: the rows");
    table.column(14).visible(wanted.kind === "differences");
    table.clear().rows.add(found.map(cells)).draw();
  }

  function save() {
    const quote = (cell) => `"${String(cell.text ?? cell).replaceAll('"', '""')}"`;
    const lines = [heads, ...found.map(cells)].map((line) => line.map(quote).join(","));
    const link = Object.assign(document.createElement("a"), { download: "cam-results.csv" });
    link.href = URL.createObjectURL(new Blob(["\ufeff" + lines.join("\n")], { type: "text/csv" }));
    link.click();
  }

  /* The folders of the runs that the rows come from, where there are few. */
  function from() {
    const runs = [...new Set(found.map((row) => `results/${printed("run", row)}`))];
    return runs.length && runs.length <= 3 ? `, from ${runs.join(", ")}` : "";
  }

  function show() {
    wanted = asked();
    found = passing();
    filters();
    const all = kinds[wanted.kind].value.length;
    count.textContent = `${found.length.toLocaleString("en")} of ${all.toLocaleString("en")} ${KINDS[wanted.kind]}${from()}`;
    draw();
    list();
  }

  find(".explorer-save button").addEventListener("click", save);
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", show);
  let width = 0;
  new ResizeObserver(() => { if (forest.clientWidth !== width) { width = forest.clientWidth; draw(); } }).observe(forest);
  root.hidden = false;
  show();
});
