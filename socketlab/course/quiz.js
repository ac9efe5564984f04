// A question with options; the reason of an option appears once it is chosen. In Jupyter and on the site.

const RIGHT = "#00736e", WRONG = "#b8420f";
let count = 0;

function render({ model, el }) {
  const { text, options } = model.get("question");
  const name = `socketlab-quiz-${(count += 1)}`;
  const box = document.createElement("fieldset");
  const legend = document.createElement("legend");
  const reply = document.createElement("div");
  box.className = "socketlab-quiz";
  box.style.cssText = "border:0;margin:0;padding:4px 0;line-height:1.45";
  legend.style.cssText = "font-weight:bold;padding:0;white-space:normal";
  legend.textContent = text;
  reply.setAttribute("role", "status");
  box.append(legend);
  for (const option of options) {
    const label = document.createElement("label");
    const choice = document.createElement("input");
    label.style.cssText = "display:flex;gap:8px;align-items:baseline;padding:3px 0;cursor:pointer";
    Object.assign(choice, { type: "radio", name });
    choice.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the arrow keys to it
    choice.addEventListener("change", () => {
      const colour = option.right ? RIGHT : WRONG;
      reply.style.cssText = `border-left:5px solid ${colour};padding:4px 12px;margin:4px 0`;
      reply.textContent = `${option.right ? "✔ Yes." : "✘ Not quite."} ${option.because}`;
    });
    label.append(choice, option.text);
    box.append(label);
  }
  box.append(reply);
  el.append(box);
}

export default { render };
