"use strict";

// Tables: a button in each column header sorts the rows, numbers by value and words by the alphabet.
const SECONDS = {ms: 0.001, s: 1, m: 60, h: 3600};

function sortValue(cell) {
  const text = cell.textContent.replaceAll(",", "").replaceAll("\u2212", "-").trim();
  const durations = [...text.matchAll(/([\d.]+) (ms|s|m|h)\b/g)];
  if (durations.length) return durations.reduce((sum, [, number, unit]) => sum + number * SECONDS[unit], 0);
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
}

function compareValues(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === typeof b) return a.localeCompare(b, undefined, {numeric: true});
  return typeof a === "number" ? -1 : 1; // words, such as the dash of a missing number, after numbers
}

for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0];
  if (body.rows.length < 3) continue;
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    if (column > 0 && !header.classList.contains("r")) return; // sentences are not sorted
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [sortValue(row.cells[column]), row]);
      keyed.sort(([a], [b]) => (ascending ? compareValues(a, b) : compareValues(b, a)));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// Matrices: long names of columns stand upright.
for (const matrix of document.querySelectorAll("table.matrix")) {
  const names = [...matrix.querySelectorAll("thead th")].map((header) => header.textContent);
  if (Math.max(...names.map((name) => name.length)) > 4) matrix.classList.add("tall");
}

// Small pictures are enlarged without blur.
for (const image of document.querySelectorAll(".photo img")) {
  const mark = () => image.classList.toggle("small", image.naturalWidth < 64);
  if (image.complete) mark(); else image.addEventListener("load", mark);
}

// Scatter plots: the image of the point that is nearest to the pointer, or the next one with the arrow keys.
const tip = document.getElementById("tip");
const REACH = 12; // pixels around a point

for (const script of document.querySelectorAll("script.points")) {
  const points = JSON.parse(script.textContent);
  const chart = script.parentElement.querySelector("svg.chart");
  const marks = [...chart.querySelectorAll("[id^=points-] use")];
  let selected = -1;

  const hide = () => {
    marks[selected]?.classList.remove("selected");
    selected = -1;
    tip.hidden = true;
  };

  const show = (index) => {
    hide();
    selected = index;
    marks[index].classList.add("selected");
    const box = marks[index].getBoundingClientRect();
    const [width, height] = points.size;
    const zoom = Math.max(1, Math.floor(96 / Math.max(width, height)));
    const place = points.position[index];
    const image = document.createElement("div");
    image.className = "image";
    Object.assign(image.style, {
      width: `${width * zoom}px`,
      height: `${height * zoom}px`,
      backgroundImage: `url(${points.sprite})`,
      backgroundSize: `${points.columns * width * zoom}px auto`,
      backgroundPosition: `${-(place % points.columns) * width * zoom}px ${-Math.floor(place / points.columns) * height * zoom}px`,
    });
    tip.replaceChildren(image, points.labels[index]);
    tip.hidden = false;
    const left = Math.min(box.right + 8, innerWidth - tip.offsetWidth - 8);
    const top = Math.min(box.bottom + 8, innerHeight - tip.offsetHeight - 8);
    Object.assign(tip.style, {left: `${Math.max(8, left)}px`, top: `${Math.max(8, top)}px`});
  };

  const nearest = (x, y) => {
    let best = -1;
    let smallest = REACH ** 2;
    marks.forEach((mark, index) => {
      const box = mark.getBoundingClientRect();
      const distance = (box.x + box.width / 2 - x) ** 2 + (box.y + box.height / 2 - y) ** 2;
      if (distance < smallest) [best, smallest] = [index, distance];
    });
    return best;
  };

  chart.addEventListener("pointermove", (event) => {
    const index = nearest(event.clientX, event.clientY);
    if (index < 0) hide(); else if (index !== selected) show(index);
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    show((selected + step + marks.length) % marks.length);
  });
}
