// A feature map on a 2-D canvas beside the images of its points: marker = modality, colour = class, lasso, box,
// click, zoom, keys. Put behind scatter.js.
//
// Arrays come as bytes: positions float32, indices int32. The page sends back `selection`
// (which points) and `focus` (whose neighbours; -1: the middle of the selection), and asks for `cards` of scenes.

const PICK = "#0b6bcb";
const SAMPLE = 24; // cards at a time
const NEAR = 12; // pixels: how far from a point a click may be
const READER = "for the reader only: no method sees it";
const TIPS = {
  Lasso: "draw around points; with Shift they are added; a click takes one",
  Box: "draw a rectangle around points; with Shift they are added; a click takes one",
  Move: "drag the map, turn the wheel to zoom",
};
const HUES = { class: "true class (for the reader)", modality: "modality" };
const MAP = "Map of features. Arrow keys walk from point to point, Space selects (with Shift adds), Escape clears.";

function numbers(value, Kind) {
  // a view may begin anywhere in a message: copied to where the numbers are aligned
  return new Kind(value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength));
}

function insidePolygon(x, y, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [a, b] = polygon[i], [c, d] = polygon[j];
    if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) inside = !inside;
  }
  return inside;
}

function insideBox(x, y, [[a, b], [c, d]]) {
  return x >= Math.min(a, c) && x <= Math.max(a, c) && y >= Math.min(b, d) && y <= Math.max(b, d);
}

const sampled = (rows) => rows.length <= SAMPLE ? [...rows]
  : [...rows].sort((a, b) => scatter(a) - scatter(b)).slice(0, SAMPLE).sort((a, b) => a - b);
const scatter = (i) => Math.imul(i + 1, 2654435761) >>> 0; // the same sample each time
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] || "th");

