"""A web server on this machine that serves one file, and misbehaves as it is told."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """What the server does, and what it was asked.

    Attributes:
        content: the file at every path.
        ranges: whether it continues where a client stopped.
        cut_after: bytes after which it closes the connection, though it announced more; a list is
            used up answer by answer.
        length: whether it announces the length.
        status: of every answer, 200 where all is well.
        content_type: of every answer.
        silent: whether it answers only when it ends.
        shift: how far beyond the place asked for its ranges start.
        requests: the range of every request, ``None`` where all was asked for.
        paths: the path of every request.
    """

    def __init__(self, content):
        self.content, self.ranges, self.length, self.status = content, True, True, 200
        self.content_type, self.silent, self.cut_after, self.shift = "application/zip", False, [], 0
        self.requests, self.paths = [], []
        self.url, self.ended = "", threading.Event()

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        self.paths.append(handler.path)
        if self.silent:
            self.ended.wait()
        start, status = 0, self.status
        if asked and self.ranges:
            start, status = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + self.shift, 206
            if start >= len(self.content):
                status = 416
        body = self.content[start:]
        handler.send_response(status)
        handler.send_header("Content-Type", self.content_type)
        if self.length:
            handler.send_header("Content-Length", str(len(body)))
        if self.ranges:
            handler.send_header("Accept-Ranges", "bytes")
        if status == 206:
            end, total = len(self.content) - 1, len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        handler.end_headers()
        handler.wfile.write(body[: self.cut_after.pop(0)] if self.cut_after else body)


@contextmanager
def serving(content):
    """The server, while it runs."""
    server = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def log_message(self, *args):
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *args):  # a client that gave up
            pass

    with Quiet(("127.0.0.1", 0), Handler) as running:
        server.url = f"http://127.0.0.1:{running.server_port}/weights.pth"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            running.shutdown()
            thread.join()
