"""Two services that belong to nobody's agent: a mirror of packages, and a place that collects secrets.

Usage: outsider.py MIRROR_PORT COLLECTOR_PORT FILE. What the collector receives goes into FILE; "ready" on
standard output says that both listen.
"""

import http.server
import json
import socketserver
import sys
import threading

PACKAGES = json.dumps({"decimal-rounding": "2.1.0", "invoice-pdf": "0.9.4"}).encode()


class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(PACKAGES)))
        self.end_headers()
        self.wfile.write(PACKAGES)

    def log_message(self, *_):
        pass


class Collector(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(5)
        with open(sys.argv[3], "ab", buffering=0) as taken:
            taken.write(b"connected\n" + self.request.recv(4096))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    try:
        mirror = Server(("127.0.0.1", int(sys.argv[1])), Mirror)
        collector = Server(("127.0.0.1", int(sys.argv[2])), Collector)
    except OSError as error:
        sys.exit(f"outsider: {error}")
    threading.Thread(target=mirror.serve_forever, daemon=True).start()
    print("ready", flush=True)
    collector.serve_forever()


main()
