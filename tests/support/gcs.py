"""A Google Cloud Storage in memory, with its JSON interface by HTTP.

As much of it as gcsfs, google-cloud-storage and tensorstore use, with generations and
conditions upon them as documented: reading, listing, writing (at once, with metadata,
in parts), copying and deleting. `environment` turns those libraries to it.
"""

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import http.server
import json
import re
import sys
import threading
import urllib.parse

import google_crc32c

BUCKET = "bucket"
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)")


@dataclasses.dataclass
class Object:
    data: bytes
    generation: int
    about: dict
    updated: datetime.datetime


class Storage:
    """The objects of one bucket; `requests` are what was asked, in order.

    Attributes:
      status: with which every request is refused, instead of being met.
    """

    def __init__(self):
        self.objects = {}
        self.uploads = {}
        self.requests = []
        self.status = 0
        self.lock = threading.RLock()
        self.generation = 1000

    def names(self, prefix=""):
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def write(self, name, data, about=None):
        with self.lock:
            self.generation += 1
            now = datetime.datetime.now(datetime.UTC)
            self.objects[name] = Object(data, self.generation, about or {}, now)
            return self.described(name)

    def described(self, name):
        stored = self.objects[name]
        crc = google_crc32c.Checksum(stored.data).digest()
        time = stored.updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "kind": "storage#object",
            "id": f"{BUCKET}/{name}/{stored.generation}",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(stored.data)),
            "generation": str(stored.generation),
            "metageneration": "1",
            "etag": str(stored.generation),
            "timeCreated": time,
            "updated": time,
            "md5Hash": base64.b64encode(hashlib.md5(stored.data).digest()).decode(),
            "crc32c": base64.b64encode(crc).decode(),
            "contentType": "application/octet-stream",
            **({"metadata": stored.about} if stored.about else {}),
        }


