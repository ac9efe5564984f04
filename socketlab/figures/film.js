// Features of every epoch in one fixed map: a timeline moves the points, accuracy and confusion follow its hand.
// Plain 2-D canvas. A widget in Jupyter (the trait `film`), and alone in a page (JSON inside the element).

const CSS = `
.socketlab-film { container-type: inline-size; font-size: 14px; line-height: 1.35; }
.socketlab-film-stage { display: grid; gap: 6px 14px; grid-template-columns: minmax(0, 1fr); }
@container (min-width: 620px) { .socketlab-film-stage.two { grid-template-columns: minmax(0, 2.2fr) minmax(0, 1fr); } }
.socketlab-film canvas { display: block; width: 100%; }
.socketlab-film-map { aspect-ratio: 4 / 3; max-height: 78vh; }
.socketlab-film-side { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
.socketlab-film-accuracy { aspect-ratio: 5 / 3; cursor: ew-resize; touch-action: none; }
.socketlab-film-confusion { aspect-ratio: 1; max-width: 340px; }
.socketlab-film-bar { display: flex; align-items: center; gap: 10px; margin: 6px 0; }
.socketlab-film-bar input { flex: 1; min-width: 120px; height: 28px; accent-color: #0b6bcb; }
.socketlab-film-bar button { font: inherit; min-width: 5.5em; padding: 4px 10px; cursor: pointer; color: inherit;
  background: transparent; border: 1px solid currentColor; border-radius: 4px; }
.socketlab-film-status { min-height: 1.4em; font-variant-numeric: tabular-nums; }
.socketlab-film-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; }
.socketlab-film .socketlab-legend-line { display: inline-flex; align-items: center; gap: 5px; }
.socketlab-film .socketlab-legend-line canvas { width: 14px; height: 14px; }`;

const FRAME_MS = 600; // from one epoch to the next, when it plays
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function decoded(text, [[x0, y0], [x1, y1]]) { // base64 of uint16 pairs, in parts of the map -> the map's numbers
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), (v, i) =>
    i % 2 ? y0 + ((y1 - y0) * v) / 65535 : x0 + ((x1 - x0) * v) / 65535);
}