function explorer({ model, el }) {
  const data = model.get("points"), { sets, words } = data;
  const label = numbers(data.columns.label, Int32Array), scene = numbers(data.columns.scene, Int32Array);
  const predicted = Object.fromEntries(words.map((word) => [word, numbers(data.columns[word], Int32Array)]));
  const confidence = Object.fromEntries(words.map((word) => [word, numbers(data.confidence[word], Float32Array)]));
  const total = label.length, everyone = [...label.keys()], columns = { class: label, ...predicted };
  const starts = sets.map((_, k) => sets.slice(0, k).reduce((sum, one) => sum + one.size, 0));
  const setOf = (i) => starts.findLastIndex((start) => start <= i);
  const nameOf = (i) => `${sets[setOf(i)].title} ${i - starts[setOf(i)]}`;
  const classOf = (k) => k < 0 ? "unknown" : (data.classes[k] || `class ${k}`).replaceAll("_", " ");
  const colourOf = (k) => data.colours[k % data.colours.length];
  const partnerTable = numbers(data.partners, Int32Array), most = partnerTable.length / Math.max(total, 1);
  const partners = (i) => [...partnerTable.slice(i * most, (i + 1) * most)];
  const xy = numbers(data.xy, Float32Array), nearTable = numbers(data.near, Int32Array), rank = numbers(data.ranks, Int32Array);
  const wide = nearTable.length / Math.max(total, 1), nearTo = (i) => [...nearTable.slice(i * wide, (i + 1) * wide)];
  const cards = new Map(Object.entries(model.get("cards")).map(([key, text]) => [Number(key), text]));
  const sharp = Math.max(1, window.devicePixelRatio || 1);
  const sprites = new Map(), stale = new Set(), asked = new Set();
  let width = 640, height = model.get("height"), tool = "Lasso", zoom = 1, shift = [0, 0], drag = null;
  let under = -1, pointed = [], screen = new Float32Array(2 * total), selection = [], shown = [];
  let chosen = new Set(), near = [], focus = -1;

  // ---- parts
  const root = make(el, "div", "socketlab-explore");
  const control = (parent, kind, name, text, about = {}) => {
    const outer = text && kind !== "button" ? make(parent, "label", "", text) : parent;
    const part = make(outer, kind, `socketlab-explore-${name}`, kind === "button" ? text : "");
    part.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves its keys alone
    if (outer !== parent) part.setAttribute("aria-label", text);
    return Object.assign(part, kind === "button" ? { type: "button" } : {}, about);
  };
  const fill = (select, options) => select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  const bar = make(root, "div", "socketlab-explore-bar"), row = make(root, "div", "socketlab-explore-bar");
  make(bar, "b", "", data.view);
  const hue = control(bar, "select", "hue", "colour by");
  const links = control(bar, "input", "links", "join pairs", { type: "checkbox" });
  const kind = control(bar, "select", "class", "select class"), by = control(bar, "select", "by", "by");
  const set = control(row, "select", "set", "select point of");
  const number = control(row, "input", "number", "", { type: "number", min: 0, value: 0 });
  number.setAttribute("aria-label", "number of the point");
  const pair = make(root, "div", "socketlab-explore-pair"), left = make(pair, "div", ""), side = make(pair, "div", "");
  const tools = make(left, "div", "socketlab-explore-tools"), stage = make(left, "div", "socketlab-explore-stage");
  const [base, picked, over] = ["base", "picked", "over"].map((name) => make(stage, "canvas", `socketlab-map-${name}`));
  const hint = make(stage, "div", "socketlab-explore-hint"), legend = make(left, "div", "socketlab-explore-legend");
  const headline = make(side, "div", "socketlab-explore-headline"), pictures = make(side, "div", "socketlab-explore-cards");
  const below = make(root, "div", "socketlab-explore-below");
  const counts = make(below, "div", "socketlab-explore-counts"), nearby = make(below, "div", "socketlab-explore-near");
  const spoken = make(root, "div", "socketlab-explore-spoken");
  for (const part of [headline, spoken]) part.setAttribute("role", "status");
  Object.assign(over, { tabIndex: 0 }).dataset.lmSuppressShortcuts = "true";
  over.setAttribute("role", "application");
  over.setAttribute("aria-roledescription", "map of points");
  hint.hidden = true;
  stage.style.height = `${height}px`;
  const [pen, front, top] = [base, picked, over].map((canvas) => canvas.getContext("2d"));
  const ink = () => getComputedStyle(root).color, paper = () => getComputedStyle(stage).backgroundColor;

  // ---- where points are, in pixels
  function place() {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < xy.length; i += 2) {
      x0 = Math.min(x0, xy[i]); x1 = Math.max(x1, xy[i]);
      y0 = Math.min(y0, xy[i + 1]); y1 = Math.max(y1, xy[i + 1]);
    }
    const margin = 18, wide = width - 2 * margin, high = height - 2 * margin;
    for (let i = 0; i < xy.length; i += 2) {
      const u = x1 > x0 ? margin + ((xy[i] - x0) / (x1 - x0)) * wide : width / 2;
      const v = y1 > y0 ? margin + ((y1 - xy[i + 1]) / (y1 - y0)) * high : height / 2;
      screen[i] = u * zoom + shift[0];
      screen[i + 1] = v * zoom + shift[1];
    }
  }
  const at = (i) => [screen[2 * i], screen[2 * i + 1]];

  // ---- drawing
  const radius = () => (total > 4000 ? 3.4 : total > 1200 ? 4 : 5) * Math.min(1.8, Math.sqrt(zoom));
  const tint = (i) => hue.value === "modality" ? sets[setOf(i)].colour
    : columns[hue.value][i] < 0 ? sets[setOf(i)].pale : colourOf(columns[hue.value][i]);

  function stamp(brush, i) {
    const { marker } = sets[setOf(i)], colour = tint(i), size = radius(), key = `${marker} ${colour} ${size}`;
    if (!sprites.has(key)) {
      const dot = document.createElement("canvas"), stroke = dot.getContext("2d");
      dot.width = dot.height = Math.ceil((2 * 1.3 * size + 3) * sharp);
      stroke.scale(sharp, sharp);
      trace(stroke, marker, dot.width / sharp / 2, dot.width / sharp / 2, size);
      Object.assign(stroke, { fillStyle: colour, strokeStyle: paper(), lineWidth: 0.7 });
      stroke.fill();
      stroke.stroke();
      sprites.set(key, dot);
    }
    const dot = sprites.get(key), half = dot.width / sharp / 2, [x, y] = at(i);
    brush.drawImage(dot, x - half, y - half, 2 * half, 2 * half);
  }

  function join(brush, lines, colour, thick) {
    brush.beginPath();
    for (const [i, j] of lines) { brush.moveTo(...at(i)); brush.lineTo(...at(j)); }
    Object.assign(brush, { strokeStyle: colour, lineWidth: thick });
    brush.stroke();
  }

  function circle(i, size, colour, thick) {
    top.beginPath();
    top.arc(...at(i), size, 0, 7);
    Object.assign(top, { strokeStyle: colour, lineWidth: thick });
    top.stroke();
  }

  const layers = {
    points() {
      pen.clearRect(0, 0, width, height);
      const lines = [];
      if (links.checked) for (let i = 0; i < total; i++) for (const j of partners(i)) if (i < j) lines.push([i, j]);
      join(pen, lines, "rgba(120,130,140,.35)", 0.7);
      pen.globalAlpha = 0.9;
      for (let i = 0; i < total; i++) stamp(pen, i);
      pen.globalAlpha = 1;
    },
    picked() { // the others stay as they are and turn pale together
      front.clearRect(0, 0, width, height);
      for (const i of selection) stamp(front, i);
      base.style.opacity = selection.length ? 0.25 : 1;
    },
    over() {
      top.clearRect(0, 0, width, height);
      const size = radius(), dark = ink(), lit = under >= 0 ? [under, ...partners(under)] : pointed;
      for (const i of shown) circle(i, size + 2, dark, 1);
      if (focus >= 0) {
        join(top, near.map((i) => [focus, i]), PICK, 1);
        for (const i of near) circle(i, size + 3, PICK, 1.4);
        circle(focus, size + 5, PICK, 2.6);
      }
      join(top, lit.slice(1).map((j) => [lit[0], j]), dark, 1.6);
      for (const i of lit) circle(i, size + 4, dark, 2);
      if (!drag || tool === "Move") return;
      top.beginPath();
      if (tool === "Box") top.rect(...drag.path[0], ...drag.path[1].map((v, k) => v - drag.path[0][k]));
      else drag.path.forEach((p) => top.lineTo(...p));
      top.closePath();
      Object.assign(top, { fillStyle: "rgba(11,107,203,.12)", strokeStyle: PICK, lineWidth: 1.5 });
      top.fill();
      top.stroke();
    },
  };
  function paint(...names) { // once per frame, however many messages arrive
    if (!stale.size) requestAnimationFrame(() => {
      const now = [...stale];
      stale.clear();
      for (const name of Object.keys(layers)) if (now.includes(name)) layers[name]();
    });
    names.forEach((name) => stale.add(name));
  }
  function redraw() {
    place();
    paint("points", "picked", "over");
  }

  // ---- choosing
  function choose(found, adding = false, centre = -1) {
    const all = [...new Set([...(adding ? selection : []), ...found])].sort((a, b) => a - b);
    model.set("focus", centre);
    model.set("selection", new DataView(Int32Array.from(all).buffer));
    model.save_changes();
  }
  function nearest(x, y) {
    let best = -1, least = NEAR * NEAR;
    for (let i = 0; i < total; i++) {
      const d = (screen[2 * i] - x) ** 2 + (screen[2 * i + 1] - y) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  }
  function enclosed() {
    const test = tool === "Box" ? insideBox : insidePolygon;
    return everyone.filter((i) => test(...at(i), drag.path));
  }
  function middle(rows) { // the one nearest to the middle of all
    const sum = (k) => rows.reduce((all, i) => all + xy[2 * i + k], 0) / rows.length, [x, y] = [sum(0), sum(1)];
    const away = (i) => (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
    return rows.length ? rows.reduce((a, b) => (away(b) < away(a) ? b : a)) : -1;
  }
  const random = (count) => {
    const left = [...everyone];
    return Array.from({ length: Math.min(count, total) }, () => left.splice(Math.random() * left.length, 1)[0]);
  };

  const mouse = (event) => {
    const frame = over.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    over.setPointerCapture(event.pointerId);
    const start = mouse(event);
    drag = { start, path: tool === "Box" ? [start, start] : [start], far: false, shift };
    hover(-1);
  });
  over.addEventListener("pointermove", (event) => {
    const [x, y] = mouse(event);
    if (!drag) return hover(nearest(x, y));
    drag.far ||= Math.hypot(x - drag.start[0], y - drag.start[1]) > 4;
    if (tool === "Move") {
      shift = [drag.shift[0] + x - drag.start[0], drag.shift[1] + y - drag.start[1]];
      return redraw();
    }
    const last = drag.path[drag.path.length - 1];
    if (tool === "Box") drag.path[1] = [x, y];
    else if (Math.hypot(x - last[0], y - last[1]) > 3) drag.path.push([x, y]);
    paint("over");
  });
  over.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const point = nearest(...drag.start);
    if (!drag.far) choose(point < 0 ? [] : [point], event.shiftKey);
    else if (tool !== "Move") choose(enclosed(), event.shiftKey);
    drag = null;
    paint("over");
  });
  over.addEventListener("pointercancel", () => { drag = null; paint("over"); });
  over.addEventListener("pointerleave", () => { if (!drag) hover(-1); });
  over.addEventListener("blur", () => hover(-1));
  over.addEventListener("wheel", (event) => {
    if (tool !== "Move" && !event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), mouse(event));
  }, { passive: false });

  // ---- keys: from point to point
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function beside(from, [u, v]) { // the nearest point within 45 degrees of a direction
    const [x, y] = at(from);
    let best = from, least = Infinity;
    for (let i = 0; i < total; i++) {
      const [p, q] = [screen[2 * i] - x, screen[2 * i + 1] - y], along = p * u + q * v, across = Math.abs(p * v - q * u);
      if (along > 0 && across <= along && along + 2 * across < least) [best, least] = [i, along + 2 * across];
    }
    return best;
  }
  over.addEventListener("keydown", (event) => {
    if (STEPS[event.key]) {
      hover(under < 0 ? (focus >= 0 ? focus : middle(everyone)) : beside(under, STEPS[event.key]));
      const known = label[under] >= 0 ? `, ${classOf(label[under])}` : "";
      const guesses = words.filter((word) => predicted[word][under] >= 0)
        .map((word) => `, predicted ${word} ${classOf(predicted[word][under])}`).join("");
      spoken.textContent = nameOf(under) + known + guesses;
    } else if ((event.key === " " || event.key === "Enter") && under >= 0) choose([under], event.shiftKey);
    else if (event.key === "Escape") choose([]);
    else if (event.key === "+" || event.key === "-") zoomBy(event.key === "+" ? 1.5 : 1 / 1.5, under < 0 ? undefined : at(under));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function hover(found) {
    if (found === under) return;
    under = found;
    over.style.cursor = under >= 0 ? "pointer" : tool === "Move" ? "grab" : "crosshair";
    hint.hidden = under < 0;
    if (under >= 0) { tip(); request([scene[under]]); }
    paint("over");
  }
  function tip() { // the card of the point under the mouse
    const [x, y] = at(under);
    hint.replaceChildren(nameOf(under), ...[cardOf(scene[under], [under])].filter(Boolean));
    const side = x > width / 2 ? ["right", width - x] : ["left", x], end = y > height / 2 ? ["bottom", height - y] : ["top", y];
    hint.style.inset = "auto";
    for (const [edge, away] of [side, end]) hint.style[edge] = `${away + 14}px`;
  }

  // ---- cards: HTML that Python made and escaped
  function request(scenes) {
    const missing = [...new Set(scenes)].filter((one) => !cards.has(one) && !asked.has(one));
    missing.forEach((one) => asked.add(one));
    if (missing.length) model.send({ cards: missing });
  }
  function cardOf(one, framed) {
    if (!cards.has(one)) return null;
    const holder = document.createElement("template");
    holder.innerHTML = cards.get(one);
    const part = holder.content.firstElementChild, figures = [...part.querySelectorAll("[data-point]")];
    part.dataset.points = figures.map((f) => f.dataset.point).join(",");
    for (const f of figures) f.classList.toggle("chosen", framed.includes(Number(f.dataset.point)));
    part.classList.toggle("focus", framed.includes(focus));
    Object.assign(part, { tabIndex: 0 }).dataset.lmSuppressShortcuts = "true";
    return part;
  }
  function cardsIn(box, groups) { // [[scene, points to frame]]
    request(groups.map(([one]) => one));
    box.replaceChildren(...groups.map(([one, framed]) => cardOf(one, framed)).filter(Boolean));
  }
  const pointsOf = (event) => {
    const found = event.target instanceof Element && event.target.closest(".socketlab-card");
    return found ? found.dataset.points.split(",").map(Number) : [];
  };
  root.addEventListener("mouseover", (event) => {
    const next = pointsOf(event);
    if (String(next) !== String(pointed)) { pointed = next; paint("over"); }
  });
  const ask = (event) => {
    const points = pointsOf(event);
    if (!points.length || hint.contains(event.target)) return;
    model.set("focus", points.find((i) => chosen.has(i)) ?? points[0]);
    model.save_changes();
  };
  root.addEventListener("click", ask);
  root.addEventListener("keydown", (event) => { if (event.key === "Enter") ask(event); });

  // ---- what stands beside the map
  const pictureBox = make(pictures, "div", "socketlab-cards"), nearHead = make(nearby, "p", "");
  const nearBox = make(nearby, "div", "socketlab-cards");
  for (const box of [pictureBox, nearBox]) box.setAttribute("role", "list");

  function tellSelection() {
    const groups = new Map();
    for (const i of shown) groups.set(scene[i], [...(groups.get(scene[i]) || []), i]);
    cardsIn(pictureBox, [...groups]);
    const parts = sets.map((one, k) => [selection.filter((i) => setOf(i) === k).length, one.title]);
    const listed = parts.filter(([count]) => count).map(([count, title]) => `${count} ${title}`).join(", ");
    const sample = shown.length < selection.length ? `; images of ${shown.length} of them, drawn at random` : "";
    headline.textContent = selection.length ? `${plural(selection.length, "point")} selected (${listed})${sample}.`
      : "Nothing is selected: draw around points, or use the controls.";
    count();
  }
  function count() { // how many of the selected points are of each class
    counts.replaceChildren();
    const names = Object.keys(columns).filter((name) => name !== "class" || data.hues.includes("class"));
    if (!names.length || !selection.length) return;
    const table = make(counts, "table", ""), head = make(table, "tr", "");
    for (const name of ["class", ...names])
      make(head, "th", "", name === "class" && head.children.length ? "true*" : name === "class" ? name : `predicted ${name}`);
    const seen = [...new Set(names.flatMap((name) => selection.map((i) => columns[name][i])))].sort((a, b) => a - b);
    for (const k of [...seen.filter((one) => one >= 0), ...seen.filter((one) => one < 0)]) {
      const line = make(table, "tr", ""), cell = make(line, "td", "");
      make(cell, "span", "", "● ").style.color = k < 0 ? "gray" : colourOf(k);
      cell.append(k < 0 ? "none" : classOf(k));
      for (const name of names) make(line, "td", "", selection.filter((i) => columns[name][i] === k).length || "");
    }
    if (names.includes("class")) make(counts, "small", "", `* ${READER}`);
  }
  function tellFocus() {
    focus = model.get("focus") >= 0 ? model.get("focus") : middle(selection);
    near = focus < 0 ? [] : nearTo(focus);
    cardsIn(nearBox, focus < 0 ? [] : [focus, ...near].map((i) => [scene[i], [i]]));
    nearHead.replaceChildren();
    if (focus < 0) return;
    const others = near.filter((i) => sets[setOf(i)].short !== sets[setOf(focus)].short).length, k = setOf(focus);
    make(nearHead, "b", "", `Nearest ${data.in_features ? "in feature space" : "on this map"}`);
    const mixed = new Set(sets.map((one) => one.short)).size > 1 ? ` ${others} of these ${near.length} are of another modality.` : "";
    const ends = partners(focus).map((j, n) => ` Its partner in ${sets[setOf(j)].title} is the ${ordinal(rank[focus * most + n])} nearest of ${total - 1}.`);
    nearHead.append(` to point ${focus - starts[k]} of ${sets[k].title} (blue frame).${mixed}${ends.join("")}`);
  }

  // ---- controls
  const send = (name, value) => { model.set(name, value); model.save_changes(); };
  const hueName = (name) => HUES[name] || `class predicted ${name}`;
  fill(hue, data.hues.map((name) => [name, hueName(name)]));
  fill(kind, [["", "…"], ...data.classes.map((name, k) => [k, name.replaceAll("_", " ")])]);
  fill(by, data.hues.filter((name) => name !== "modality").map((name) => [name, hueName(name)]));
  fill(set, sets.map((one, k) => [k, one.title]));
  for (const part of [kind, by]) part.parentNode.hidden = !data.classes.length || !by.length;
  hue.onchange = () => send("hue", hue.value);
  links.onchange = () => send("links", links.checked);
  kind.onchange = by.onchange = () => {
    if (kind.value) choose(everyone.filter((i) => columns[by.value][i] === Number(kind.value)));
  };
  set.onchange = () => { number.max = sets[set.value].size - 1; };
  set.onchange();
  const point = () => starts[set.value] + Math.min(Math.max(0, Math.round(number.value)), sets[set.value].size - 1);
  const button = (parent, name, text, tip, act) => control(parent, "button", name, text, { title: tip, onclick: act });
  button(row, "select", "Select", "this point alone", () => choose([point()]));
  button(row, "nearest", "With nearest", "this point and its nearest neighbours", () => choose([point(), ...nearTo(point())], false, point()));
  button(row, "next", "Next", "the point with the next number", () => {
    number.value = (Number(number.value) + 1) % sets[set.value].size;
    choose([point()]);
  });
  button(row, "random", "Random", `${SAMPLE} points at random`, () => choose(random(SAMPLE)));
  button(row, "nothing", "Clear", "select nothing", () => choose([]));
  const toolButtons = Object.keys(TIPS).map((name) => button(tools, name.toLowerCase(), name, TIPS[name], () => take(name)));
  function take(name) {
    tool = name;
    for (const one of toolButtons) one.setAttribute("aria-pressed", one.textContent === name);
    over.style.cursor = name === "Move" ? "grab" : "crosshair";
  }
  function zoomBy(factor, centre = [width / 2, height / 2]) {
    const next = Math.min(40, Math.max(1, zoom * factor));
    shift = next === 1 ? [0, 0] : shift.map((s, k) => centre[k] - ((centre[k] - s) * next) / zoom);
    zoom = next;
    redraw();
  }
  for (const [name, text, tip, factor] of [["in", "+", "zoom in", 1.5], ["out", "−", "zoom out", 1 / 1.5], ["fit", "Fit", "show the whole map", 0]])
    button(tools, name, text, tip, () => zoomBy(factor)).setAttribute("aria-label", tip);

  // ---- what changes from elsewhere
  function recolour() {
    hue.value = model.get("hue");
    sprites.clear();
    const marks = sets.map((one) => ({ marker: one.marker, text: one.title, colour: hue.value === "modality" ? one.colour : "gray" }));
    const kinds = hue.value === "modality" ? [] : data.classes.map((_, k) => ({ marker: "o", colour: colourOf(k), text: classOf(k) }));
    legendOf(legend, [...marks, ...kinds]);
    const listed = sets.map((one) => `${one.size} ${one.title}`).join(", ");
    over.setAttribute("aria-label", `${MAP} ${listed}; coloured by ${hueName(hue.value)}.`);
  }
  function reselect() {
    selection = [...numbers(model.get("selection"), Int32Array)];
    [chosen, shown] = [new Set(selection), sampled(selection)];
    tellSelection();
    tellFocus();
    paint("picked", "over");
  }
  function receive(content) {
    for (const [key, text] of Object.entries(content.cards || {})) cards.set(Number(key), text);
    if (content.cards) { tellSelection(); tellFocus(); if (under >= 0) tip(); paint("over"); }
  }
  const events = {
    "change:hue": () => { recolour(); paint("points", "picked"); },
    "change:links": () => { links.checked = model.get("links"); paint("points"); },
    "change:selection": reselect,
    "change:focus": () => { tellFocus(); tellSelection(); paint("over"); },
    "msg:custom": receive,
  };
  for (const [name, act] of Object.entries(events)) model.on(name, act);
  const resized = new ResizeObserver(() => {
    if (!stage.clientWidth) return;
    [width, height] = [stage.clientWidth, stage.clientHeight];
    for (const canvas of [base, picked, over]) {
      Object.assign(canvas, { width: width * sharp, height: height * sharp });
      canvas.getContext("2d").scale(sharp, sharp);
    }
    redraw();
  });
  const themed = new MutationObserver(() => { sprites.clear(); redraw(); });

  recolour();
  take("Lasso");
  links.checked = model.get("links");
  reselect();
  resized.observe(stage);
  themed.observe(document.body, { attributes: true });
  return () => {
    resized.disconnect();
    themed.disconnect();
    for (const [name, act] of Object.entries(events)) model.off(name, act);
  };
}

export default { render: explorer };
