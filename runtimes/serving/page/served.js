/** The page of `rexport serve`: the server labels the images, and computes their heat maps. */

import { element, showFailure, showStatus, startView } from "./view.js";

/** A labeller whose models are on the server. A heat map comes from the model that gave the labels. */
class ServedLabeller {
  constructor(model) {
    this.model = model;
  }

  async label(file) {
    const { name, heat } = this.model;
    const start = performance.now();
    const { images } = await ask("label", { model: name, top: 5 }, file);
    const times = [[`Answer of ${name}`, performance.now() - start]];
    return { labels: images[0].labels, times, heat: heat ? (index) => explain(name, file, index) : null };
  }
}

/** Return the heat map of a class. */
async function explain(model, file, index) {
  const { map, area, seen } = await ask("explain", { model, index }, file);
  return { rows: map.length, columns: map[0].length, values: map.flat(), area, seen };
}

/** Return the answer of the server to an image, or throw an error with its sentence. */
async function ask(route, parameters, file) {
  let response;
  try {
    response = await fetch(`v1/${route}?${new URLSearchParams(parameters)}`, { method: "POST", body: file });
  } catch {
    throw new Error("The server cannot be reached, or it refused the image before it had all of it.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(sentence(answer.error ?? `the server replied ${response.status}`));
  return answer;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

/** Let the visitor choose among several models. The choice holds for the images to come. */
function showChoice(labeller, models) {
  const options = models.map(({ name }) => element("option", {}, name));
  const choice = element("select", { id: "model" }, ...options);
  choice.addEventListener("change", () => {
    labeller.model = models[choice.selectedIndex];
    showStatus(labeller.model.facts);
  });
  const label = element("label", { htmlFor: "model" }, "Model ");
  document.getElementById("drop").before(element("p", {}, label, choice));
}

const models = JSON.parse(document.getElementById("models").textContent);
if (models.length === 0) {
  showFailure("No model of this server labels images. Its other addresses are listed at openapi.json.");
} else {
  const labeller = new ServedLabeller(models[0]);
  showStatus(labeller.model.facts);
  if (models.length > 1) showChoice(labeller, models);
  startView(labeller);
}
