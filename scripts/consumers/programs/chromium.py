"""Logits by ONNX Runtime Web in Chromium: chromium PACKAGE MODEL INPUT OUTPUT DTYPE DIMENSION...

PACKAGE is the folder of onnxruntime-web. Its files, the model and the input come from a server of this process.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.docs import chromium

RUN = """
const [dtype, shape, done] = arguments;
(async () => {
  const ort = await import("/dist/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  const read = async (name) => (await fetch(name)).arrayBuffer();
  const session = await ort.InferenceSession.create(new Uint8Array(await read("/model.onnx")));
  const bytes = await read("/input.bin");
  const data = dtype === "uint8" ? new Uint8Array(bytes) : new Float32Array(bytes);
  const { logits } = await session.run({ input: new ort.Tensor(dtype, data, shape) });
  const result = new Uint8Array(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength);
  return btoa(String.fromCharCode(...result));
})().then((result) => done([result, null]), (error) => done([null, String(error)]));
"""


def main() -> None:
    """Serve the files, run the model in the browser, and write the logits."""
    package, model, source, target, dtype, *shape = sys.argv[1:]
    version = json.loads(Path(package, "package.json").read_text(encoding="utf-8"))["version"]
    sys.stdout.write(f"version {version}\n")
    if (reason := chromium.missing()) is not None:
        sys.exit(reason)
    with TemporaryDirectory() as folder:
        for name, path in {"dist": f"{package}/dist", "model.onnx": model, "input.bin": source}.items():
            (Path(folder) / name).symlink_to(Path(path).resolve())
        Path(folder, "index.html").write_text("<!doctype html><title>rexport</title>", encoding="utf-8")
        with chromium.serving(Path(folder)) as address, chromium.browser() as driver:
            driver.set_script_timeout(120)
            driver.get(f"{address}/index.html")
            logits, error = driver.execute_async_script(RUN, dtype, list(map(int, shape)))
    if error:
        sys.exit(error)
    Path(target).write_bytes(base64.b64decode(logits))


if __name__ == "__main__":
    main()
