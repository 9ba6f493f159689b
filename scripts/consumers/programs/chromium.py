"""Logits by ONNX Runtime Web in Chromium: chromium PACKAGE MODEL INPUT OUTPUT DTYPE DIMENSION...

PACKAGE is the folder of onnxruntime-web. Its files, the model and the input come from a server of this process.
"""

from __future__ import annotations

import base64
import functools
import json
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

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


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def run(address: str, profile: str, dtype: str, shape: list[int]) -> bytes:
    """Return the logits that the page computes, or end with the error of the browser."""
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, Service(which("chromedriver")))
    try:
        driver.set_script_timeout(120)
        driver.get(f"{address}/empty.html")
        result, error = driver.execute_async_script(RUN, dtype, shape)
    finally:
        driver.quit()
    if error:
        sys.exit(error)
    return base64.b64decode(result)


def main() -> None:
    """Serve the files, run them in the browser, and write the logits."""
    package, model, source, target, dtype, *shape = sys.argv[1:]
    version = json.loads(Path(package, "package.json").read_text(encoding="utf-8"))["version"]
    sys.stdout.write(f"version {version}\n")
    with TemporaryDirectory() as folder, TemporaryDirectory() as profile:
        files = {"dist": Path(package) / "dist", "model.onnx": Path(model), "input.bin": Path(source)}
        for name, path in files.items():
            (Path(folder) / name).symlink_to(path.resolve())
        Path(folder, "empty.html").write_text("<!doctype html><title>rexport</title>", encoding="utf-8")
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            Path(target).write_bytes(
                run(f"http://127.0.0.1:{server.server_port}", profile, dtype, list(map(int, shape)))
            )
        finally:
            server.shutdown()


if __name__ == "__main__":
    main()
