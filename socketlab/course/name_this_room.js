// The game Name this room: depth images to be named, then the score beside the network's and the colour images.
// In Jupyter and on the site; everything it shows is in `game`.

const STYLE = `
.socketlab-game { font-size: 15px; line-height: 1.4; max-width: 860px; }
.socketlab-game img { image-rendering: pixelated; border-radius: 4px; display: block; width: 100%; }
.socketlab-game .scene { width: min(256px, 60vw); margin: 6px 0; }
.socketlab-game .names { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 6px; }
.socketlab-game button {
  font: inherit; padding: 8px 10px; cursor: pointer; color: #24292f; background: #f3f5f7;
  border: 1px solid #8a939c; border-radius: 4px;
}
.socketlab-game button:focus-visible { outline: 3px solid #7fb2e5; outline-offset: 1px; }
.socketlab-game .score { font-size: 20px; margin: 6px 0; }
.socketlab-game .rooms { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px; }
.socketlab-game .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; margin-bottom: 3px; }
`;

function part(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function picture(source, words) {
  return Object.assign(document.createElement("img"), { src: source, alt: words });
}

function render({ model, el }) {
  const { classes, rounds, accuracy } = model.get("game");
  const box = part("div", "", "socketlab-game");
  const answers = [];
  const verdict = (name, right) => `${name} ${right ? "✔" : "✘"}`;
  el.append(part("style", STYLE), box);

  function ask() {
    const number = answers.length + 1;
    const heading = part("div", `Room ${number} of ${rounds.length}: which is it?`);
    const scene = part("div", "", "scene");
    const names = part("div", "", "names");
    heading.setAttribute("role", "status");
    scene.append(picture(rounds[number - 1].depth, `Depth image ${number}: near is bright, far is dark, missing is pink`));
    classes.forEach((name, index) => {
      const button = part("button", name);
      button.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the keys to it
      button.addEventListener("click", () => {
        answers.push(index);
        if (answers.length < rounds.length) ask();
        else reveal();
      });
      names.append(button);
    });
    box.replaceChildren(heading, scene, names);
    if (number > 1) names.firstChild.focus();
  }

  function reveal() {
    const own = rounds.filter((round, i) => round.truth === answers[i]).length;
    const its = rounds.filter((round) => round.truth === round.network).length;
    const score = part("div", `You named ${own} of ${rounds.length}, the network ${its}.`, "score");
    const words = part("p", `The network reads colour and was never shown depth. Of all ${accuracy.images} depth images it names ${accuracy.share}. Here are the same rooms in colour:`);
    const shown = part("div", "", "rooms");
    score.setAttribute("role", "status");
    rounds.forEach((round, i) => {
      const card = part("div"), pair = part("div", "", "pair"), name = classes[round.truth];
      pair.append(picture(round.depth, `${name} in depth`), picture(round.rgb, `${name} in colour`));
      card.append(
        pair,
        part("b", name),
        part("div", `you: ${verdict(classes[answers[i]], round.truth === answers[i])}`),
        part("div", `network: ${verdict(classes[round.network], round.truth === round.network)}`),
      );
      shown.append(card);
    });
    box.replaceChildren(score, words, shown);
  }

  ask();
}

export default { render };
