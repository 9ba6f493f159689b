/** The page of `rexport web`: it opens the model of its folder, or the one in its own file, and starts the view. */

import { bytesOf } from "./base64.js";
import { checkDigest, openLabeller, startLabeller } from "./labeller.js";
import { readsTruePixels } from "./decode.js";
import { element, showFailure, showStatus, startView } from "./view.js";

/** Return the content of a file that is part of this page: compressed, in base64. */
async function unpack(file) {
  const text = document.getElementById(file.path).textContent;
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const content = new Uint8Array(await new Response(stream).arrayBuffer());
  await checkDigest(file, content);
  return content;
}

async function open() {
  const embedded = document.getElementById("model.json");
  if (embedded) {
    const source = {
      read: async (file, report) => {
        report(0);
        const content = await unpack(file);
        report(file.bytes);
        return content;
      },
    };
    return startLabeller(JSON.parse(embedded.textContent), source, showStatus);
  }
  return openLabeller(new URL("./", document.baseURI), showStatus);
}

function describe({ model, difference }) {
  if (difference === undefined) return "";
  return `Checked in this browser: the logits of a test image differ from PyTorch's by ${difference.toExponential(1)} of the largest.`;
}

/** Return the sample images of the model, each with an address for its picture. */
function samplesOf({ samples }) {
  return samples.map(({ name, type, content }) => {
    const bytes = bytesOf(content);
    return { name, address: `data:${type};base64,${content}`, file: async () => new Blob([bytes], { type }) };
  });
}

async function start() {
  document.querySelector(".unstarted")?.remove();
  try {
    const labeller = await open();
    showStatus(describe(labeller));
    if (!readsTruePixels()) {
      const text = "This browser changes the pixels that a page reads, so probabilities can differ slightly.";
      document.getElementById("status").after(element("p", { className: "alarm" }, text));
    }
    startView(labeller, samplesOf(labeller.model));
  } catch (error) {
    showFailure(`The model cannot be opened: ${error.message}`);
  }
}

await start();
