"""A server on localhost that does to a downloader what servers do: each path has a behaviour of its own."""

import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def picture(seed=0, kind="JPEG"):
    """Bytes of a real image file, too large for one packet."""
    pixels = np.random.default_rng(seed).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """`GET /name` is answered by the method `name` of this class, or by the server's `files`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        name = self.path.strip("/").split("?")[0]
        with site.lock:
            site.asked[name] += 1
            site.ranges.append((name, self.headers.get("Range")))
            site.agents.add(self.headers.get("User-Agent"))
            site.at_once += 1
            site.most_at_once = max(site.most_at_once, site.at_once)
        try:
            site.behaviours.get(name, Site.plain)(site, self, name)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with site.lock:
                site.at_once -= 1

    def send(self, body=b"", status=200, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Site:
    """What the server has, how it behaves, and what it was asked.

    behaviours: {path: function(site, handler, path)}; every other path is served plainly from `files`, with ranges.
    """

    def __init__(self):
        self.files, self.behaviours = {}, {}
        self.asked, self.ranges, self.agents = Counter(), [], set()
        self.lock, self.at_once, self.most_at_once = threading.Lock(), 0, 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.site = self
        self.server.handle_error = lambda *_: None  # a client that hangs up
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    # -- behaviours

    def plain(self, handler, name):
        body = self.files.get(name)
        if body is None:
            handler.send(b"not here", 404)
            return
        asked = handler.headers.get("Range")
        if asked and handler.headers.get("If-Range") == '"v1"':
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            handler.send(body[start:], 206, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", ETag='"v1"')
        else:
            handler.send(body, ETag='"v1"')

    def drops(self, handler, name, times=2):
        """Closes the connection in the middle of the body, the first few times."""
        body = self.files[name]
        if self.asked[name] > times:
            self.plain(handler, name)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"v1"')
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True

    def short(self, handler, name):
        """A body that is always shorter than announced."""
        handler.send(self.files[name][:100], length=5000)
        handler.close_connection = True

    def silent(self, handler, name):
        """Closes the connection without an answer."""
        handler.close_connection = True

    def html(self, handler, name):
        handler.send(b"<html>The image has moved</html>", Content_Type="text/html")

    def gone(self, handler, name):
        handler.send(status=410)

    def busy(self, handler, name):
        """429 with Retry-After once, then the file."""
        if self.asked[name] > 1:
            self.plain(handler, name)
        else:
            handler.send(status=429, Retry_After="1")

    def closed(self, handler, name):
        handler.send(status=429, Retry_After="86400")

    def broken(self, handler, name):
        handler.send(status=500)

    def shaky(self, handler, name):
        """500 once, then the file."""
        if self.asked[name] > 1:
            self.plain(handler, name)
        else:
            handler.send(status=500)

    def moved(self, handler, name):
        """To another place on the same host."""
        handler.send(status=302, Location="/target")

    def elsewhere(self, handler, name):
        """To another host: the same server under another name."""
        handler.send(status=302, Location=f"http://localhost:{self.server.server_port}/target")

    def circle(self, handler, name):
        handler.send(status=302, Location=f"/{name}")

    def scheme(self, handler, name):
        handler.send(status=302, Location="file:///etc/passwd")

    def endless(self, handler, name):
        """No length, and no end."""
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(b"x" * 65536)

    def slow(self, handler, name):
        """A byte now and then."""
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    def changed(self, handler, name):
        """The file is another one after the first, broken try: a range of the old one is refused."""
        if self.asked[name] == 1:
            self.drops(handler, name)
            return
        handler.send(self.files[name], ETag='"v2"')

    def other_part(self, handler, name):
        """Half of the body, then a part from the start where the rest was asked for."""
        if self.asked[name] == 1:
            self.drops(handler, name)
            return
        body = self.files[name]
        if handler.headers.get("Range"):
            handler.send(body[:50], 206, Content_Range=f"bytes 0-49/{len(body)}", ETag='"v1"')
        else:
            handler.send(body, ETag='"v1"')
