// A feature map on a 2-D canvas: marker = modality, colour = class, lasso, box, click, zoom. No WebGL.
//
// Python owns the data; the page sends back `selection` (which points) and `focus` (whose neighbours). Numbers
// travel as bytes: `xy` float32 pairs, `marks` and `tints` one byte per point, `scenes`, `selection`, `shown`
// and `neighbours` int32.

const INK = "#24292f", SOFT = "#57606a", FRAME = "#dde1e6", PICK = "#0b6bcb";
const NEAR = 12; // pixels: how far from a point a click may be
const MOVE_MS = 600; // how long points travel to another map
const TOOLS = { lasso: "Lasso", box: "Box", move: "Move" };
const TIPS = {
  lasso: "draw around points; with Shift they are added; a click takes one",
  box: "draw a rectangle around points; with Shift they are added; a click takes one",
  move: "drag the map, turn the wheel to zoom",
};

// ---- shapes: the markers of the pictures, radius 1

const corners = (angles, radius = 1) => angles.map((a) => [radius * Math.sin(a), -radius * Math.cos(a)]);
const ring = (n, turn = 0) => Array.from({ length: n }, (_, i) => turn + (2 * Math.PI * i) / n);
const star = (n) => ring(2 * n).map((a, i) => [Math.sin(a), -Math.cos(a)].map((v) => v * (i % 2 ? 0.45 : 1.25)));
const cross = [[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]];
const SHAPES = {
  s: corners(ring(4, Math.PI / 4), 1.25),
  "^": corners(ring(3), 1.25),
  D: corners(ring(4), 1.25),
  v: corners(ring(3, Math.PI), 1.25),
  P: cross.map(([x, y]) => [x / 2.8, y / 2.8]),
  X: cross.map(([x, y]) => [(x - y) / 3.9, (x + y) / 3.9]),
  "*": star(5),
};

function trace(pen, marker, x, y, radius) {
  pen.beginPath();
  if (!SHAPES[marker]) pen.arc(x, y, radius, 0, 7);
  else SHAPES[marker].forEach(([u, v]) => pen.lineTo(x + radius * u, y + radius * v));
  pen.closePath();
}

// ---- geometry

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

// ---- the page's parts

function make(parent, tag, className, text) {
  const part = document.createElement(tag);
  part.className = className;
  if (text) part.textContent = text;
  parent.append(part);
  return part;
}

function legendOf(parent, entries) {
  parent.replaceChildren();
  for (const { marker, colour, text } of entries) {
    const line = make(parent, "div", "socketlab-legend-line");
    const dot = make(line, "canvas", "");
    dot.width = dot.height = 28;
    const pen = dot.getContext("2d");
    trace(pen, marker, 14, 14, 9);
    pen.fillStyle = colour;
    pen.fill();
    make(line, "span", "", text);
  }
}

