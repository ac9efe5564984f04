// What every scatter of the kit shares: the markers of the pictures, legends, elements. Put in front of another
// file (film.js, explorer.js); it exports nothing.

const corners = (angles, radius = 1) => angles.map((a) => [radius * Math.sin(a), -radius * Math.cos(a)]);
const ring = (n, turn = 0) => Array.from({ length: n }, (_, i) => turn + (2 * Math.PI * i) / n);
const star = (n) => ring(2 * n).map((a, i) => [Math.sin(a), -Math.cos(a)].map((v) => v * (i % 2 ? 0.45 : 1.25)));
const cross = [[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]];
const SHAPES = { // radius 1; any other marker is a circle
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

function make(parent, tag, className, text) {
  const part = document.createElement(tag);
  part.className = className;
  if (text) part.textContent = text;
  parent.append(part);
  return part;
}

function legendOf(parent, entries) { // entries: [{ marker, colour, text }]; the marker "▬" is a swatch
  parent.replaceChildren();
  for (const { marker, colour, text } of entries) {
    const line = make(parent, "div", "socketlab-legend-line");
    const dot = make(line, "canvas", "");
    dot.width = dot.height = 28;
    const pen = dot.getContext("2d");
    if (marker === "▬") { pen.beginPath(); pen.rect(3, 6, 22, 16); } else trace(pen, marker, 14, 14, 9);
    pen.fillStyle = colour;
    pen.fill();
    make(line, "span", "", text);
  }
}
