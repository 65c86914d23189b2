"use strict";
// Sorts and filters the table, and shows the errors. Texts are set as text, never read as HTML; nothing is fetched or kept.
(() => {
  const byId = (id) => document.getElementById(id);
  const MORE = 50;

  const reveal = () => {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Makes the heads of a table buttons; sort(head, sign) puts its lines in order.
  const sortable = (table, sort) => {
    const heads = [...table.querySelectorAll("thead th:not([data-plain])")];
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now ? (now === "ascending" ? "descending" : "ascending") : head.dataset.first || "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", next);
        sort(head, next === "ascending" ? 1 : -1);
      });
    }
  };

  // What has no value stands last, whatever the direction.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };

  const results = byId("results");
  if (results) {
    const body = results.tBodies[0];
    const lines = [...body.rows];
    const value = (line, column) => {
      const cell = line.cells[column];
      if (cell.dataset.value === undefined) return cell.textContent.trim();
      return cell.dataset.value === "" ? null : Number(cell.dataset.value);
    };
    sortable(results, (head, sign) => {
      const column = head.cellIndex;
      body.append(...lines.sort((a, b) => compare(value(a, column), value(b, column), sign)));
    });
    const name = byId("results-name");
    const show = byId("results-show");
    const filter = () => {
      const wanted = name.value.trim().toLowerCase();
      for (const line of lines) {
        const named = line.cells[0].textContent.toLowerCase().includes(wanted);
        line.hidden = !(named && (!show.value || line.dataset.show.split(" ").includes(show.value)));
      }
      byId("results-count").textContent = `${lines.filter((line) => !line.hidden).length} of ${lines.length}`;
    };
    name.addEventListener("input", filter);
    show.addEventListener("change", filter);
    byId("results-controls").hidden = lines.length < 2;
    filter();
  }

  const stored = byId("errors-data");
  if (!stored) return;
  const data = JSON.parse(stored.textContent);
  const control = (name) => byId(`errors-${name}`);
  const chosen = (name) => {
    const found = control(name);
    return found && found.value !== "" ? Number(found.value) : null;
  };
  const heads = [...control("table").querySelectorAll("thead th")];
  const head = (key) => heads.find((one) => one.dataset.key === key);
  const lines = data.examples.map(([text, pair, gold, group], index) => ({ text, pair, gold, group, index }));
  const key = {
    text: (line) => line.text,
    gold: (line) => data.labels[line.gold],
    predicted: (line) => data.labels[line.predicted],
    confidence: (line) => line.confidence,
    other: (line) => (line.other === null ? null : data.labels[line.other]),
    otherConfidence: (line) => line.otherConfidence,
    group: (line) => (line.group === null ? null : data.groups[line.group]),
  };
  const keep = {
    wrong: (line) => line.predicted !== line.gold,
    differ: (line) => line.predicted !== line.other,
    fixed: (line) => line.predicted !== line.gold && line.other === line.gold,
    broken: (line) => line.predicted === line.gold && line.other !== line.gold,
    all: () => true,
  };
  let order = { key: "confidence", sign: -1 };
  let most = MORE;

  const cell = (line, text, name, part) => {
    const made = document.createElement(part || "td");
    made.className = name || "";
    made.dir = "auto";
    made.textContent = text;
    line.append(made);
    return made;
  };
  const label = (line, predicted, gold) => {
    const right = predicted === gold;
    cell(line, "", "text").append(
      Object.assign(document.createElement("bdi"), {
        className: right ? "label gold" : "label",
        textContent: `${right ? "✓" : "✗"} ${data.labels[predicted]}`,
      }),
    );
  };

  const draw = () => {
    const first = chosen("first");
    const second = chosen("second");
    for (const option of control("show").options) option.disabled = second === null && !["wrong", "all"].includes(option.value);
    if (control("show").selectedOptions[0].disabled) control("show").value = "wrong";
    for (const name of ["other", "otherConfidence"]) head(name).hidden = second === null;
    if (second !== null) head("other").firstElementChild.textContent = data.candidates[second];
    const words = control("text").value.trim().toLowerCase();
    const [gold, predicted, group] = ["gold", "predicted", "group"].map(chosen);
    for (const line of lines) {
      line.predicted = data.predicted[first][line.index];
      line.confidence = data.confidence[first][line.index];
      line.other = second === null ? null : data.predicted[second][line.index];
      line.otherConfidence = second === null ? null : data.confidence[second][line.index];
    }
    const found = lines.filter(
      (line) =>
        keep[control("show").value](line) &&
        (gold === null || line.gold === gold) &&
        (predicted === null || line.predicted === predicted) &&
        (group === null || line.group === group) &&
        (!words || `${line.text}\n${line.pair || ""}`.toLowerCase().includes(words)),
    );
    found.sort((a, b) => compare(key[order.key](a), key[order.key](b), order.sign) || a.index - b.index);
    const body = document.createElement("tbody");
    for (const line of found.slice(0, most)) {
      const row = body.insertRow();
      const text = cell(row, line.text, "said", "th");
      text.scope = "row";
      if (line.pair !== null) {
        const pair = document.createElement("span");
        pair.dir = "auto";
        pair.textContent = line.pair;
        text.append(pair);
      }
      cell(row, data.labels[line.gold], "text");
      label(row, line.predicted, line.gold);
      cell(row, `${line.confidence} %`);
      if (second !== null) {
        label(row, line.other, line.gold);
        cell(row, `${line.otherConfidence} %`);
      }
      if (data.groups.length) cell(row, line.group === null ? "–" : data.groups[line.group], "text");
      const shown = heads.filter((one) => !one.hidden);
      for (const one of row.cells) one.dataset.head = shown[one.cellIndex].textContent; // seen on narrow screens
    }
    control("table").tBodies[0].replaceWith(body);
    control("more").hidden = found.length <= most;
    control("count").textContent = `${found.length.toLocaleString("en")} ${found.length === 1 ? "example" : "examples"}${found.length > most ? `, the first ${most} shown` : ""}`;
  };

  sortable(control("table"), (chosenHead, sign) => {
    order = { key: chosenHead.dataset.key, sign };
    draw();
  });
  for (const name of ["first", "second", "show", "gold", "predicted", "group", "text"]) {
    const found = control(name);
    if (!found) continue;
    found.addEventListener("input", () => {
      most = MORE;
      draw();
    });
  }
  control("more").addEventListener("click", () => {
    most += MORE;
    draw();
  });
  control("controls").hidden = control("place").hidden = false;
  draw();
})();