function mixed(colours, share) { // three colours "#rrggbb" at 0, 1/2 and 1
  const k = share < 0.5 ? 0 : 1, t = 2 * share - k;
  const part = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(part(colours[k], i) * (1 - t) + part(colours[k + 1], i) * t))})`;
}

function median(values) {
  const sorted = Float32Array.from(values).sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function film(el, data) {
  const root = make(el, "div", "socketlab-film");
  make(root, "style", "", CSS);
  const stage = make(root, "div", "socketlab-film-stage");
  const left = make(stage, "div", ""), side = make(stage, "div", "socketlab-film-side");
  const map = make(left, "canvas", "socketlab-film-map");
  const bar = make(left, "div", "socketlab-film-bar");
  const button = make(bar, "button", "socketlab-film-play");
  const hand = make(bar, "input", "socketlab-film-hand");
  const status = make(left, "div", "socketlab-film-status");
  const curve = make(side, "canvas", "socketlab-film-accuracy");
  const table = make(side, "canvas", "socketlab-film-confusion");
  const legend = make(root, "div", "socketlab-film-legend");
  for (const part of [button, hand]) part.setAttribute("data-lm-suppress-shortcuts", "true");
  for (const part of [map, curve, table]) part.setAttribute("role", "img");
  Object.assign(hand, { type: "range", min: 0, step: "any" });
  hand.setAttribute("aria-label", "epoch");
  button.type = "button";
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let frames, last, at = 0, playing = 0, going = null;

  // ---- what is shown
  function take(next) {
    const followed = frames === undefined || at >= last;
    data = next;
    frames = data.positions.map((text) => decoded(text, data.limits));
    last = frames.length - 1;
    Object.assign(hand, { max: Math.max(last, 0), disabled: last < 1 });
    button.disabled = last < 1;
    side.hidden = !data.accuracy && !data.confusion;
    stage.classList.toggle("two", !side.hidden);
    curve.hidden = !data.accuracy;
    table.hidden = !data.confusion;
    legendOf(legend, data.legend);
    if (followed && data.live && last > 0 && !calm) { at = Math.max(last - 1, 0); travel(last); }
    else go(data.live && followed ? last : Math.min(at, last));
  }

  function points() { // between two epochs, on the straight line from one place to the next
    const k = Math.min(Math.floor(at), last), t = at - k;
    return t ? frames[k].map((v, i) => v + (frames[k + 1][i] - v) * t) : frames[k];
  }

  function go(place) {
    at = Math.max(0, Math.min(last, place));
    hand.value = at;
    if (going === null) going = requestAnimationFrame(() => { going = null; draw(); });
  }

  function travel(goal) { // to `goal`, an epoch in FRAME_MS
    const mine = ++playing, from = at, begun = performance.now();
    const step = (now) => {
      if (mine !== playing) return;
      const passed = (now - begun) / FRAME_MS;
      go(Math.min(goal, from + (calm ? Math.floor(passed) : passed)));
      if (at < goal) requestAnimationFrame(step); else stop();
    };
    button.textContent = "Pause";
    requestAnimationFrame(step);
  }

  function stop() {
    playing++;
    button.textContent = "Play";
  }

  // ---- drawing
  function paper(canvas) {
    const sharp = Math.max(1, window.devicePixelRatio || 1), { width, height } = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(width * sharp));
    canvas.height = Math.max(1, Math.round(height * sharp));
    const pen = canvas.getContext("2d"), look = getComputedStyle(root);
    pen.scale(sharp, sharp);
    pen.font = `13px ${look.fontFamily}`;
    return { pen, width, height, ink: look.color };
  }

  function draw() {
    if (!frames || last < 0 || !root.isConnected) return;
    const xy = points(), k = Math.round(at), middle = drawMap(xy);
    const words = [data.titles[k]];
    if (data.accuracy) { words.push(`${percent(data.accuracy[k])} right`); drawCurve(k); }
    if (middle !== null) words.push(`median line between partners ${percent(middle)} of the map's diagonal`);
    if (data.confusion) drawTable(k);
    status.textContent = words.join(" · ");
    hand.setAttribute("aria-valuetext", words.join(", "));
    map.setAttribute("aria-label", `Map of features (principal components): ${words.join(", ")}`);
  }

  function drawMap(xy) {
    const { pen, width, height, ink } = paper(map), [[x0, y0], [x1, y1]] = data.limits, pad = 12;
    const u = (i) => pad + ((xy[2 * i] - x0) / (x1 - x0)) * (width - 2 * pad);
    const v = (i) => pad + ((y1 - xy[2 * i + 1]) / (y1 - y0)) * (height - 2 * pad);
    Object.assign(pen, { strokeStyle: ink, globalAlpha: 0.25, lineWidth: 1 });
    pen.strokeRect(0.5, 0.5, width - 1, height - 1);
    const diagonal = Math.hypot(x1 - x0, y1 - y0);
    const lines = data.partners.map(([i, j]) => [i, j, Math.hypot(xy[2 * i] - xy[2 * j], xy[2 * i + 1] - xy[2 * j + 1]) / diagonal]);
    Object.assign(pen, { globalAlpha: 0.8, lineWidth: 1.3 });
    for (const [i, j, length] of [...lines].sort((a, b) => a[2] - b[2])) { // the longest on top
      pen.beginPath();
      pen.moveTo(u(i), v(i));
      pen.lineTo(u(j), v(j));
      pen.strokeStyle = mixed(data.link_colours, Math.min(1, length / data.long_link));
      pen.stroke();
    }
    const size = Math.max(2.6, Math.min(5, width / 150)), places = {};
    Object.assign(pen, { globalAlpha: 0.9, lineWidth: 0.7, strokeStyle: "rgba(255,255,255,.7)" });
    for (const { start, count, marker, colour } of data.groups)
      for (let i = start; i < start + count; i++) {
        const label = data.labels[i];
        trace(pen, marker, u(i), v(i), size);
        pen.fillStyle = label < 0 ? colour : data.class_colours[label];
        pen.fill();
        pen.stroke();
        if (label >= 0) (places[label] ||= []).push([u(i), v(i)]);
      }
    if (data.marks) writeMarks(pen, places);
    return lines.length ? median(lines.map((line) => line[2])) : null;
  }

  function writeMarks(pen, places) {
    Object.assign(pen, { globalAlpha: 1, lineWidth: 4, textAlign: "center", textBaseline: "middle", lineJoin: "round" });
    pen.font = `bold ${pen.font}`;
    for (const [label, own] of Object.entries(places)) {
      const [x, y] = [0, 1].map((k) => median(own.map((place) => place[k])));
      Object.assign(pen, { strokeStyle: "white", fillStyle: data.class_colours[label] });
      pen.strokeText(data.marks[label], x, y);
      pen.fillText(data.marks[label], x, y);
    }
  }

  function drawCurve(k) {
    const { pen, width, height, ink } = paper(curve), low = 18, high = height - 22, start = 48, end = width - 10;
    const u = (i) => start + (last ? i / last : 0) * (end - start), v = (share) => high - share * (high - low);
    Object.assign(pen, { fillStyle: ink, strokeStyle: ink, textBaseline: "middle", textAlign: "right", lineWidth: 1 });
    for (const share of [0, 0.5, 1]) {
      pen.fillText(`${100 * share} %`, start - 6, v(share));
      Object.assign(pen, { globalAlpha: 0.2 });
      pen.strokeRect(start, v(share), end - start, 0);
      pen.globalAlpha = 1;
    }
    Object.assign(pen, { textAlign: "left" });
    pen.fillText("accuracy", start, 7);
    pen.fillText(data.titles[k], start, height - 8);
    pen.beginPath();
    data.accuracy.forEach((share, i) => pen.lineTo(u(i), v(share)));
    Object.assign(pen, { strokeStyle: "#0b6bcb", lineWidth: 2.2 });
    pen.stroke();
    Object.assign(pen, { strokeStyle: ink, lineWidth: 1, globalAlpha: 0.6 });
    pen.strokeRect(u(at), low, 0, high - low);
    Object.assign(pen, { globalAlpha: 1, fillStyle: "#0b6bcb" });
    pen.beginPath();
    pen.arc(u(k), v(data.accuracy[k]), 4.5, 0, 7);
    pen.fill();
    curve.setAttribute("aria-label", `accuracy ${data.accuracy.map(percent).join(", ")}; now ${percent(data.accuracy[k])}`);
  }

  function drawTable(k) { // a row per true class; colours along both sides name the classes
    const { pen, width, ink } = paper(table), counts = data.confusion[k], n = counts.length, edge = 26;
    const cell = (width - edge) / n;
    Object.assign(pen, { textAlign: "center", textBaseline: "middle" });
    counts.forEach((row, i) => {
      const sum = Math.max(1, row.reduce((a, b) => a + b, 0)), y = edge + i * cell;
      pen.fillStyle = data.class_colours[i];
      pen.fillRect(16, y + 1, 8, cell - 2);
      pen.fillRect(y + 1, 16, cell - 2, 8);
      row.forEach((count, j) => {
        const share = count / sum, x = edge + j * cell;
        pen.fillStyle = `rgba(11,107,203,${0.06 + 0.94 * share})`;
        pen.fillRect(x + 0.5, y + 0.5, cell - 1, cell - 1);
        if (!count || cell < 24) return;
        pen.fillStyle = share > 0.55 ? "white" : ink;
        pen.fillText(Math.round(100 * share), x + cell / 2, y + cell / 2);
      });
    });
    pen.fillStyle = ink;
    pen.fillText("prediction", edge + (width - edge) / 2, 7);
    pen.rotate(-Math.PI / 2);
    pen.fillText("true class", -edge - (width - edge) / 2, 7);
    table.setAttribute("aria-label", `Confusion matrix, percent of each true class, ${data.titles[k]}`);
  }

  // ---- hands
  hand.addEventListener("input", () => { stop(); go(Number(hand.value)); });
  hand.addEventListener("keydown", (event) => { // whole epochs, which step="any" does not give
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -Infinity, End: Infinity };
    if (event.key === " ") button.click();
    else if (!(event.key in steps)) return;
    else { stop(); go(Math.round(at) + steps[event.key]); }
    event.preventDefault();
  });
  button.addEventListener("click", () => {
    if (button.textContent === "Pause") return stop();
    if (at >= last) go(0);
    travel(last);
  });
  const scrub = (event) => {
    const { left: edge, width } = curve.getBoundingClientRect();
    stop();
    go(((event.clientX - edge - 48) / (width - 58)) * last);
  };
  curve.addEventListener("pointerdown", (event) => { curve.setPointerCapture(event.pointerId); scrub(event); });
  curve.addEventListener("pointermove", (event) => { if (event.buttons) scrub(event); });

  const watch = new ResizeObserver(() => go(at));
  watch.observe(root);
  stop();
  take(data);
  return { take, leave: () => { stop(); watch.disconnect(); } };
}

function render({ model, el }) {
  const shown = film(el, model.get("film")), change = () => shown.take(model.get("film"));
  model.on("change:film", change);
  return () => { model.off("change:film", change); shown.leave(); };
}

export default { render };