@contextlib.contextmanager
def running():
    """A server: its address, and its storage."""
    storage = Storage()
    handler = type("Handler", (_Handler,), {"storage": storage})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", storage
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(address):
    """Variables that turn the libraries to a server."""
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "TENSORSTORE_GCS_HTTP_VERSION": "1.1",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "NO_GCE_CHECK": "true",  # is not asked for credentials
        # Asks for kinds of buckets through another interface than this one.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Whoever asked may not wait for the answer.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Answer(Exception):
    def __init__(self, status, reason):
        self.status, self.reason = status, reason


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        self._answer(self._post)

    def do_PUT(self):
        self._answer(self._put)

    def do_DELETE(self):
        self._answer(self._delete)

    def _answer(self, method):
        parsed = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(parsed.query))
        self.route = parsed.path
        self.body = self._read()
        with self.storage.lock:
            self.storage.requests.append(f"{self.command} {self.path}")
            try:
                if self.storage.status:
                    raise _Answer(self.storage.status, "Not for this caller")
                bucket = re.search(r"/b/([^/]+)", self.route)
                if bucket and bucket[1] != BUCKET:
                    raise _Answer(404, "The specified bucket does not exist.")
                method()
            except _Answer as answer:
                error = {"code": answer.status, "message": answer.reason}
                text = json.dumps({"error": error}).encode()
                # 304 is the one answer that may have no body.
                self._send(answer.status, b"" if answer.status == 304 else text)

    def _read(self):
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status, data=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _json(self, value, **headers):
        self._send(200, json.dumps(value).encode(), **headers)

    def _name(self):
        match = _OBJECT.fullmatch(self.route)
        if not match:
            raise _Answer(404, f"no route {self.command} {self.path}")
        return urllib.parse.unquote(match[2])

    def _stored(self, name):
        if name not in self.storage.objects:
            raise _Answer(404, f"No such object: {BUCKET}/{name}")
        return self.storage.objects[name]

    def _check(self, name):
        """The conditions of a request upon an object."""
        stored = self.storage.objects.get(name)
        generation = stored.generation if stored else 0
        if int(self.query.get("ifGenerationMatch", generation)) != generation:
            raise _Answer(412, "At least one of the pre-conditions did not hold.")
        if "ifGenerationNotMatch" in self.query:
            if int(self.query["ifGenerationNotMatch"]) == generation:
                raise _Answer(304, "Not Modified")

    def _get(self):
        if re.fullmatch(r"/storage/v1/b/[^/]+", self.route):
            return self._json({"kind": "storage#bucket", "name": BUCKET, "id": BUCKET})
        if re.fullmatch(r"/storage/v1/b/[^/]+/o/?", self.route):
            return self._list()
        name = self._name()
        stored = self._stored(name)
        self._check(name)
        if self.query.get("alt") != "media":
            return self._json(self.storage.described(name))
        about = self.storage.described(name)
        marks = {
            "x_goog_generation": about["generation"],
            "x_goog_hash": f"crc32c={about['crc32c']},md5={about['md5Hash']}",
            "ETag": about["etag"],
        }
        data = stored.data
        ranged = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not ranged or not data:
            return self._send(200, data, "application/octet-stream", **marks)
        size = len(data)
        first, last = ranged[1], ranged[2]
        if not first:
            first, last = max(size - int(last), 0), size - 1
        first = int(first)
        last = min(int(last), size - 1) if last != "" else size - 1
        if first >= size:
            raise _Answer(416, "Requested range not satisfiable")
        marks["Content_Range"] = f"bytes {first}-{last}/{size}"
        self._send(206, data[first : last + 1], "application/octet-stream", **marks)

    def _list(self):
        prefix = self.query.get("prefix", "")
        delimiter = self.query.get("delimiter", "")
        first = self.query.get("startOffset", "")
        end = self.query.get("endOffset", "")
        most = int(self.query.get("maxResults", 1000))
        after = self.query.get("pageToken", "")
        items, prefixes, token = [], [], ""
        for name in self.storage.names(prefix):
            if name < first or (end and name >= end):
                continue
            folder = ""
            if delimiter and delimiter in name[len(prefix) :]:
                rest = name[len(prefix) :].split(delimiter)[0]
                folder = prefix + rest + delimiter
            shown = folder or name
            if shown <= after or shown in prefixes:
                continue
            if len(items) + len(prefixes) == most:
                break
            token = shown
            if folder:
                prefixes.append(folder)
            else:
                items.append(self.storage.described(name))
        else:
            token = ""
        page = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        self._json({**page, "nextPageToken": token} if token else page)

    def _post(self):
        copied = re.fullmatch(
            r"/storage/v1/b/[^/]+/o/(.+)/(?:rewriteTo|copyTo)/b/[^/]+/o/(.+)",
            self.route,
        )
        if copied:
            source, target = map(urllib.parse.unquote, copied.groups())
            self._check(target)
            about = self.storage.write(target, self._stored(source).data)
            size = about["size"]
            done = {"done": True, "objectSize": size, "totalBytesRewritten": size}
            return self._json({**done, "resource": about})
        if not re.fullmatch(r"(/resumable)?/upload/storage/v1/b/[^/]+/o", self.route):
            raise _Answer(404, f"no route {self.command} {self.path}")
        if "upload_id" in self.query:
            return self._put()
        kind = self.query["uploadType"]
        if kind == "media":
            return self._write(self.query["name"], self.body)
        if kind == "multipart":
            about, data = self._parts()
            return self._write(about["name"], data, about.get("metadata"))
        about = json.loads(self.body or b"{}")
        name = self.query.get("name") or about["name"]
        self._check(name)
        number = str(len(self.storage.uploads))
        self.storage.uploads[number] = [name, about.get("metadata"), b""]
        address = f"http://{self.headers['Host']}{self.route}"
        query = {"uploadType": "resumable", "upload_id": number}
        self._json({}, Location=f"{address}?{urllib.parse.urlencode(query)}")

    def _write(self, name, data, about=None):
        self._check(name)
        self._json(self.storage.write(name, data, about))

    def _parts(self):
        """Metadata and content of a body of two parts."""
        boundary = re.search(r'boundary="?([^";]+)"?', self.headers["Content-Type"])[1]
        mark = b"--" + boundary.encode()
        first, second = self.body.split(mark, 1)[1].split(mark, 1)
        second = second[: second.rindex(b"--" + boundary.encode())]
        bodies = []
        for part in (first, second):
            head = re.search(rb"\r?\n\r?\n", part)
            bodies.append(part[head.end() :])
        ending = rb"\r?\n\Z"
        return json.loads(bodies[0]), re.sub(ending, b"", bodies[1])

    def _put(self):
        upload = self.storage.uploads[self.query["upload_id"]]
        upload[2] += self.body
        size = self.headers.get("Content-Range", "").rpartition("/")[2]
        if size not in ("", "*") and len(upload[2]) == int(size):
            name, about, data = upload
            return self._json(self.storage.write(name, data, about))
        self._send(308, Range=f"bytes=0-{len(upload[2]) - 1}")

    def _delete(self):
        name = self._name()
        self._stored(name)
        self._check(name)
        del self.storage.objects[name]
        self._send(204)