function render({ model, el }) {
  const bytes = (name, Kind) => {
    const view = model.get(name); // may begin anywhere in a message: copied to where the numbers are aligned
    return new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  const width = model.get("width"), height = model.get("height"), sharp = Math.max(1, window.devicePixelRatio || 1);

  // ---- parts
  const root = make(el, "div", "socketlab-map");
  root.style.width = `${width}px`;
  const bar = make(root, "div", "socketlab-map-bar");
  const stage = make(root, "div", "socketlab-map-stage");
  Object.assign(stage.style, { width: `${width}px`, height: `${height}px` });
  const [base, picked, over] = ["base", "picked", "over"].map((name) => {
    const canvas = make(stage, "canvas", `socketlab-map-${name}`);
    Object.assign(canvas, { width: width * sharp, height: height * sharp });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    canvas.getContext("2d").scale(sharp, sharp);
    return canvas;
  });
  over.setAttribute("role", "img");
  const [pen, front, top] = [base, picked, over].map((canvas) => canvas.getContext("2d"));
  const hint = make(stage, "div", "socketlab-map-hint");
  const legend = make(root, "div", "socketlab-legend");

  // ---- state
  let tool = "lasso", zoom = 1, shift = [0, 0], drag = null, under = -1, pointed = [], still = 0;
  let xy, marks, tints, scenes, partners, screen, selection;
  const sprites = new Map();

  function readPoints() {
    marks = bytes("marks", Uint8Array);
    scenes = bytes("scenes", Int32Array);
    partners = new Map();
    scenes.forEach((scene, i) => {
      if (scene < 0) return;
      if (!partners.has(scene)) partners.set(scene, []);
      partners.get(scene).push(i);
    });
  }

  function readSelection() {
    selection = bytes("selection", Int32Array);
  }

  // ---- where points are, in pixels
  function place() {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < xy.length; i += 2) {
      x0 = Math.min(x0, xy[i]); x1 = Math.max(x1, xy[i]);
      y0 = Math.min(y0, xy[i + 1]); y1 = Math.max(y1, xy[i + 1]);
    }
    const margin = 18, wide = Math.max(x1 - x0, 1e-9), high = Math.max(y1 - y0, 1e-9);
    screen = new Float32Array(xy.length);
    for (let i = 0; i < xy.length; i += 2) {
      const u = x1 > x0 ? margin + ((xy[i] - x0) / wide) * (width - 2 * margin) : width / 2;
      const v = y1 > y0 ? margin + ((y1 - xy[i + 1]) / high) * (height - 2 * margin) : height / 2;
      screen[i] = u * zoom + shift[0];
      screen[i + 1] = v * zoom + shift[1];
    }
  }

  // ---- drawing
  const radius = () => (marks.length > 4000 ? 3.4 : marks.length > 1200 ? 4 : 5) * Math.min(1.8, Math.sqrt(zoom));

  function sprite(mark, tint) {
    const size = radius(), key = `${mark} ${tint} ${size}`;
    if (!sprites.has(key)) {
      const dot = document.createElement("canvas"), side = Math.ceil((2 * 1.3 * size + 3) * sharp);
      dot.width = dot.height = side;
      const brush = dot.getContext("2d");
      brush.scale(sharp, sharp);
      trace(brush, model.get("markers")[mark], side / sharp / 2, side / sharp / 2, size);
      Object.assign(brush, { fillStyle: model.get("palette")[tint], strokeStyle: "white", lineWidth: 0.7 });
      brush.fill();
      brush.stroke();
      sprites.set(key, dot);
    }
    return sprites.get(key);
  }

  function drawLinks(brush, groups, colour, thick) {
    brush.beginPath();
    for (const group of groups)
      for (let k = 1; k < group.length; k++) {
        brush.moveTo(screen[2 * group[0]], screen[2 * group[0] + 1]);
        brush.lineTo(screen[2 * group[k]], screen[2 * group[k] + 1]);
      }
    Object.assign(brush, { strokeStyle: colour, lineWidth: thick });
    brush.stroke();
  }

  function stamp(brush, i) {
    const dot = sprite(marks[i], tints[i]), half = dot.width / sharp / 2;
    brush.drawImage(dot, screen[2 * i] - half, screen[2 * i + 1] - half, 2 * half, 2 * half);
  }

  const layers = {
    points() {
      pen.clearRect(0, 0, width, height);
      if (model.get("links")) drawLinks(pen, partners.values(), "rgba(120,130,140,.28)", 0.7);
      pen.globalAlpha = 0.9;
      for (let i = 0; i < marks.length; i++) stamp(pen, i);
    },
    picked() { // the others stay as they are and turn pale together
      front.clearRect(0, 0, width, height);
      for (const i of selection) stamp(front, i);
      base.style.opacity = selection.length ? 0.25 : 1;
    },
    over: drawOver,
  };
  const stale = new Set();
  function paint(...names) { // once per frame, however many messages arrive
    if (!stale.size) requestAnimationFrame(() => {
      const now = [...stale];
      stale.clear();
      for (const name of Object.keys(layers)) if (now.includes(name)) layers[name]();
    });
    names.forEach((name) => stale.add(name));
  }

  function circle(i, size, colour, thick) {
    top.beginPath();
    top.arc(screen[2 * i], screen[2 * i + 1], size, 0, 7);
    Object.assign(top, { strokeStyle: colour, lineWidth: thick });
    top.stroke();
  }

  function drawOver() {
    top.clearRect(0, 0, width, height);
    const focus = model.get("focus"), size = radius();
    for (const i of bytes("shown", Int32Array)) circle(i, size + 2, INK, 1);
    if (focus >= 0) {
      const near = bytes("neighbours", Int32Array);
      drawLinks(top, Array.from(near, (i) => [focus, i]), PICK, 1);
      for (const i of near) circle(i, size + 3, PICK, 1.4);
      circle(focus, size + 5, PICK, 2.6);
    }
    const lit = under >= 0 ? partners.get(scenes[under]) || [under] : pointed;
    drawLinks(top, [lit], INK, 1.6);
    for (const i of lit) circle(i, size + 4, INK, 2);
    if (drag && tool !== "move") {
      top.beginPath();
      if (tool === "box") top.rect(...drag.path[0], ...drag.path[1].map((v, k) => v - drag.path[0][k]));
      else drag.path.forEach((p) => top.lineTo(...p));
      top.closePath();
      Object.assign(top, { fillStyle: "rgba(11,107,203,.12)", strokeStyle: PICK, lineWidth: 1.5 });
      top.fill();
      top.stroke();
    }
  }

  // ---- choosing
  function nearest(x, y) {
    let best = -1, least = NEAR * NEAR;
    for (let i = 0; i < marks.length; i++) {
      const d = (screen[2 * i] - x) ** 2 + (screen[2 * i + 1] - y) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  }

  function enclosed() {
    const test = tool === "box" ? insideBox : insidePolygon, found = [];
    for (let i = 0; i < marks.length; i++) if (test(screen[2 * i], screen[2 * i + 1], drag.path)) found.push(i);
    return found;
  }

  function choose(found, adding) {
    const all = adding ? [...new Set([...selection, ...found])].sort((a, b) => a - b) : found;
    const bits = Int32Array.from(all);
    model.set("selection", new DataView(bits.buffer));
    model.save_changes();
  }

  const at = (event) => {
    const frame = over.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };

  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    over.setPointerCapture(event.pointerId);
    const start = at(event);
    drag = { start, path: tool === "box" ? [start, start] : [start], far: false, shift };
    under = -1;
  });
  over.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (!drag) return hover(x, y);
    const away = Math.hypot(x - drag.start[0], y - drag.start[1]);
    drag.far ||= away > 4;
    if (tool === "move") {
      shift = [drag.shift[0] + x - drag.start[0], drag.shift[1] + y - drag.start[1]];
      return redraw();
    }
    const last = drag.path[drag.path.length - 1];
    if (tool === "box") drag.path[1] = [x, y];
    else if (Math.hypot(x - last[0], y - last[1]) > 3) drag.path.push([x, y]);
    paint("over");
  });
  over.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const point = nearest(...drag.start);
    if (!drag.far) choose(point < 0 ? [] : [point], event.shiftKey);
    else if (tool !== "move") choose(enclosed(), event.shiftKey);
    drag = null;
    paint("over");
  });
  over.addEventListener("pointercancel", () => { drag = null; paint("over"); });
  over.addEventListener("pointerleave", () => { if (!drag) hover(-99, -99); });
  over.addEventListener("wheel", (event) => {
    if (tool !== "move" && !event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), at(event));
  }, { passive: false });

  function hover(x, y) {
    const found = nearest(x, y);
    if (found === under) return;
    under = found;
    over.style.cursor = under >= 0 ? "pointer" : tool === "move" ? "grab" : "crosshair";
    hint.hidden = under < 0;
    if (under >= 0) {
      const groups = model.get("groups"), group = groups.findLast((g) => g.start <= under);
      hint.textContent = `${group.title} ${under - group.start}`;
      const left = screen[2 * under] > width * 0.7;
      hint.style.left = left ? "" : `${screen[2 * under] + 14}px`;
      hint.style.right = left ? `${width - screen[2 * under] + 14}px` : "";
      hint.style.top = `${Math.max(2, screen[2 * under + 1] - 26)}px`;
    }
    paint("over");
  }

  // ---- bar
  const buttons = Object.fromEntries(Object.entries(TOOLS).map(([name, text]) => {
    const button = make(bar, "button", `socketlab-tool-${name}`, text);
    Object.assign(button, { title: TIPS[name], type: "button", onclick: () => take(name) });
    return [name, button];
  }));
  function take(name) {
    tool = name;
    for (const [key, button] of Object.entries(buttons)) button.setAttribute("aria-pressed", key === name);
    over.style.cursor = name === "move" ? "grab" : "crosshair";
  }
  function zoomBy(factor, centre = [width / 2, height / 2]) {
    const next = Math.min(40, Math.max(1, zoom * factor));
    shift = shift.map((s, k) => centre[k] - ((centre[k] - s) * next) / zoom);
    zoom = next;
    if (zoom === 1) shift = [0, 0];
    redraw();
  }
  make(bar, "span", "socketlab-map-gap");
  for (const [text, tip, act] of [["+", "zoom in", () => zoomBy(1.5)], ["−", "zoom out", () => zoomBy(1 / 1.5)],
    ["Fit", "show the whole map", () => zoomBy(0)]]) {
    const button = make(bar, "button", "", text);
    Object.assign(button, { title: tip, type: "button", onclick: act });
    button.setAttribute("aria-label", tip);
  }

  // ---- what Python says
  function redraw() {
    place();
    paint("points", "picked", "over");
  }
  function recolour() {
    tints = bytes("tints", Uint8Array);
    sprites.clear();
    legendOf(legend, model.get("legend"));
    over.setAttribute("aria-label", model.get("says"));
  }
  function travel() {
    const from = xy, to = bytes("xy", Float32Array), begun = performance.now(), mine = ++still;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (calm || from.length !== to.length) { xy = to; return redraw(); }
    const step = (now) => {
      if (mine !== still) return;
      const t = Math.min(1, Math.max(0, (now - begun) / MOVE_MS)), eased = t * t * (3 - 2 * t);
      xy = t < 1 ? to.map((v, i) => from[i] + (v - from[i]) * eased) : to;
      redraw();
      if (t < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
  const hears = {
    "change:xy": travel,
    "change:tints change:legend change:says": () => { recolour(); paint("points", "picked"); },
    "change:selection": () => { readSelection(); paint("picked", "over"); },
    "change:shown change:focus change:neighbours": () => paint("over"),
    "change:links": () => paint("points"),
  };
  for (const [events, act] of Object.entries(hears)) model.on(events, act);

  // ---- cards outside of this view: under the mouse they light their points, a click asks for neighbours
  const card = (event) => {
    const found = event.target instanceof Element && event.target.closest("[data-points]");
    return found && found.closest(".socketlab-explorer") === el.closest(".socketlab-explorer") ? found : null;
  };
  const light = (event) => {
    const found = card(event), next = found ? found.dataset.points.split(",").map(Number) : [];
    if (String(next) === String(pointed)) return;
    pointed = next;
    paint("over");
  };
  const ask = (event) => {
    const found = card(event);
    if (!found) return;
    model.set("focus", Number(found.dataset.points.split(",")[0]));
    model.save_changes();
  };
  document.addEventListener("mouseover", light);
  document.addEventListener("click", ask);

  readPoints();
  readSelection();
  xy = bytes("xy", Float32Array);
  recolour();
  take("lasso");
  redraw();
  hint.hidden = true;

  return () => {
    still++;
    document.removeEventListener("mouseover", light);
    document.removeEventListener("click", ask);
    for (const [events, act] of Object.entries(hears)) model.off(events, act);
  };
}

export default { render };
