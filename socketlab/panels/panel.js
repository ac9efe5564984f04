// What core widgets lack: names and values for screen readers, keys that JupyterLab leaves alone, sizes of
// pictures, and a sentence where no kernel answers. It serves the box that it is a child of.

const SILENT_MS = 4000, SPEAK_MS = 15000;
const SILENCE = "No answer from the kernel: it is busy with another cell, or it was restarted. "
  + "After a restart, run this cell again.";

// Every control gets the name written beside it, its value as written, and its keys to itself.
function nameControls(root) {
  for (const widget of root.querySelectorAll(".jupyter-widgets")) {
    const label = widget.querySelector(":scope > .widget-label")?.textContent.trim();
    const value = widget.querySelector(":scope > .widget-readout")?.textContent.trim();
    for (const part of widget.querySelectorAll(":scope [role=slider], select, input, textarea, button, [tabindex]")) {
      part.dataset.lmSuppressShortcuts = "true";
      if (part.closest(".jupyter-widgets") !== widget) continue;
      if (label && part.getAttribute("role") === "slider") part.setAttribute("aria-label", label);
      if (value && part.getAttribute("role") === "slider") part.setAttribute("aria-valuetext", value);
    }
  }
}

const pictureName = (image) =>
  [...image.classList].map((name) => name.match(/^socketlab-picture-(.+)$/)?.[1]).find(Boolean);

function serve(root, model, el) {
  const spoken = Object.assign(document.createElement("div"), { className: "socketlab-spoken" });
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  const silent = Object.assign(document.createElement("div"), { className: "socketlab-silent", hidden: true });
  silent.setAttribute("role", "alert");
  el.append(spoken);
  root.prepend(silent);

  // The state is spoken when it changes, its progress now and then.
  let state = "", spokenAt = 0;
  const speak = () => {
    const text = root.querySelector(".socketlab-status")?.textContent.trim() || "";
    const word = text.split(" ")[0], now = Date.now();
    if (!text || (word === state && now - spokenAt < SPEAK_MS)) return;
    [state, spokenAt, spoken.textContent] = [word, now, text];
  };

  let waiting = 0;
  const refresh = () => {
    if (waiting) return;
    waiting = requestAnimationFrame(() => { waiting = 0; nameControls(root); measure(); speak(); });
  };
  const changes = new MutationObserver(refresh);
  changes.observe(root, { childList: true, subtree: true, characterData: true });

  let posting = 0, sizes = {};
  const rooms = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries)
      if (contentRect.width > 0) sizes[pictureName(target)] = [contentRect.width, contentRect.height];
    clearTimeout(posting);
    posting = setTimeout(() => { send({ sizes, dark: document.body.dataset.jpThemeLight === "false" }); sizes = {}; }, 300);
  });
  const measured = new Set();
  const theme = new MutationObserver(() => {
    for (const image of measured) { rooms.unobserve(image); rooms.observe(image); } // reports its size again
  });
  theme.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  const measure = () => {
    for (const image of root.querySelectorAll("img.socketlab-picture"))
      if (pictureName(image) && !measured.has(image)) { measured.add(image); rooms.observe(image); }
  };

  let unanswered = 0;
  const answered = () => { clearTimeout(unanswered); unanswered = 0; silent.hidden = true; };
  const complain = () => { unanswered = 0; silent.hidden = false; silent.textContent = SILENCE; };
  function send(content) { try { model.send(content); return true; } catch { return false; } }
  model.on("msg:custom", (content) => content.pong && answered());

  const onClick = (event) => {
    if (!event.target.closest("button") || unanswered) return;
    unanswered = setTimeout(complain, SILENT_MS);
    if (!send({ ping: true })) complain();
  };
  root.addEventListener("click", onClick);
  refresh();
  return () => {
    changes.disconnect(); rooms.disconnect(); theme.disconnect(); clearTimeout(unanswered); clearTimeout(posting);
    root.removeEventListener("click", onClick); silent.remove();
  };
}

export default {
  render({ model, el }) {
    let end = () => {}, tries = 0;
    const begin = () => {
      const root = el.closest(".socketlab-accessible");
      if (root) end = serve(root, model, el);
      else if (tries++ < 600) requestAnimationFrame(begin);
    };
    begin();
    return () => { tries = 600; end(); };
  },
};
