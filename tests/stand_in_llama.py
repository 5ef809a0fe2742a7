"""A stand-in for the program that serves a local model: python stand_in_llama.py OPTIONS, as `llama_server` is started.

What it does is said by the content of the file that it should serve, after GGUF: "hangs" says nothing, "breaks" ends
while it loads, "dies" ends at the first request. It answers with its process id, its options and the request.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OPTIONS = json.loads(sys.argv[1])
MODE = Path(OPTIONS["file"]).read_text().removeprefix("GGUF")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "dies":
            os._exit(9)
        content = json.dumps({"pid": os.getpid(), "options": OPTIONS, "request": request})
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": content}}
        self.answer({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...


def main():
    if MODE == "breaks":
        sys.exit("the file makes no sense")
    server = ThreadingHTTPServer(("127.0.0.1", OPTIONS["port"]), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if MODE != "hangs":
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
    os._exit(0)


main()
