// The look before anything is drawn, then the menu of small screens, the search and the widgets that need no kernel.
// No library, no request.
const root = document.documentElement;
const remembered = () => { try { return localStorage.getItem("look"); } catch { return null; } };
root.dataset.look = remembered() || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

function find(words, most = 12) {
  const asked = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!asked.length) return [];
  const scored = (window.WORDS || []).map(section => {
    const heading = `${section.page} ${section.heading}`.toLowerCase(), text = section.text.toLowerCase();
    if (!asked.every(word => heading.includes(word) || text.includes(word))) return [0, section];
    return [asked.reduce((sum, word) => sum + 10 * heading.includes(word) + text.split(word).length, 1), section];
  });
  return scored.filter(([score]) => score).sort((a, b) => b[0] - a[0]).slice(0, most).map(([, section]) => section);
}

function around(text, word) {
  const at = Math.max(0, text.toLowerCase().indexOf(word.toLowerCase()) - 40);
  return (at ? "… " : "") + text.slice(at, at + 120) + (at + 120 < text.length ? " …" : "");
}

function show(list, words) {
  const found = find(words);
  list.replaceChildren(...found.map(section => {
    const line = document.createElement("li"), link = document.createElement("a");
    const title = document.createElement("b"), text = document.createElement("span");
    link.href = section.to;
    title.textContent = section.page === section.heading ? section.page : `${section.page} › ${section.heading}`;
    text.textContent = around(section.text, words.trim().split(/\s+/)[0]);
    link.append(title, text);
    line.append(link);
    return line;
  }));
  if (words.trim() && !found.length) list.textContent = "Nothing found.";
  list.hidden = !words.trim();
}

document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("look").addEventListener("click", () => {
    root.dataset.look = root.dataset.look === "dark" ? "light" : "dark";
    try { localStorage.setItem("look", root.dataset.look); } catch { /* a page from a disk may keep nothing */ }
  });
  for (const place of document.querySelectorAll(".widget")) {
    const values = JSON.parse(place.querySelector("script").textContent);
    const model = { get: name => values[name], on() {} };
    window.WIDGETS[place.dataset.widget].render({ model, el: place });
  }
  const menu = document.getElementById("menu"), side = document.getElementById("side");
  menu.addEventListener("click", () => {
    menu.setAttribute("aria-expanded", side.classList.toggle("open"));
  });
  side.addEventListener("click", () => side.classList.remove("open"));
  const form = document.getElementById("search"), list = form.querySelector("ol"), input = form.querySelector("input");
  input.addEventListener("input", () => show(list, input.value));
  form.addEventListener("submit", event => {
    event.preventDefault();
    list.querySelector("a")?.click();
  });
  list.addEventListener("click", () => { list.hidden = true; });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") list.hidden = true;
    if (event.key === "/" && document.activeElement === document.body) { event.preventDefault(); input.focus(); }
  });
});
