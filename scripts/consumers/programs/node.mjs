// Logits by ONNX Runtime in JavaScript: node node.mjs PACKAGE MODEL INPUT OUTPUT DTYPE DIMENSION...
// PACKAGE is the folder of onnxruntime-node or onnxruntime-web.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, model, source, target, dtype, ...shape] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const ort = require(folder);
console.log(`version ${JSON.parse(readFileSync(`${folder}/package.json`)).version}`);
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const bytes = readFileSync(source);
const data = dtype === "uint8" ? new Uint8Array(bytes) : new Float32Array(new Uint8Array(bytes).buffer);
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(model)));
const { logits } = await session.run({ input: new ort.Tensor(dtype, data, shape.map(Number)) });
writeFileSync(target, new Uint8Array(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength));
