/**
 * What a visitor does with a labeller: choose, drop or paste images, and read the labels, times and heat maps. The page
 * of `rexport web` and that of `rexport serve` are this view over two labellers.
 *
 * A labeller is an object with `label(file)`, which returns a promise of `{labels, times, heat}`. `heat` is a function
 * from the index of a class to a heat map, or to a promise of one; or null.
 */

import { drawImage } from "./heat.js";

/** Formats whose files can be chosen. */
const FORMATS = "image/jpeg,image/png,image/webp,image/gif,image/bmp";

const HEAT_HINT = "Press a class to see which parts of the image speak for it.";

/** The largest number of answers on the page. Older ones are removed. */
const MOST = 20;

/** The largest length of a name, in characters. */
const LONGEST = 200;

/** Return a new element with properties and children. A child may be text. */
export function element(name, properties = {}, ...children) {
  const result = Object.assign(document.createElement(name), properties);
  result.append(...children);
  return result;
}

/** Return text whose control characters, and those that hide or turn the direction of writing, are escapes. */
export function visible(text) {
  const escapeOf = (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;
  const whole = text.replace(/(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, escapeOf);
  return whole.length <= LONGEST ? whole : `${whole.slice(0, LONGEST)}… (${text.length} characters)`;
}

/** Show what the page is doing, and the completed share where it is known. */
export function showStatus(text, share = null) {
  const status = document.getElementById("status");
  const bar = document.getElementById("progress");
  const shown = visible(text);
  if (status.textContent !== shown) status.textContent = shown;
  bar.hidden = share === null;
  if (share !== null) bar.value = share;
}

/** Show why the page cannot be used. The visitor can do nothing else on it. */
export function showFailure(text) {
  showStatus("");
  document.getElementById("failure").textContent = visible(text);
  document.getElementById("failure").hidden = false;
}

/**
 * Let the visitor label images.
 *
 * @param {object} labeller The labeller.
 * @param {{name: string, file: () => Promise<Blob>, address: string}[]} samples Images to try.
 */
export function startView(labeller, samples = []) {
  const input = element("input", { type: "file", id: "file", accept: FORMATS, multiple: true });
  const words = element("span", {}, element("strong", {}, "Choose images"), ", drop them here, or paste one.");
  const area = document.getElementById("drop");
  area.append(input, element("label", { htmlFor: "file" }, words));
  area.hidden = false;
  input.addEventListener("change", () => {
    labelAll(labeller, [...input.files]);
    input.value = "";
  });
  addEventListener("paste", (event) => labelAll(labeller, [...event.clipboardData.files]));
  listenForDrops(area, (files) => labelAll(labeller, files));
  showSamples(labeller, samples);
}

function listenForDrops(area, use) {
  const isOfFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!isOfFiles(event)) return;
    event.preventDefault();
    area.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? area.classList.remove("over"));
  addEventListener("drop", (event) => {
    if (!isOfFiles(event)) return;
    event.preventDefault();
    area.classList.remove("over");
    use([...event.dataTransfer.files]);
  });
}

function showSamples(labeller, samples) {
  if (samples.length === 0) return;
  const row = document.getElementById("samples");
  row.append(element("span", {}, "Or try one:"));
  for (const { name: given, file, address } of samples) {
    const name = visible(given);
    const picture = element("img", { src: address, alt: name, width: 48, height: 48 });
    const button = element("button", { type: "button", title: name }, picture);
    button.addEventListener("click", async () => labelOne(labeller, await file(), name));
    row.append(button);
  }
  row.hidden = false;
}

async function labelAll(labeller, files) {
  for (const file of files) await labelOne(labeller, file, visible(file.name || "pasted image"));
}

/** Add the answer for one image above the earlier ones. An error is the answer for its image. */
async function labelOne(labeller, file, name) {
  const answers = document.getElementById("answers");
  const answer = element("article", {}, element("h2", {}, name), element("p", { className: "sub" }, "Labelling…"));
  answers.prepend(answer);
  while (answers.children.length > MOST) answers.lastElementChild.remove();
  await painted();
  try {
    const answered = await labeller.label(file);
    const labels = answered.labels.map((label) => ({ ...label, name: visible(label.name) }));
    const bitmap = await createImageBitmap(file).catch(() => null);
    showAnswer(answer, name, { ...answered, labels }, bitmap);
  } catch (error) {
    answer.lastElementChild.replaceWith(element("p", { className: "alarm" }, visible(error.message)));
  }
}

/** Return after the browser has drawn what was changed. A hidden page draws nothing, and is not waited for. */
function painted() {
  if (document.hidden) return Promise.resolve();
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

function showAnswer(answer, name, { labels, times, heat }, bitmap) {
  const canvas = element("canvas", { role: "img", ariaLabel: name });
  const caption = element("figcaption", { className: "sub" });
  const picture = element("figure", {}, canvas, caption);
  if (bitmap) drawImage(canvas, bitmap);
  else canvas.replaceWith("This browser cannot show the image.");
  const choices = heat && bitmap ? heatChoices(labels, heat, canvas, caption, bitmap) : labels.map(() => null);
  const body = element("tbody", {}, ...labels.map((label, place) => rowOf(label, choices[place])));
  const headings = ["Class", "Probability"].map((text) => element("th", { scope: "col" }, text));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...headings)), body);
  const timing = times.map(([step, milliseconds]) => `${step} ${milliseconds.toFixed(1)} ms`).join(" · ");
  const right = element("div", {}, table, element("p", { className: "sub times" }, timing));
  answer.replaceChildren(element("h2", {}, name), element("div", { className: "answer" }, picture, right));
}

function rowOf({ name, probability }, choice) {
  const percent = `${(100 * probability).toFixed(1)} %`;
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--share", probability);
  const heading = element("th", { scope: "row" }, choice ?? name);
  return element("tr", {}, heading, element("td", {}, element("div", { className: "share" }, bar, element("span", {}, percent))));
}

/** Return a button for each class, which shows and hides its heat map on the canvas. */
function heatChoices(labels, heat, canvas, caption, bitmap) {
  caption.textContent = HEAT_HINT;
  const buttons = labels.map(({ name }) => element("button", { type: "button", ariaPressed: "false" }, name));
  buttons.forEach((button, place) => {
    button.addEventListener("click", async () => {
      const isShown = button.ariaPressed === "true";
      buttons.forEach((other) => (other.ariaPressed = "false"));
      try {
        const map = isShown ? null : await heat(labels[place].index);
        drawImage(canvas, bitmap, map);
        button.ariaPressed = String(!isShown);
        caption.textContent = map ? captionOf(map, labels[place].name) : HEAT_HINT;
      } catch (error) {
        caption.textContent = visible(error.message);
      }
    });
  });
  return buttons;
}

function captionOf({ seen: [top, left, bottom, right] }, name) {
  const isWhole = top <= 0 && left <= 0 && bottom >= 1 && right >= 1;
  return `Colours show what speaks for ${name}.${isWhole ? "" : " The network does not see the dark parts."}`;
}
